"""A trainer that only counts: for tests of what is around a trainer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cegppo_lab.config import RunConfig
from cegppo_lab.store import EvalRecord, RunStore, StepRecord
from cegppo_lab.trial import Trial


class Counting:
    """A trainer that counts, from the newest checkpoint (every second step) on."""

    def __init__(self, fails_at: int | None = None, error: Exception | None = None) -> None:
        self.fails_at, self.error, self.trained = fails_at, error, []
        self.closed = False

    def run(self, config: RunConfig, checkpoints: Path) -> Iterator[StepRecord]:
        try:
            yield from self._run(config, checkpoints)
        finally:
            self.closed = True

    def _run(self, config: RunConfig, checkpoints: Path) -> Iterator[StepRecord]:
        mark = checkpoints / "done"
        done = int(mark.read_text()) if mark.exists() else 0
        if not done:
            yield StepRecord(0, {}, [EvalRecord(0, "b", ["p"], [0], [0.0])])
        for step in range(done + 1, config.trainer.steps + 1):
            if step == self.fails_at:
                raise self.error
            self.trained.append(step)
            yield StepRecord(step, {"actor/entropy": 1 / step})
            if step % 2 == 0:
                checkpoints.mkdir(parents=True, exist_ok=True)
                mark.write_text(str(step))


def train_with(monkeypatch: pytest.MonkeyPatch, trainer: Counting) -> Counting:
    """Have attempts use ``trainer``."""
    monkeypatch.setattr("cegppo_lab.execute.make_trainer", lambda name: trainer)
    return trainer


def stored_steps(store: RunStore, trial: Trial) -> list[int]:
    """The steps that the store has of the trial."""
    return [row.step for row in store.run(trial.trial_id).steps()]
