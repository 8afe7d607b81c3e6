"""The price of a plan: from what the store has measured, and unknown where it has not."""

from __future__ import annotations

from pathlib import Path

import pytest

from cegppo_lab import metrics as names
from cegppo_lab.provenance import resources
from cegppo_lab.store import DONE, RUNNING, RunStore, StepRecord
from cegppo_lab.sweep.plan import Plan, make_plan
from cegppo_lab.sweep.price import price
from cegppo_lab.trial import Trial

STEPS = 10


def _plan(tmp_path: Path, *words: str) -> Plan:
    paths = {"runtime.store": str(tmp_path / "runs")}
    return make_plan("quickstart", ["seeds=[1,2]", f"trainer.steps={STEPS}", *words], paths)


def _train(
    store: RunStore, trial: Trial, seconds: float, done: int = STEPS, **used: object
) -> None:
    """Enter ``done`` steps of ``seconds`` each, measured on the trial's resources or ``used``."""
    with store.writer(trial.trial_id, trial.stored_config()) as run:
        run.add_provenance({"resources": resources(trial.config.runtime) | used})
        for step in range(1, done + 1):
            run.append(StepRecord(step, {names.TIME_STEP: seconds}))
        run.set_status(DONE if done == STEPS else RUNNING, step=done, steps=STEPS)


def _of(plan: Plan, arm: str, seed: int) -> Trial:
    return next(trial for trial in plan.trials if (trial.arm, trial.seed) == (arm, seed))


def test_nothing_measured_is_unknown_and_has_no_number(tmp_path: Path) -> None:
    plan = _plan(tmp_path)
    cost = price(plan.store(), plan.trials, plan.runtime)
    assert len(cost.unknown) == len(plan.trials)
    assert cost.text() == "price: all unknown: this store has measured nothing like them"


def test_the_same_arm_counts_before_another_algorithm(tmp_path: Path) -> None:
    plan, store = _plan(tmp_path), RunStore(tmp_path / "runs")
    _train(store, _of(plan, "GRPO", 1), 36.0)
    _train(store, _of(plan, "DAPO", 1), 72.0)
    grpo, ce = _of(plan, "GRPO", 2), _of(plan, "CE-GPPO(0.5, 1)", 2)
    hours = price(store, [grpo, ce], plan.runtime).hours
    assert hours[grpo.trial_id] == pytest.approx(STEPS * 36 / 3600)
    assert hours[ce.trial_id] == pytest.approx(STEPS * 54 / 3600)  # of both algorithms


def test_only_the_steps_that_are_left_cost(tmp_path: Path) -> None:
    plan, store = _plan(tmp_path), RunStore(tmp_path / "runs")
    trial = _of(plan, "GRPO", 1)
    _train(store, trial, 360.0, done=7)
    cost = price(store, [trial], plan.runtime)
    assert cost.wall_h == pytest.approx(0.3)
    assert cost.cpu_h == pytest.approx(0.3 * plan.runtime.cpus)
    assert cost.gpu_h == 0


def test_a_pace_is_not_carried_to_other_work_or_other_resources(tmp_path: Path) -> None:
    plan, store = _plan(tmp_path), RunStore(tmp_path / "runs")
    _train(store, _of(plan, "GRPO", 1), 36.0)
    _train(store, _of(plan, "GRPO", 2), 99.0, threads=8)
    longer = _plan(tmp_path, "trainer.steps=20", "trainer.eval_every=4")
    wider = _plan(tmp_path, "trainer.rollout_n=16")
    pace = price(store, longer.trials[:1], plan.runtime)
    assert pace.wall_h == pytest.approx(20 * 36 / 3600)
    assert len(price(store, wider.trials, plan.runtime).unknown) == len(wider.trials)


def test_wall_time_is_no_shorter_than_the_longest_trial(tmp_path: Path) -> None:
    plan, store = _plan(tmp_path, "runtime.cpus=0.01"), RunStore(tmp_path / "runs")
    _train(store, _of(plan, "GRPO", 1), 3600.0)
    rest = [_of(plan, arm, 2) for arm in ("GRPO", "DAPO")]
    cost = price(store, rest, plan.runtime)
    assert cost.wall_h == pytest.approx(STEPS)
    assert "price: about 10 h wall time" in cost.text()
