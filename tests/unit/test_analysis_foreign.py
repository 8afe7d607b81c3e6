"""Plain verl runs, as verl's own MLflow backend logs them, read with a mapping file."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from analysis.load import ForeignSource, MlflowSource, load_mapping
from analysis.select import find
from analysis.series import PANELS, available, table_of
from analysis.tables import QUANTITIES, seed_values
from cegppo_lab.errors import LabError
from cegppo_lab.metrics import ENTROPY, GRAD_NORM, PPO_KL
from tests.unit.mlflow_database import new_database
from tests.unit.verl_mlflow import (
    ARMS,
    EVERY,
    MAPPING,
    SEEDS,
    SOURCE,
    STEPS,
    backend,
    log_run,
    metrics_at,
    write_experiment,
)

ALL_RUNS = "scale: GPU\nruns:\n  - {run: '*', arm: A, seed: {param: data/seed}}\n"


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A database with verl's runs, and with one more experiment of odd ones."""
    path = tmp_path_factory.mktemp("verl") / "mlflow.db"
    write_experiment(new_database(path), "ablation")

    def nothing(step: int, end: float, noise: np.random.Generator) -> dict[str, float]:
        return {"training/global_step": 0} if step == 0 else {}

    def broken(step: int, end: float, noise: np.random.Generator) -> dict[str, float]:
        return metrics_at(step, end, noise) | ({PPO_KL: np.inf} if step == 3 else {})

    with backend(f"sqlite:///{path}"):
        log_run("odd", "whole", seed=1, planned=STEPS, at=broken)
        log_run("odd", "crashed", seed=2, last=4, planned=STEPS)
        log_run("odd", "silent", seed=3, at=nothing)
        log_run("odd", "again", seed=1, last=6)
        log_run("odd", "debug-1", seed=4, last=1)
        log_run("odd", "stranger", seed=5, last=1)
        log_run("steps", "failed", seed=1, last=3)
        log_run("steps", "killed", seed=2, last=3)
        log_run("steps", "running", seed=3, last=3)
        log_run("steps", "finished", seed=4)
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{path}")
    ids = [each.experiment_id for each in client.search_experiments()]
    by_name = {run.info.run_name: run.info.run_id for run in client.search_runs(ids)}
    for name in ("failed", "killed", "running"):
        client.update_run(by_name[name], status=name.upper())
    run_id = by_name["finished"]
    client.log_metric(run_id, ENTROPY, 0.125, step=9)  # went on from a checkpoint, another value
    client.log_metric(run_id, GRAD_NORM, 0.25, step=10)
    client.create_experiment("empty")
    return path


@pytest.fixture(scope="module")
def uri(written) -> str:
    return f"sqlite:///{written}"


def mapped(folder: Path, text: str = MAPPING):
    (folder / "map.yaml").write_text(text)
    return load_mapping(folder / "map.yaml")


@pytest.fixture(scope="module")
def data(uri, tmp_path_factory):
    source = ForeignSource(uri, "ablation", mapped(tmp_path_factory.mktemp("map")))
    assert source.names() == ["ablation"]
    return source.sweep("ablation")


def test_entropy_kl_and_grad_norm_come_out_with_arms_and_seeds(data):
    assert [arm.name for arm in data.arms] == ["GRPO", "DAPO", "CE-GPPO(0.5, 1)"]
    for run, (arm, end) in zip(data.arms, ARMS.items(), strict=True):
        for seed in SEEDS:
            noise = np.random.default_rng([seed, *f"{arm}-seed{seed}".encode()])
            rows = [metrics_at(step, end, noise) for step in range(STEPS + 1)][1:]
            for metric in (ENTROPY, PPO_KL, GRAD_NORM):
                logged = data.metric(run.name, metric).loc[seed]
                assert logged.tolist() == [row[metric] for row in rows]
                assert logged.index.tolist() == list(range(1, STEPS + 1))
    assert set(available(data)) >= {"entropy", "accuracy", "kl", "grad_norm"}
    assert table_of(data, PANELS["kl"], "DAPO").shape == (len(SEEDS), STEPS)
    values, at = seed_values(data, "GRPO", QUANTITIES["entropy_end"])
    assert (len(values.dropna()), at) == (len(SEEDS), f"step {STEPS}")


