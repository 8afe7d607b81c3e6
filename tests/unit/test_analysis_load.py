"""Tidy frames: everything that the store has is there, everything that it lacks is told."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.load import Arm, load_sweep
from cegppo_lab.errors import LabError
from cegppo_lab.metrics import ENTROPY, PPO_KL
from cegppo_lab.store import RUNNING, RunStore
from tests.unit.synthetic_sweep import (
    ARMS,
    BENCHMARK,
    EVERY,
    PROBLEMS,
    SAMPLES,
    SEEDS,
    STEPS,
    STOP_REASON,
    manifest,
    metrics_at,
    shared_sweep,
    trial_id,
    write_trial,
)


@pytest.fixture(scope="module")
def store():
    return shared_sweep()[0]


@pytest.fixture(scope="module")
def data(store):
    return load_sweep(store, "quickstart")


def test_every_step_value_of_every_run_is_in_the_frame(store, data):
    total = sum(len(r.metrics) for t in store.trial_ids() for r in store.run(t).steps())
    assert len(data.steps) == total
    record = store.run(trial_id("DAPO", 12)).steps()[20]
    frame = data.steps.query("arm == 'DAPO' and seed == 12 and step == @record.step")
    assert dict(zip(frame["metric"], frame["value"], strict=True)) == record.metrics


def test_every_verdict_is_in_the_frame(data):
    whole, stopped = STEPS // EVERY + 1, 40 // EVERY + 1
    assert len(data.evals) == (10 * whole + stopped) * PROBLEMS * SAMPLES
    assert set(data.evals["benchmark"]) == {BENCHMARK}


def test_accuracy_is_the_mean_over_problems_of_the_mean_over_samples(store, data):
    record = store.run(trial_id("GRPO", 11)).evals()[-1]
    problems = {}
    for problem, correct in zip(record.problem, record.correct, strict=True):
        problems.setdefault(problem, []).append(correct)
    expected = np.mean([np.mean(verdicts) for verdicts in problems.values()])
    assert data.accuracy("GRPO", BENCHMARK).loc[11, STEPS] == pytest.approx(expected)


def test_missing_and_stopped_trials_are_kept_and_told(data):
    assert len(data.trials) == len(ARMS) * len(SEEDS)
    states = data.trials.set_index(["arm", "seed"])["state"]
    assert states["DAPO", 13] == "pending"
    assert states["CE-GPPO(0.75, 1)", 12] == "stopped"
    assert len(data.problems) == 2
    assert any("DAPO, seed 13" in told for told in data.problems)
    assert any("step 40 of 64" in told and STOP_REASON in told for told in data.problems)


def test_an_interrupted_run_is_told_as_such(tmp_path):
    store = RunStore(tmp_path)
    store.write_manifest(manifest("s", ARMS[:1]))
    write_trial(store, ARMS[0], 11, last=7, state=RUNNING)
    data = load_sweep(store, "s")
    assert any("interrupted" in told and "step 7 of 64" in told for told in data.problems)


def test_values_that_are_not_finite_are_told_and_not_averaged(tmp_path):
    def broken(arm, step, noise):
        return {**metrics_at(arm, step, noise), PPO_KL: np.inf if step == 5 else 0.1}

    store = RunStore(tmp_path)
    store.write_manifest(manifest("s", ARMS[:1]))
    write_trial(store, ARMS[0], 11, at=broken)
    data = load_sweep(store, "s")
    assert any(PPO_KL in told and "first at 5" in told for told in data.problems)
    assert np.isnan(data.metric("GRPO", PPO_KL).loc[11, 5])
    assert np.isfinite(data.metric("GRPO", ENTROPY).to_numpy()).all()


def test_two_trials_of_one_arm_and_seed_do_not_count_twice(tmp_path):
    store = RunStore(tmp_path)
    planned = manifest("s", ARMS[:1])
    planned["trials"].append({"trial_id": trial_id("DAPO", 11), "arm": "GRPO", "seed": 11})
    store.write_manifest(planned)
    for seed in SEEDS:
        write_trial(store, ARMS[0], seed)
    write_trial(store, ARMS[1], 11)
    data = load_sweep(store, "s")
    assert len(data.metric("GRPO", ENTROPY)) == 3
    assert any("two trials" in told for told in data.problems)


@pytest.mark.parametrize("started", [True, False])
def test_nothing_to_load_is_one_clear_line(tmp_path, started):
    store = RunStore(tmp_path)
    if started:
        store.write_manifest(manifest("s", ARMS))
    with pytest.raises(LabError, match="python -m cegppo_lab sweep s"):
        load_sweep(store, "s")


def test_a_schedule_is_read_with_its_switches():
    arm = Arm("x", "cegppo", {"algorithm.beta1": {"585": 0.5, "0": 0.0}}, {"beta2": 1.0})
    assert arm.coefficient("beta1") == {0: 0.0, 585: 0.5}
    assert arm.coefficient("beta2") == 1.0
    assert arm.coefficient("beta3") is None
    assert arm.switches() == [("beta1", 585, 0.0, 0.5)]
