"""MLflow alone, without the run store, gives the same numbers."""

from __future__ import annotations

import hashlib
import math
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from analysis.load import MlflowSource, SweepData, load_sweep
from cegppo_lab.metrics import ENTROPY, PPO_KL
from cegppo_lab.store import DONE, FAILED, RUNNING, STOPPED, RunStore, StepRecord, TokenSample
from cegppo_lab.tracking import mirror_sweep
from tests.unit.mlflow_database import new_database
from tests.unit.synthetic_sweep import (
    ARMS,
    BENCHMARK,
    STOP_REASON,
    manifest,
    metrics_at,
    trial_id,
    write_trial,
)

FRAMES = ("steps", "evals", "trials")
GRPO, CEGPPO = ARMS[0], ARMS[2]


class Loaded(NamedTuple):
    """The same sweep from its store, and from MLflow after the store was moved away."""

    folder: Path
    uri: str
    store: SweepData
    store_tokens: pd.DataFrame
    mlflow: SweepData


def broken(arm: str, step: int, noise: np.random.Generator) -> dict[str, float]:
    """Metrics with values that are not finite, and one that is hard to write in decimal."""
    odd = {5: math.nan, 6: math.inf, 7: -math.inf, 8: 0.1 + 0.2, 9: 5e-324}.get(step, 0.5)
    late = {"actor/late": 1.0} if step > 10 else {}
    return {**metrics_at(arm, step, noise), PPO_KL: odd, **late}


def add_tokens(store: RunStore, trial: str, step: int) -> None:
    sample = TokenSample(
        step, 90, 3, [0.5, 0.1], [1.0, 1.7], [1.0, -1.0], [0.3, 2.0], [7, 8], [0, 5], [False, True]
    )
    with store.writer(trial, {}) as run:
        run.append(StepRecord(step, {}, tokens=sample))


def write(store: RunStore) -> None:
    """Two arms with every state that a trial can have, and a trial that the plan has twice."""
    planned = manifest("odd/states", [GRPO, CEGPPO])
    twin = {"trial_id": trial_id("DAPO", 11), "arm": "GRPO", "seed": 11}
    planned["trials"].append(twin)
    store.write_manifest(planned)
    write_trial(store, GRPO, 11, at=broken)
    write_trial(store, GRPO, 12, last=40, state=STOPPED, reason=STOP_REASON)
    write_trial(store, GRPO, 13, last=20, state=FAILED, reason="CUDA out of memory " + "x" * 9000)
    write_trial(store, CEGPPO, 11, last=7, state=RUNNING)
    store.enter(trial_id(CEGPPO["name"], 12), {"seed": 12, "algorithm": {"name": "cegppo"}})
    write_trial(store, ARMS[1], 11, last=3)
    for step in (2, 4):
        add_tokens(store, trial_id("GRPO", 11), step)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory) -> Loaded:
    folder = tmp_path_factory.mktemp("moved")
    store, uri = RunStore(folder / "runs"), new_database(folder / "mlflow.db")
    write(store)
    expected = load_sweep(store, "odd/states")
    tokens = expected.tokens()
    mirror_sweep(store, "odd/states", uri)
    (folder / "runs").rename(folder / "elsewhere")
    return Loaded(folder, uri, expected, tokens, MlflowSource(uri).sweep("odd/states"))


@pytest.mark.parametrize("frame", FRAMES)
def test_the_frames_are_those_of_the_store(loaded, frame):
    pd.testing.assert_frame_equal(
        getattr(loaded.mlflow, frame), getattr(loaded.store, frame), check_exact=True
    )


def test_the_frames_hold_what_is_hard_to_carry(loaded):
    values = loaded.mlflow.steps.query("metric == @PPO_KL and seed == 11 and arm == 'GRPO'")
    values = values.set_index("step")["value"]
    assert np.isnan(values[5])
    assert (values[6], values[7], values[8], values[9]) == (math.inf, -math.inf, 0.1 + 0.2, 5e-324)
    assert set(loaded.mlflow.trials["state"]) == {DONE, STOPPED, FAILED, RUNNING, "pending"}
    assert set(loaded.mlflow.evals["problem_id"]) == {f"p{i}" for i in range(12)}


def test_tokens_are_those_of_the_store(loaded):
    assert len(loaded.store_tokens) == 4
    pd.testing.assert_frame_equal(loaded.mlflow.tokens(), loaded.store_tokens, check_exact=True)


@pytest.mark.parametrize(
    "field", ["manifest", "arms", "configs", "provenance", "problems", "scale"]
)
def test_all_else_that_is_known_of_the_sweep_is_the_same(loaded, field):
    assert getattr(loaded.mlflow, field) == getattr(loaded.store, field)
    assert loaded.mlflow.source == loaded.uri


def test_reading_writes_nothing(loaded):
    def contents() -> dict[str, str]:
        files = [path for path in loaded.folder.rglob("*") if path.is_file()]
        return {str(f): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}

    before = contents()
    MlflowSource(loaded.uri).sweep("odd/states").tokens()
    assert contents() == before


def test_names_are_the_experiments_that_hold_a_sweep(loaded, tmp_path):
    from mlflow import MlflowClient

    uri = f"sqlite:///{shutil.copy(loaded.folder / 'mlflow.db', tmp_path / 'copy.db')}"
    client = MlflowClient(uri)
    client.create_run(client.create_experiment("somebody's"))
    assert MlflowSource(uri).names() == ["odd/states"]
    [sweep] = client.search_runs([client.get_experiment_by_name("odd/states").experiment_id],
                                 "tags.sweep = 'odd/states'")  # fmt: skip
    client.delete_run(sweep.info.run_id)
    assert MlflowSource(uri).names() == []