def test_accuracies_are_evaluations_of_the_mean_over_problems(data):
    table = data.accuracy("DAPO", SOURCE)
    assert table.columns.tolist() == [0, EVERY, STEPS]
    noise = np.random.default_rng([2, *b"dapo-seed2"])
    rows = [metrics_at(step, ARMS["dapo"], noise) for step in range(STEPS + 1)]
    name = f"val-core/{SOURCE}/acc/mean@32"
    assert table.loc[2].tolist() == [rows[step][name] for step in (0, EVERY, STEPS)]
    assert data.benchmarks() == [SOURCE]
    assert set(data.evals["problem_id"]) == {"(mean over problems)"}
    assert any("means over problems" in told for told in data.problems)
    assert not any(name.startswith("val-") for name in data.steps["metric"].unique())


def test_figures_and_claims_find_the_arms_by_what_they_are(data):
    [grpo] = find(data, {"algorithm": "grpo"})
    [cegppo] = find(data, {"algorithm": "cegppo", "beta1": 0.5, "beta2": 1.0})
    assert (grpo.name, cegppo.name) == ("GRPO", "CE-GPPO(0.5, 1)")
    assert data.arm("DAPO").differs == {"algorithm.clip_high": 0.28}
    assert (data.scale, data.manifest["question"]) == ("GPU", "Which arm keeps its entropy up?")
    assert set(data.trials["state"]) == {"done"}


def test_what_is_left_out_is_told(uri, tmp_path):
    text = """
    scale: GPU
    runs:
      - {run: "nobody-*", arm: B, seed: 1}
      - {run: "[wca]*", arm: A, seed: {param: data/seed}}
      - {run: silent, arm: A, seed: {param: data/seed}}
    ignore: ["debug-*"]
    """
    data = ForeignSource(uri, "odd", mapped(tmp_path, text)).sweep("odd")
    assert set(data.trials["seed"]) == {1, 2, 3}
    assert "No run is left for the mapping's rule 'nobody-*'." in data.problems
    assert "1 run is left out by the mapping's ignore: debug-1." in data.problems
    assert "1 run is matched by no rule of the mapping and left out: stranger." in data.problems


def test_a_run_may_be_named_by_its_id_but_not_by_chance(data, uri, tmp_path):
    run_id = data.trials["trial_id"][0]
    text = "scale: GPU\nruns: [{{run: '{}', arm: A, seed: 1}}]"
    mapping = mapped(tmp_path, text.format(run_id[:8] + "*"))
    found = ForeignSource(uri, "ablation", mapping).sweep("ablation")
    assert found.trials["trial_id"].tolist() == [run_id]
    by_chance = mapped(tmp_path, text.format("?" * len(run_id)))
    with pytest.raises(LabError, match="leaves no run"):
        ForeignSource(uri, "ablation", by_chance).sweep("ablation")


def test_partial_silent_and_doubled_runs_are_told(uri, tmp_path):
    text = ALL_RUNS + "ignore: ['debug-*', stranger]\n"
    data = ForeignSource(uri, "odd", mapped(tmp_path, text)).sweep("odd")
    told = " ".join(data.problems)
    states = data.trials.groupby("seed")[["state", "step", "steps"]].first()
    assert states.loc[1].tolist() == ["done", STEPS, STEPS]
    assert states.loc[2].tolist() == ["stopped", 4, STEPS]  # verl's backend says FINISHED
    assert states.loc[3, "state"] == "stopped"
    assert "seed 2 was stopped at step 4 of 10: FINISHED in MLflow before" in told
    assert "without a training step" in told
    assert "two trials of this arm and seed" in told
    assert f"{PPO_KL} is not finite at 1 steps, first at 3" in told
    assert data.metric("A", ENTROPY).loc[1].notna().sum() == STEPS  # the longer of the two
    assert 3 not in data.metric("A", ENTROPY).index


def test_planned_steps_of_the_mapping_count_before_verls_own(uri, tmp_path):
    text = ALL_RUNS.replace("data/seed}}", "data/seed}, steps: 20}")
    data = ForeignSource(uri, "ablation", mapped(tmp_path, text)).sweep("ablation")
    assert set(data.trials["steps"]) == {20}
    assert set(data.trials["state"]) == {"stopped"}


