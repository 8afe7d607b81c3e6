"""Attempts that end badly: what is told about them, and what they leave in the trial's folder."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from cegppo_lab.errors import LabError
from cegppo_lab.execute import attempt, is_finished
from cegppo_lab.sentinel import NO_RULES, StopRules
from cegppo_lab.store import FAILED, RunStore, StepRecord
from cegppo_lab.trainers.base import TimeLimitError, TrainerError
from cegppo_lab.trial import Trial

TAIL_LINES = 40
ERROR_FILE = "error.txt"
"""In a trial's folder: why its last failed attempt failed, and the end of the worker's log."""
LOG_FILE = "worker.log"
"""In a trial's folder: what its workers printed, attempt after attempt."""

_MEMORY = ("MemoryError", "OutOfMemoryError", "can't allocate memory", "NODE_OUT_OF_MEMORY")
_CUDA = ("CUDA error", "CUBLAS_STATUS", "CUDNN_STATUS", "cuDNN error", "NCCL error")


def limited_attempt(
    store: RunStore, trial: Trial, rules: StopRules = NO_RULES
) -> Iterator[StepRecord]:
    """:func:`cegppo_lab.execute.attempt`, for ``runtime.time_limit_h`` at most.

    Raises :class:`TimeLimitError` after the first record beyond the limit; the trial is then
    ``failed`` with that reason, and can be resumed.
    """
    hours, steps = trial.config.runtime.time_limit_h, trial.config.trainer.steps
    deadline = time.monotonic() + hours * 3600 if hours else float("inf")
    with closing(attempt(store, trial, rules)) as records:
        for record in records:
            yield record
            if time.monotonic() > deadline and record.step < steps:
                break
        else:
            return
    error = TimeLimitError(
        f"ran out of its time limit of {hours:g} h at step {record.step}; the next call goes on"
    )
    record_failure(store, trial, reason_of(error), rules)
    raise error


def reason_of(error: BaseException) -> str:
    """Why an attempt failed, in one line that names lack of memory and CUDA errors as such."""
    if isinstance(error, (LabError, TrainerError)):
        return str(error)
    told = "".join(traceback.format_exception_only(error)).strip()
    kinds = {"out of memory": _MEMORY, "CUDA error": _CUDA}
    kind = next((k for k, marks in kinds.items() if any(m in told for m in marks)), "")
    line = told.splitlines()[0]
    return f"{kind}: {line}" if kind and not line.startswith(kind) else line


def record_failure(store: RunStore, trial: Trial, reason: str, rules: StopRules = NO_RULES) -> None:
    """Make the trial ``failed`` with ``reason``, and keep the end of its log in ``error.txt``.

    Does nothing when the trial is finished or another process has it, or where nothing can be
    written.
    """
    with suppress(LabError), store.writer(trial.trial_id, trial.stored_config()) as run:
        if is_finished(store, trial.trial_id, rules):
            return
        step, steps = run.status().step, trial.config.trainer.steps
        run.set_status(FAILED, reason=reason, step=step, steps=steps)
        lines = [reason, "", *_tail(run.path / LOG_FILE)]
        with suppress(OSError):
            (run.path / ERROR_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _tail(log: Path) -> list[str]:
    try:
        return log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:]
    except OSError:
        return []


class WorkerLog:
    """Sends all that this process prints, native code included, to a trial's ``worker.log``."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOG_FILE
        self._saved: dict[int, int] = {}
        with suppress(OSError):  # no room for a log: train without
            folder.mkdir(parents=True, exist_ok=True)
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            self._saved = {number: os.dup(number) for number in (1, 2)}
            self._point(dict.fromkeys(self._saved, file))
            os.close(file)

    def close(self) -> None:
        """Print to where it went before; an empty log is deleted."""
        self._point(self._saved)
        for file in self._saved.values():
            os.close(file)
        self._saved = {}
        with suppress(OSError):
            if not self._path.stat().st_size:
                self._path.unlink()

    @staticmethod
    def _point(targets: dict[int, int]) -> None:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        for number, target in targets.items():
            os.dup2(target, number)
