"""What every trainer is: a source of step records, for one run, that can be resumed."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Protocol

from cegppo_lab import metrics as names
from cegppo_lab.config import RunConfig
from cegppo_lab.store import StepRecord

_TRAINERS = {
    "embedded": "cegppo_lab.trainers.embedded.trainer:EmbeddedTrainer",
    "verl": "cegppo_lab.trainers.verl.trainer:VerlTrainer",
}


class TrainingStoppedError(Exception):
    """Training ended for good before its last step; the message is the reason, for the tables."""


class TrainerError(Exception):
    """A trainer failed for a reason that is told in one line; the trial can be tried again."""


class TimeLimitError(TrainerError):
    """An attempt took as long as it may; no retry of it, the next call goes on from the last
    checkpoint."""


class Trainer(Protocol):
    """Trains one run. The consumer of the records decides what to do with them."""

    def check(self, config: RunConfig) -> None:
        """Raise ``LabError`` for what would fail a run and can be known before it starts."""
        ...

    def run(self, config: RunConfig, checkpoints: Path) -> Iterator[StepRecord]:
        """Train from the newest checkpoint in ``checkpoints`` (or from the start) to the end.

        Yields step 0 (evaluation only) on a fresh start, then one record a training step.
        A record is yielded before the checkpoint of its step is written, so that a consumer that
        stores it at once never has a checkpoint without its record. Raises
        :class:`TrainingStoppedError` when going on makes no sense, e.g. a loss that is not finite.
        """
        ...


def scheduled_metrics(config: RunConfig, step: int) -> dict[str, float]:
    """The values, at ``step`` (from 0), of the coefficients that change during training."""
    now = config.algorithm.at(step)
    changing = config.algorithm.scheduled_fields()
    return {names.coefficient(key): getattr(now, key) for key in changing}


def make_trainer(name: str) -> Trainer:
    """The trainer ``name``, imported when asked for: trainers bring heavy packages."""
    module, _, cls = _TRAINERS[name].partition(":")
    return getattr(import_module(module), cls)()