def test_states_are_mlflows_and_the_later_of_two_values_counts(uri, tmp_path):
    data = ForeignSource(uri, "steps", mapped(tmp_path, ALL_RUNS)).sweep("steps")
    told = " ".join(data.problems)
    rows = data.trials.set_index("seed")
    assert rows["state"].to_dict() == {1: "failed", 2: "stopped", 3: "running", 4: "done"}
    assert set(rows["steps"]) == {STEPS}  # nobody said: the arm's longest run
    assert rows.loc[2, "reason"] == "KILLED in MLflow"
    assert "seed 3: MLflow has it as running; its last value is from 20" in told
    assert "seed 4: 2 steps were logged twice, from step 9 on" in told
    assert data.metric("A", ENTROPY).loc[4, 9] == 0.125
    assert data.metric("A", GRAD_NORM).loc[4, 10] == 0.25


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("scale: GPU\nrun: []", "unknown key of mapping 'run'. Did you mean 'runs'"),
        ("runs: [{run: a, arm: A, seed: 1}]", "mapping.scale is missing; its shape"),
        ("scale: gpu\nruns: [{run: a, arm: A, seed: 1}]", "'embedded', 'GPU' or 'paper'"),
        ("scale: GPU\nruns: []", "mapping.runs"),
        ("scale: GPU\nruns: [{run: a, arms: A, seed: 1}]", "'arms'. Did you mean 'arm'"),
        ("scale: GPU\nruns: [{run: a, arm: A, seed: {parm: x}}]", "'parm'. Did you mean 'param'"),
        ("scale: GPU\nruns: [{run: a, arm: A, seed: {param: x, tag: y}}]", "one of param, tag"),
        ("scale: GPU\nruns: [{run: a, arm: A, seed: {regex: 'seed'}}]", "needs one group"),
        ("scale: GPU\nruns: [{run: a, arm: A, seed: {regex: '(('}}]", "is no pattern"),
        ("scale: GPU\nruns: [{run: a, arm: A, seed: x}]", "whole number|valid integer"),
        ("scale: GPU\nruns: [{run: a, arm: A, seed: 1, steps: 0}]", "steps"),
        ("scale: GPU\nruns: [{run: a, arm: A, seed: 1, algorithm: gropo}]", "Did you mean 'grpo'"),
        (
            "scale: GPU\nruns: [{run: a, arm: A, seed: 1, algorithm: cegppo, "
            "settings: {beta_1: 1}}]",
            "'beta_1'. Did you mean 'beta1'",
        ),
        ("scale: GPU\nruns: [{run: a, arm: A, seed: 1, settings: {beta1: 1}}]", "algorithm too"),
        (
            "scale: GPU\nruns: [{run: a, arm: A, seed: 1, model: x}, {run: b, arm: A, seed: 2}]",
            "arm 'A' has two values of model",
        ),
        ("just text", "its shape: .*scale.*runs"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_mistake_in_the_mapping_is_one_line_that_names_the_file(tmp_path, text, words):
    with pytest.raises(LabError, match=words) as caught:
        mapped(tmp_path, text)
    assert "map.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 450


def test_a_missing_mapping_file_is_named(tmp_path):
    with pytest.raises(LabError, match=r"none\.yaml: No such file"):
        load_mapping(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("experiment", "rule", "words"),
    [
        (
            "ablations",
            "{run: '*', arm: A, seed: 1}",
            "unknown experiment .*Did you mean 'ablation'",
        ),
        ("empty", "{run: '*', arm: A, seed: 1}", "'empty' at .* has no run"),
        ("ablation", "{run: 'ppo-*', arm: A, seed: 1}", "leaves no run .*grpo-seed1"),
        ("ablation", "{run: '*', arm: A, seed: {param: data/sed}}", "did you mean 'data/seed'"),
        ("ablation", "{run: '*', arm: A, seed: {tag: seed}}", "no tag 'seed'"),
        ("ablation", "{run: '*', arm: A, seed: {regex: 's(e*)d'}}", "'ee', no whole number"),
        ("odd", "{run: silent, arm: A, seed: 1}", "no run of .* has a metric"),
    ],
)
def test_nothing_to_read_is_one_line(uri, tmp_path, experiment, rule, words):
    mapping = mapped(tmp_path, f"scale: GPU\nruns:\n  - {rule}\n")
    with pytest.raises(LabError, match=words) as caught:
        ForeignSource(uri, experiment, mapping).sweep(experiment)
    assert "\n" not in str(caught.value)


def test_a_verl_experiment_without_a_mapping_says_what_to_give(uri):
    with pytest.raises(LabError, match="--mapping FILE"):
        MlflowSource(uri).sweep("ablation")


def test_reading_changes_nothing(written, uri, tmp_path):
    before = written.read_bytes()
    copy = tmp_path / "copy.db"
    shutil.copy(written, copy)
    ForeignSource(f"sqlite:///{copy}", "ablation", mapped(tmp_path)).sweep("ablation")
    assert copy.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"copy.db", "map.yaml"}
