"""Embedded runs under a controller: their trajectory, and the same bits after a break."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cegppo_lab.compose import resolve
from cegppo_lab.execute import attempt
from cegppo_lab.metrics import ENTROPY, is_volatile
from cegppo_lab.store import RunStore
from cegppo_lab.trainers.embedded.checkpoint import control_state
from cegppo_lab.trial import Trial, make_trial

BRISK = {
    "trainer.steps": 5,
    "trainer.lr": 2e-4,
    "trainer.lr_warmup_steps": 0,
    "trainer.eval_samples": 1,
    "trainer.eval_every": 5,
}
"""Steps so large that tokens leave the clip interval, where the betas act."""
ADAPTIVE = {**BRISK, "algorithm": "cegppo_adaptive", "algorithm.entropy_target": {0: 0.95, 3: 0.9}}
BONUS = {
    **BRISK,
    "algorithm": "adaptive_entropy",
    "algorithm.entropy_target": 1.2,
    "algorithm.entropy_coef_step": 0.01,
    "algorithm.entropy_coef_max": 0.03,
    "trainer.steps": 3,
}


def _numbers(store: RunStore, trial: Trial) -> list[tuple[int, dict[str, float]]]:
    rows = store.run(trial.trial_id).steps()
    return [
        (row.step, {k: v for k, v in row.metrics.items() if not is_volatile(k)}) for row in rows
    ]


def _finish(store: RunStore, trial: Trial) -> None:
    for _ in attempt(store, trial):
        pass
    assert store.run(trial.trial_id).status().state == "done"


def _run(words: dict[str, Any], folder: Path) -> tuple[RunStore, Trial]:
    """A run of given words, finished in one go: its store and its trial."""
    store, trial = RunStore(folder), make_trial(resolve(words))
    _finish(store, trial)
    return store, trial


def _control(store: RunStore, trial: Trial) -> dict[str, float]:
    return control_state(store.run(trial.trial_id).checkpoints, trial.config.trainer.steps)


@pytest.fixture(scope="module")
def adaptive(tiny: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The run of ``ADAPTIVE``, uninterrupted."""
    return _run({**tiny, **ADAPTIVE}, tmp_path_factory.mktemp("adaptive"))


def test_the_metrics_are_the_controllers_own_trajectory(adaptive: Any) -> None:
    """Replayed from the entropies alone."""
    store, trial = adaptive
    algorithm, rows = trial.config.algorithm, _numbers(store, trial)
    state = algorithm.initial_state()
    for step, metrics in rows:
        force = algorithm.controlled(state, step - 1)
        assert metrics["algorithm/beta1"] == force.beta1
        assert metrics["algorithm/beta2"] == force.beta2
        assert metrics["algorithm/entropy_target"] == (0.95 if step <= 3 else 0.9)
        state = algorithm.observe(state, metrics[ENTROPY], step - 1)
    assert len({metrics["algorithm/beta1"] for _, metrics in rows}) >= 3
    (file,) = store.run(trial.trial_id).checkpoints.glob("step_000005/state.json")
    assert json.loads(file.read_text())["control"] == state == _control(store, trial)


def _assert_it_resumes_to_the_same_bits(whole: RunStore, trial: Trial, folder: Path) -> None:
    """Broken off after the checkpoint of step 2, before the next."""
    broken = RunStore(folder)
    records = attempt(broken, trial)
    while next(records).step < 3:
        pass
    records.close()
    begun = trial.config.algorithm.initial_state()
    assert control_state(broken.run(trial.trial_id).checkpoints, 2) not in ({}, begun)
    _finish(broken, trial)
    assert _numbers(broken, trial) == _numbers(whole, trial)
    assert _control(broken, trial) == _control(whole, trial)


def test_the_betas_resume_to_the_same_bits(adaptive: Any, tmp_path: Path) -> None:
    _assert_it_resumes_to_the_same_bits(*adaptive, tmp_path)


def test_the_bonus_resumes_to_the_same_bits(tiny: dict[str, Any], tmp_path: Path) -> None:
    whole, trial = _run({**tiny, **BONUS}, tmp_path / "whole")
    _assert_it_resumes_to_the_same_bits(whole, trial, tmp_path / "broken")
    rows = _numbers(whole, trial)
    assert [metrics["algorithm/entropy_coef"] for _, metrics in rows] == [0, 0.01, 0.02]
    assert [metrics["actor/entropy_loss"] > 0 for _, metrics in rows[1:]] == [True, True]
    assert {metrics["algorithm/entropy_target"] for _, metrics in rows} == {1.2}


@pytest.mark.slow
def test_a_killed_run_ends_at_the_same_bits(
    tiny: dict[str, Any], adaptive: Any, tmp_path: Path
) -> None:
    whole, trial = adaptive
    store = RunStore(tmp_path / "runs")
    run, words = store.run(trial.trial_id), {**tiny, **ADAPTIVE}
    given = [f"{key}={str(value).replace(' ', '')}" for key, value in words.items()]
    with open(tmp_path / "log", "w") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "cegppo_lab", "train", *given],
            cwd=tmp_path,
            stdout=log,
            stderr=log,
        )
    while len(run.steps()) < 3:
        assert child.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.005)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    _finish(store, trial)
    assert len(run.provenance()) == 2
    assert _numbers(store, trial) == _numbers(whole, trial)
    assert _control(store, trial) == _control(whole, trial)


def test_the_betas_in_force_are_those_that_train(
    tiny: dict[str, Any], adaptive: Any, tmp_path: Path
) -> None:
    """A controller that does nothing trains as CE-GPPO does; one that acts does not."""
    betas = {"algorithm.beta1": 0.75, "algorithm.beta2": 1.0}
    bounds = {"algorithm.beta1_min": 0.75, "algorithm.beta1_max": 0.75, "algorithm.beta2_min": 1.0}
    cegppo = _run({**tiny, **BRISK, "algorithm": "cegppo", **betas}, tmp_path / "cegppo")
    idle = _run({**tiny, **ADAPTIVE, **betas, **bounds}, tmp_path / "idle")
    plain, still, acting = (
        [metrics["actor/grad_norm"] for _, metrics in _numbers(*each)]
        for each in (cegppo, idle, adaptive)
    )
    assert plain == still != acting
    assert _control(*cegppo) == {}  # and its state.json is as it always was
    assert _control(*idle)


def test_a_checkpoint_without_a_state_goes_on_from_the_start_of_control(tmp_path: Path) -> None:
    folder = tmp_path / "step_000002"
    folder.mkdir()
    (folder / "state.json").write_text('{"step": 2}')
    assert control_state(tmp_path, 2) == {}
    assert control_state(tmp_path, 0) == {}
