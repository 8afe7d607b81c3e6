"""What a running sweep is doing at this instant, seen from outside, and whom a kill may hit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from cegppo_lab.store import DONE, RunDir, RunStore
from tests.e2e.lab import processes_in

START, STEP, EVALUATION = "start-up", "step", "step with evaluation"
CHECKPOINT, MIRROR, REPORT = "checkpoint", "mirror pass", "report"
_WORKERS = ("ray::TuneTrial", "ray::ResourceTrainable")  # Tune wraps it, to give it resources


@dataclass(frozen=True)
class Scene:
    """A folder in which a call of a sweep runs since ``since`` (Unix seconds).

    ``eval_every``: steps between evaluations; ``trials``: how many the sweep has.
    """

    folder: Path
    since: float
    eval_every: int
    trials: int

    @property
    def runs(self) -> list[RunDir]:
        """The trials that have a folder by now."""
        store = RunStore(self.folder / "runs")
        return [store.run(trial_id) for trial_id in store.trial_ids()]

    def training(self) -> dict[int, RunDir]:
        """The trials in training that stored a row in this call, by their workers' ids."""
        found = {}
        for run in self.runs:
            attempts = run.provenance()
            if attempts and attempts[-1]["started"] > self.since and run.locked():
                found[attempts[-1]["pid"]] = run
        return found

    def workers(self) -> list[int]:
        """The processes that Ray gave to trials, whether they have begun to train or not."""
        return sorted(each.pid for each in processes_in(self.folder) if _is_worker(each))

    def phases_of(self, run: RunDir) -> set[str]:
        """What the worker that trains ``run`` is at."""
        if any(run.checkpoints.glob(".step_*.tmp")):
            return {CHECKPOINT}
        done = len(run.steps())
        last = run.status().steps
        evaluates = (done + 1) % self.eval_every == 0 or done + 1 == last
        return {EVALUATION if evaluates else STEP}

    def driver_phases(self) -> set[str]:
        """All that goes on in the sweep."""
        runs = self.runs
        found = {MIRROR} if _held(self.folder / "runs" / ".mirror.lock") else set()
        if len(runs) == self.trials and all(run.status().state == DONE for run in runs):
            return found | {REPORT}
        return found | (set(self._trials_phases()) or {START})

    def _trials_phases(self) -> Iterator[str]:
        for run in self.training().values():
            yield from self.phases_of(run)

    def worker_phases(self) -> dict[int, set[str]]:
        """By worker, what it is at."""
        training = self.training()
        return {
            pid: self.phases_of(training[pid]) if pid in training else {START}
            for pid in self.workers()
        }


def _is_worker(process: psutil.Process) -> bool:
    try:
        return process.cmdline()[0].startswith(_WORKERS)
    except (psutil.Error, IndexError):
        return False


def _held(lock: Path) -> bool:
    if not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True
