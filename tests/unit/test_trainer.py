"""The embedded trainer whole: a run that was broken off anywhere ends as one that never was."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cegppo_lab.compose import resolve
from cegppo_lab.execute import attempt
from cegppo_lab.metrics import is_volatile
from cegppo_lab.store import RunStore
from cegppo_lab.tasks import Problem
from cegppo_lab.tasks.table_walk import TableWalk
from cegppo_lab.trainers.embedded.checkpoint import newest_policy
from cegppo_lab.trainers.embedded.policy import Policy
from cegppo_lab.trial import Trial, make_trial

CHANGING = {
    "seed": 3,
    "algorithm.beta1": {0: 0.5, 3: 1.0},
    "algorithm.kl_coef": 0.01,
    "algorithm.entropy_coef": 0.001,
    "trainer.eval_every": 4,
}
"""All that a resumed run has to find again: a schedule, a reference policy, evaluations."""


class Hopeless(TableWalk):
    """Table walk that nobody can solve."""

    def reward(self, problem: Problem, response: str) -> float:
        return 0.0


def _finish(store: RunStore, trial: Trial) -> None:
    for _ in attempt(store, trial):
        pass
    assert store.run(trial.trial_id).status().state == "done"


def _numbers(store: RunStore, trial: Trial) -> dict[str, Any]:
    """All that a run measured, but for what measures the machine; and what it learned."""
    run = store.run(trial.trial_id)
    folder = newest_policy(run.checkpoints)
    files = [folder / "model.safetensors", folder.parent / "optimizer.safetensors"]
    return {
        "steps": [
            (row.step, {k: v for k, v in row.metrics.items() if not is_volatile(k)})
            for row in run.steps()
        ],
        "evals": [(row.step, row.benchmark, row.problem, row.correct) for row in run.evals()],
        "tensors": {
            (file.name, name): _bytes(tensor)
            for file in files
            for name, tensor in load_file(file).items()
        },
    }


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.flatten().view(torch.uint8).numpy().tobytes()


@pytest.fixture(scope="module")
def trial(tiny: dict[str, Any]) -> Trial:
    return make_trial(resolve({**tiny, **CHANGING}))


@pytest.fixture(scope="module")
def uninterrupted(trial: Trial, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    store = RunStore(tmp_path_factory.mktemp("uninterrupted"))
    _finish(store, trial)
    return _numbers(store, trial)


def test_what_a_run_records(uninterrupted: dict[str, Any]) -> None:
    assert [step for step, _ in uninterrupted["steps"]] == [1, 2, 3, 4, 5, 6]
    assert [step for step, *_ in uninterrupted["evals"]] == [0, 4, 6]
    names = {
        *("actor/entropy", "actor/ppo_kl", "actor/grad_norm", "actor/pg_clipfrac", "actor/lr"),
        *("actor/pg_clipfrac_na", "actor/pg_clipfrac_pa", "critic/rewards/mean"),
        *("response_length/mean", "algorithm/beta1", "actor/kl_loss", "train/mixed_groups"),
    }
    for step, metrics in uninterrupted["steps"]:
        assert names <= set(metrics)
        assert metrics["algorithm/beta1"] == (0.5 if step <= 3 else 1.0)  # step 3 of those from 0
        assert metrics["train/optimizer_steps"] == 2
    moved = [metrics["actor/kl_loss"] for _, metrics in uninterrupted["steps"]]
    assert moved[5] > 2 * moved[0] > 0  # away from the start
    assert uninterrupted["steps"][0][1]["actor/lr"] < uninterrupted["steps"][5][1]["actor/lr"]


def test_the_same_seed_gives_the_same_bits_and_another_does_not(
    trial: Trial, tiny: dict[str, Any], uninterrupted: dict[str, Any], tmp_path: Path
) -> None:
    torch.manual_seed(99)  # the global generator does not matter
    store, short = RunStore(tmp_path), {"trainer.steps": 1}
    for seed, same in ((3, True), (4, False)):
        other = make_trial(resolve({**tiny, **CHANGING, **short, "seed": seed}))
        _finish(store, other)
        assert (_numbers(store, other)["steps"][0] == uninterrupted["steps"][0]) == same


@pytest.mark.parametrize("step", range(7))
def test_a_run_broken_off_after_a_step_resumes_to_the_same_bits(
    trial: Trial, uninterrupted: dict[str, Any], tmp_path: Path, step: int
) -> None:
    store = RunStore(tmp_path)
    records = attempt(store, trial)
    while next(records).step < step:
        pass
    records.close()
    _finish(store, trial)
    assert _numbers(store, trial) == uninterrupted
    assert len(store.run(trial.trial_id).provenance()) == 2
    assert len(list(store.run(trial.trial_id).checkpoints.iterdir())) == 1


def test_a_run_in_bfloat16_resumes_to_the_same_bits(tiny: dict[str, Any], tmp_path: Path) -> None:
    words = {"model.dtype": "bfloat16", "trainer.lr": 1e-6, "runtime.micro_batch_tokens": 200}
    words |= {"trainer.steps": 3, "trainer.train_batch_size": 2, "trainer.filter_groups": False}
    words |= {"trainer.eval_samples": 1, "trainer.eval_every": 3}
    trial = make_trial(resolve({**tiny, **words, "algorithm.entropy_coef": 0.01}))
    whole, broken = (RunStore(tmp_path / name) for name in ("whole", "broken"))
    _finish(whole, trial)
    records = attempt(broken, trial)
    while next(records).step < 3:  # after the checkpoint of step 2
        pass
    records.close()
    _finish(broken, trial)
    learned = _numbers(broken, trial)
    assert learned == _numbers(whole, trial)
    assert ("optimizer.safetensors", "lm_head.weight/master") in learned["tensors"]


def test_a_run_killed_three_times_ends_at_the_same_bits(
    trial: Trial, tiny: dict[str, Any], uninterrupted: dict[str, Any], tmp_path: Path
) -> None:
    words = [f"{key}={str(value).replace(' ', '')}" for key, value in {**tiny, **CHANGING}.items()]
    store = RunStore(tmp_path / "runs")
    run = store.run(trial.trial_id)
    for attempts, steps in enumerate((1, 2, 4)):
        with open(tmp_path / "log", "a") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "cegppo_lab", "train", *words],
                cwd=tmp_path,
                stdout=log,
                stderr=log,
            )
        # The attempt before may have got past its number of steps.
        while len(run.steps()) < steps or len(run.provenance()) <= attempts:
            assert child.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.005)
        time.sleep(random.uniform(0, 0.2))
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        assert not run.locked()
    assert len(run.provenance()) == 3
    _finish(store, trial)
    assert _numbers(store, trial) == uninterrupted


def test_a_run_without_any_mixed_group_learns_nothing_and_ends(
    tiny: dict[str, Any], tmp_path: Path
) -> None:
    run = resolve({**tiny, "trainer.steps": 3})
    hopeless = run.model_copy(update={"task": Hopeless(**run.task.model_dump())})
    store, trial = RunStore(tmp_path), make_trial(hopeless)
    records = attempt(store, trial)
    while next(records).step < 3:
        pass
    records.close()
    _finish(store, trial)
    learned = _numbers(store, trial)
    assert [step for step, _ in learned["steps"]] == [1, 2, 3]
    assert all("actor/grad_norm" not in metrics for _, metrics in learned["steps"])
    assert all(metrics["critic/rewards/mean"] == 0 for _, metrics in learned["steps"])
    start = Policy.load("table_walk", head_scale=run.model.head_scale).model.state_dict()
    assert learned["tensors"] == {  # and there is no state of an optimizer
        ("model.safetensors", name): _bytes(tensor) for name, tensor in start.items()
    }


@pytest.mark.parametrize("mini_batches", [1, 2])
def test_a_run_that_blows_up_is_stopped_with_a_reason(
    tiny: dict[str, Any], tmp_path: Path, mini_batches: int
) -> None:
    words = {"trainer.lr": 1e30, "trainer.lr_warmup_steps": 0, "trainer.mini_batches": mini_batches}
    store, trial = RunStore(tmp_path), make_trial(resolve({**tiny, **words}))
    list(attempt(store, trial))
    status = store.run(trial.trial_id).status()
    assert status.state == "stopped"
    assert "finite" in status.reason
    assert status.step < 6
