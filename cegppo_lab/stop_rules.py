"""The stop rules, one class each; ``cegppo_lab/sentinel.py`` switches them on and asks them.

A metric that a step lacks, or that is NaN there, neither counts for a rule nor against it
(``NonFinite`` is for NaN).
"""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from cegppo_lab import metrics as names

Metrics = Mapping[str, float]
Watch = Callable[[Metrics], str | None]
"""Sees the metrics of one step after the other; says why to stop, or None."""

Count = Annotated[int, Field(ge=1)]
_CHECKED = (names.ENTROPY, names.PPO_KL, names.GRAD_NORM, names.LOSS, names.REWARD_MEAN)


class Rule(BaseModel, ABC):
    """One stop rule: its parameters, and in ``metrics`` the names it looks at."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    metrics: ClassVar[tuple[str, ...]]

    @abstractmethod
    def watch(self) -> Watch:
        """A new observer of one run, which has seen nothing yet."""


class AtStep(Rule):
    """After training step ``step``: how a search brings its points to a rung.

    A trainer that can saves a checkpoint of that step first, so that a sweep without the rule, or
    with a later step, computes nothing again.
    """

    metrics = ()
    step: Count

    def watch(self) -> Watch:
        """See :meth:`Rule.watch`."""
        seen = 0

        def watch(metrics: Metrics) -> str | None:
            nonlocal seen
            seen += 1
            return f"{self.step} steps were asked for" if seen >= self.step else None

        return watch


class Pruned(Rule):
    """Never by itself: a search marks the runs of points that its pruner gave up so.

    In a sweep that has the rule they are finished; in any other they go on.
    """

    metrics = ()
    search: str = Field(min_length=1)

    def watch(self) -> Watch:
        """See :meth:`Rule.watch`."""
        return lambda metrics: None


class NonFinite(Rule):
    """NaN or infinity in entropy, KL, gradient norm, loss or reward, ``steps`` times in a row.

    The embedded trainer stops at a loss, gradient or entropy that is not finite with or without
    this rule; verl skips such an update and goes on.
    """

    metrics = _CHECKED
    steps: Count = 1

    def watch(self) -> Watch:
        """See :meth:`Rule.watch`."""
        row = 0

        def watch(metrics: Metrics) -> str | None:
            nonlocal row
            found = {key: metrics[key] for key in self.metrics if key in metrics}
            broken = [key for key, value in found.items() if not math.isfinite(value)]
            if found:
                row = row + 1 if broken else 0
            return f"{broken[0]} not finite{_times(row)}" if row >= self.steps and broken else None

        return watch


class _Bound(Rule):
    """The metric strictly beyond ``value`` at ``steps`` steps in a row."""

    side: ClassVar[str]
    value: float
    steps: Count

    def watch(self) -> Watch:
        """See :meth:`Rule.watch`."""
        (metric,), row = self.metrics, 0
        beyond = {"above": operator.gt, "below": operator.lt}[self.side]

        def watch(metrics: Metrics) -> str | None:
            nonlocal row
            if (number := _number(metrics, metric)) is None:
                return None
            row = row + 1 if beyond(number, self.value) else 0
            if row < self.steps:
                return None
            return f"{metric} {self.side} {self.value:g}{_times(row)}, now {number:.4g}"

        return watch


class EntropyBelow(_Bound):
    """Collapse: entropy (nats per token) below ``value``."""

    metrics, side = (names.ENTROPY,), "below"


class EntropyAbove(_Bound):
    """Explosion: entropy (nats per token) above ``value``."""

    metrics, side = (names.ENTROPY,), "above"


class KlAbove(_Bound):
    """KL from the rollout policy (k1 estimate, nats per token) above ``value``."""

    metrics, side = (names.PPO_KL,), "above"


class RatioAbove(_Bound):
    """The step's largest importance ratio above ``value``."""

    metrics, side = (names.RATIO_MAX,), "above"


class RatchetAbove(_Bound):
    """More than ``value`` of the negative tokens were probable and are far below the lower edge.

    The token ledger's ratchet (:mod:`cegppo_lab.diagnostics`), a share between 0 and 1.
    """

    metrics, side = (names.LEDGER_RATCHET,), "above"


class _Reward(Rule):
    """A rule on the moving average of the training reward over ``window`` steps."""

    metrics = (names.REWARD_MEAN,)
    window: Count = 8

    def _averages(self) -> Callable[[Metrics], float | None]:
        """The average with each step in; None while the window is not full or no reward came."""
        last: deque[float] = deque(maxlen=self.window)

        def average(metrics: Metrics) -> float | None:
            number = _number(metrics, names.REWARD_MEAN)
            if number is None or math.isinf(number):
                return None
            last.append(number)
            # Summed anew: a running sum would depend on how long the run is.
            return math.fsum(last) / self.window if len(last) == self.window else None

        return average


class RewardCollapse(_Reward):
    """The moving average lost the share ``drop`` of its best, which must be positive."""

    drop: float = Field(gt=0, le=1)

    def watch(self) -> Watch:
        """See :meth:`Rule.watch`."""
        average, best = self._averages(), 0.0

        def watch(metrics: Metrics) -> str | None:
            nonlocal best
            if (now := average(metrics)) is None:
                return None
            best = max(best, now)
            if not best or now > (1 - self.drop) * best:
                return None
            return (
                f"reward, mean of {self.window} steps, fell from {best:.4g} to {now:.4g}, "
                f"a drop of {self.drop:.0%} or more"
            )

        return watch


class NoProgress(_Reward):
    """In ``steps`` steps the moving average did not rise by more than ``min_delta``."""

    steps: Count
    min_delta: float = Field(0.0, ge=0)

    def watch(self) -> Watch:
        """See :meth:`Rule.watch`."""
        average, best, waited = self._averages(), -math.inf, 0

        def watch(metrics: Metrics) -> str | None:
            nonlocal best, waited
            if (now := average(metrics)) is None:
                return None
            if now > best + self.min_delta:
                best, waited = now, 0
                return None
            waited += 1
            if waited < self.steps:
                return None
            return (
                f"reward, mean of {self.window} steps, is {now:.4g} and did not rise above "
                f"{best:.4g} by more than {self.min_delta:g}{_times(waited)}"
            )

        return watch


def _number(metrics: Metrics, name: str) -> float | None:
    """The metric, None where the step has no number for it."""
    value = metrics.get(name, math.nan)
    return None if math.isnan(value) else value


def _times(count: int) -> str:
    return f" for {count} step{'s' * (count > 1)}"
