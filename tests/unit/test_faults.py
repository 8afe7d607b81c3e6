"""Attempts that end badly, without Ray: reasons, logs, time limits, and what a worker reports."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray import tune

from cegppo_lab.compose import resolve
from cegppo_lab.config import RunConfig
from cegppo_lab.errors import LabError
from cegppo_lab.execute import attempt
from cegppo_lab.faults import TimeLimitError, WorkerLog, limited_attempt, reason_of, record_failure
from cegppo_lab.files import WriteError
from cegppo_lab.sentinel import NO_RULES
from cegppo_lab.store import EvalRecord, RunStore, StepRecord
from cegppo_lab.sweep.plan import state_of
from cegppo_lab.sweep.worker import BUSY, REASON, TRAINED, TuneTrial, message
from cegppo_lab.trainers.base import TrainerError
from cegppo_lab.trial import Trial, make_trial

STEPS = 6


class Counting:
    """A trainer that counts, without checkpoints; ``error`` comes before step ``fails_at``."""

    def __init__(self, error: Exception | None = None, fails_at: int = 4) -> None:
        self.error, self.fails_at = error, fails_at

    def run(self, config: RunConfig, checkpoints: Path) -> Iterator[StepRecord]:
        yield StepRecord(0, {}, [EvalRecord(0, "b", ["p"], [0], [0.0])])
        for step in range(1, config.trainer.steps + 1):
            if step == self.fails_at and self.error:
                os.write(2, b"native code says why\n")
                raise self.error
            yield StepRecord(step, {"actor/entropy": 1 / step})


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path)


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch):
    """Have attempts use a trainer."""

    def use(trainer: Counting) -> None:
        monkeypatch.setattr("cegppo_lab.execute.make_trainer", lambda name: trainer)

    return use


def _trial(**runtime: Any) -> Trial:
    values = {f"runtime.{key}": value for key, value in runtime.items()}
    return make_trial(resolve({"trainer.steps": STEPS, **values}))


@pytest.fixture
def trial() -> Trial:
    return _trial()


def _steps(store: RunStore, trial: Trial) -> list[int]:
    return [row.step for row in store.run(trial.trial_id).steps()]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError(), "out of memory: MemoryError"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
            "out of memory: RuntimeError: [enforce fail]",
        ),
        (
            RuntimeError("CUDA error: an illegal memory access\nCUDA kernel errors"),
            "CUDA error: RuntimeError: CUDA error: an illegal memory access",
        ),
        (ValueError("a\nb"), "ValueError: a"),
        (LabError("no such GPU"), "no such GPU"),
        (TrainerError("verl ended with status 1"), "verl ended with status 1"),
    ],
)
def test_a_reason_is_one_line_that_names_memory_and_cuda(error: Exception, told: str) -> None:
    reason = reason_of(error)
    assert reason.startswith(told)
    assert "\n" not in reason


def test_torch_s_own_out_of_memory_error_is_named() -> None:
    import torch

    assert reason_of(torch.OutOfMemoryError("CUDA out of memory")).startswith("out of memory: ")


def test_a_failure_is_kept_with_the_end_of_the_log(store: RunStore, trial: Trial) -> None:
    run = store.run(trial.trial_id)
    store.enter(trial.trial_id, trial.stored_config())
    (run.path / "worker.log").write_text("".join(f"line {n}\n" for n in range(100)))
    record_failure(store, trial, "it broke")
    lines = (run.path / "error.txt").read_text().splitlines()
    assert lines == ["it broke", "", *(f"line {n}" for n in range(60, 100))]
    assert (run.status().state, run.status().reason) == ("failed", "it broke")


def test_a_failure_that_is_late_changes_nothing(store: RunStore, trial: Trial, use) -> None:
    use(Counting())
    records = attempt(store, trial)
    next(records)
    record_failure(store, trial, "late")  # another process has taken the trial up
    assert state_of(store, trial) == "running"
    list(records)
    record_failure(store, trial, "late")  # it is done
    assert state_of(store, trial) == "done"
    assert not (store.run(trial.trial_id).path / "error.txt").exists()


def test_a_worker_log_takes_what_native_code_prints_and_is_no_more_when_empty(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = WorkerLog(tmp_path / "new")
    os.write(2, b"inside\n")
    log.close()
    os.write(2, b"outside\n")
    assert (tmp_path / "new/worker.log").read_text() == "inside\n"
    assert capfd.readouterr().err == "outside\n"
    WorkerLog(tmp_path / "other").close()
    assert not (tmp_path / "other/worker.log").exists()


def test_a_time_limit_ends_an_attempt_with_a_reason_and_the_next_goes_on(
    store: RunStore, use
) -> None:
    use(Counting())
    trial = _trial(time_limit_h=1e-9)
    with pytest.raises(TimeLimitError, match=r"time limit of 1e-09 h at step 0"):
        list(limited_attempt(store, trial))
    status = store.run(trial.trial_id).status()
    assert status.state == "failed"
    assert "ran out of its time limit" in status.reason
    assert not store.run(trial.trial_id).locked()
    longer = _trial(time_limit_h=1.0, retries=0, retry_backoff_s=0)
    assert longer.trial_id == trial.trial_id  # runtime keys name no other run
    list(limited_attempt(store, longer))
    assert _steps(store, trial) == [1, 2, 3, 4, 5, 6]
    assert store.run(trial.trial_id).status().state == "done"


def test_a_time_limit_that_is_met_at_the_last_step_ends_nothing(store: RunStore, use) -> None:
    class Slow(Counting):
        def run(self, config: RunConfig, checkpoints: Path) -> Iterator[StepRecord]:
            for record in super().run(config, checkpoints):
                if record.step == STEPS:
                    time.sleep(0.3)
                yield record

    use(Slow())
    trial = _trial(time_limit_h=0.3 / 3600)
    list(limited_attempt(store, trial))
    assert store.run(trial.trial_id).status().state == "done"


@pytest.fixture
def work(store: RunStore):
    """A worker on a trial, in this process."""
    made = []

    def work(trial: Trial, wait_s: float = 0.0) -> TuneTrial:
        packed = {**message(store, trial, NO_RULES), "wait_s": wait_s}
        made.append(TuneTrial({"trial": packed}))
        return made[-1]

    yield work
    for worker in made:
        worker.cleanup()


def _until_done(worker: TuneTrial) -> list[dict[str, Any]]:
    results = [worker.step()]
    while tune.result.DONE not in results[-1]:
        results.append(worker.step())
    return results


def test_a_worker_reports_every_step(store: RunStore, trial: Trial, use, work) -> None:
    use(Counting())
    results = _until_done(work(trial))
    assert [result.get(TRAINED) for result in results] == [*range(STEPS + 1), None]
    assert results[-1] == {tune.result.DONE: True}


def test_what_a_retry_may_mend_is_raised_and_told_with_its_traceback(
    store: RunStore, trial: Trial, use, work
) -> None:
    use(Counting(MemoryError("so big")))
    with pytest.raises(MemoryError):
        _until_done(work(trial))
    run = store.run(trial.trial_id)
    assert (run.status().state, run.status().step) == ("failed", 3)
    assert run.status().reason == "out of memory: MemoryError: so big"
    kept = (run.path / "error.txt").read_text()
    assert kept.startswith("out of memory: MemoryError: so big\n")
    assert "Traceback" in kept
    assert "native code says why" in kept
    assert not run.locked()


@pytest.mark.parametrize("error", [LabError("no such GPU"), WriteError("cannot write x: full")])
def test_what_no_retry_mends_ends_the_trial_with_a_reason(
    store: RunStore, trial: Trial, use, work, error: LabError
) -> None:
    use(Counting(error))
    assert _until_done(work(trial))[-1] == {tune.result.DONE: True, REASON: str(error)}
    assert store.run(trial.trial_id).status().reason == str(error)


def test_a_trial_that_another_process_has_is_left_to_it(
    store: RunStore, trial: Trial, use, work
) -> None:
    use(Counting())
    records = attempt(store, trial)
    next(records)
    assert _until_done(work(trial)) == [{tune.result.DONE: True, BUSY: True}]
    assert state_of(store, trial) == "running"
    assert not (store.run(trial.trial_id).path / "worker.log").exists()
    records.close()


def test_a_worker_waits_in_naps_before_it_begins(store: RunStore, trial: Trial, use, work) -> None:
    use(Counting())
    begin = time.monotonic()
    worker = work(trial, wait_s=0.2)
    assert worker.step() == {}
    assert not store.trial_ids()
    assert worker.step() == {TRAINED: 0, "shown": {}}
    assert time.monotonic() - begin >= 0.2
