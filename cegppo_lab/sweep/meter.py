"""Ends a call of Ray Tune when its budget is used up."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ray import tune

from cegppo_lab.config import RuntimeConfig
from cegppo_lab.sweep.budget import Budget


class Meter(tune.Stopper):
    """Stops Tune when the budget is used up; trials go on from where they are in the next call.

    A trial counts from :meth:`started` to :meth:`ended`, wall time from the making of the meter,
    over all calls of Tune that it is given to.
    """

    def __init__(
        self, budget: Budget, runtime: RuntimeConfig, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.budget = budget
        self._rate, self._clock = budget.rate(runtime), clock
        self._begin = clock()
        self._running: dict[str, float] = {}
        self._used = 0.0

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its stopper to restore a run; ours are restored from the store.
        return {}

    def started(self, trial_id: str) -> None:
        """The trial has its resources."""
        self._running.setdefault(trial_id, self._clock())

    def ended(self, trial_id: str) -> None:
        """The trial has given its resources back."""
        begin = self._running.pop(trial_id, None)
        if begin is not None:
            self._used += self._clock() - begin

    def used(self) -> float:
        """Hours of the budget's kind that are used up."""
        now = self._clock()
        if not self._rate:
            return (now - self._begin) / 3600
        running = sum(now - begin for begin in self._running.values())
        return (self._used + running) * self._rate / 3600

    @property
    def exhausted(self) -> bool:
        """Whether no more may be used."""
        return self.used() >= self.budget.amount

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Tune asks about one trial: none is stopped by itself."""
        return False

    def stop_all(self) -> bool:
        """Tune asks whether to end the call."""
        return self.exhausted