def test_without_artifacts_the_numbers_come_from_metrics_and_it_is_told(loaded):
    artifacts, away = loaded.folder / "mlartifacts", loaded.folder / "away"
    artifacts.rename(away)
    try:
        data = MlflowSource(loaded.uri).sweep("odd/states")
    finally:
        away.rename(artifacts)
    started = (loaded.store.trials["arm"] == "GRPO") | (loaded.store.trials["step"] > 0)
    assert set(loaded.store.trials[started]["trial_id"]) <= set(data.trials["trial_id"])
    pd.testing.assert_frame_equal(
        data.steps.sort_values(["trial_id", "step", "metric"], ignore_index=True),
        loaded.store.steps.sort_values(["trial_id", "step", "metric"], ignore_index=True),
    )
    for arm in ("GRPO", "CE-GPPO(0.5, 1)"):
        pd.testing.assert_frame_equal(
            data.accuracy(arm, BENCHMARK), loaded.store.accuracy(arm, BENCHMARK)
        )
        assert data.arm(arm).algorithm == loaded.store.arm(arm).algorithm
    assert set(data.evals["problem_id"]) == {"(mean over problems)"}
    assert data.arm("CE-GPPO(0.5, 1)").coefficient("beta1") == 0.5
    assert data.configs[trial_id("GRPO", 12)] == loaded.store.configs[trial_id("GRPO", 12)]
    told = " ".join(data.problems)
    assert "manifest is not in MLflow" in told
    assert "no files of the run store" in told
    assert str(artifacts) in told
    assert STOP_REASON in told


@pytest.fixture
def small(tmp_path) -> tuple[RunStore, str]:
    """One arm, one trial done."""
    store = RunStore(tmp_path / "runs")
    store.write_manifest(manifest("s", [GRPO]))
    write_trial(store, GRPO, 11, last=16)
    return store, new_database(tmp_path / "mlflow.db")


def test_a_trial_that_is_training_has_its_numbers_up_to_now(small):
    store, uri = small
    trial = trial_id("GRPO", 12)
    write_trial(store, GRPO, 12, last=8, state=RUNNING)
    mirror_sweep(store, "s", uri)
    with store.writer(trial, {}) as run:
        mirror_sweep(store, "s", uri)  # its files are those of before: evaluations at 0 and 8
        late = store.run(trial_id("GRPO", 11)).evals()[-1]
        run.append(StepRecord(16, {ENTROPY: 0.5}, [late]))
        mirror_sweep(store, "s", uri)
        expected = load_sweep(store, "s")
        data = MlflowSource(uri).sweep("s")
    pd.testing.assert_frame_equal(data.steps, expected.steps)
    pd.testing.assert_frame_equal(data.trials, expected.trials)
    pd.testing.assert_frame_equal(
        data.accuracy("GRPO", BENCHMARK), expected.accuracy("GRPO", BENCHMARK)
    )
    mean = data.evals[data.evals["problem_id"] == "(mean over problems)"]
    assert mean[["seed", "step"]].to_numpy().tolist() == [[12, 16]]
    assert any("seed 12: the newest evaluations" in told for told in data.problems)
    assert any("running now" in told for told in data.problems)


def test_deleted_runs_do_not_count_and_two_of_one_trial_are_told(small):
    from mlflow import MlflowClient

    store, uri = small
    write_trial(store, GRPO, 12, last=8)
    mirror_sweep(store, "s", uri)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("s").experiment_id
    runs = {r.data.tags.get("trial_id"): r for r in client.search_runs([experiment])}
    client.delete_run(runs[trial_id("GRPO", 12)].info.run_id)
    twin = client.create_run(experiment, tags=runs[trial_id("GRPO", 11)].data.tags)
    client.log_metric(twin.info.run_id, ENTROPY, 99.0, step=1)
    data = MlflowSource(uri).sweep("s")
    assert data.metric("GRPO", ENTROPY).shape == (1, 16)
    assert data.metric("GRPO", ENTROPY).max().max() < 99
    states = data.trials.set_index("seed")["state"]
    assert (states[11], states[12]) == (DONE, "pending")
    assert any("several runs" in told for told in data.problems)


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
def test_a_server_gives_the_same_frames(loaded, tmp_path):
    """The mirror and the analysis through HTTP, artifacts included."""
    store, port = RunStore(loaded.folder / "elsewhere"), closed_port()
    uri = f"http://127.0.0.1:{port}"
    new_database(tmp_path / "server.db")
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path}/server.db"]
    command += ["--artifacts-destination", str(tmp_path / "served")]
    with subprocess.Popen(command, cwd=tmp_path) as server:
        try:
            deadline = time.monotonic() + 120
            while time.monotonic() < deadline:
                with socket.socket() as probe:
                    if not probe.connect_ex(("127.0.0.1", port)):
                        break
                time.sleep(0.5)
            mirror_sweep(store, "odd/states", uri)
            assert mirror_sweep(store, "odd/states", uri).files == 0
            data = MlflowSource(uri).sweep("odd/states")
            tokens = data.tokens()
        finally:
            server.terminate()
    for frame in FRAMES:
        pd.testing.assert_frame_equal(getattr(data, frame), getattr(loaded.store, frame))
    pd.testing.assert_frame_equal(tokens, loaded.store_tokens)
    assert data.problems == loaded.store.problems
