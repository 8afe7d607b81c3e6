"""Feedback controllers of a scalar: pure functions from a state to the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ERROR, INTEGRAL = "error", "integral"


@dataclass(frozen=True)
class PI:
    """A proportional-integral controller whose effort lies in [-1, 1].

    effort = gain * error + integral, cut to the interval; the integral grows by
    ``integral_gain * error`` an observation. State: ``error`` and ``integral``, both without unit.
    While the effort is cut, the integral does not grow, but may shrink (anti-windup): it comes off
    its bound as soon as the error turns.
    """

    gain: float
    integral_gain: float

    @staticmethod
    def initial() -> dict[str, float]:
        """No effort."""
        return {ERROR: 0.0, INTEGRAL: 0.0}

    def observe(self, state: Mapping[str, float], error: float) -> dict[str, float]:
        """The state after an observation of ``error`` (positive: the effort should rise)."""
        integral = _cut(state[INTEGRAL] + self.integral_gain * error)
        cut = abs(self.gain * error + integral) > 1
        winds_up = cut and abs(integral) > abs(state[INTEGRAL])
        return {ERROR: error, INTEGRAL: state[INTEGRAL] if winds_up else integral}

    def effort(self, state: Mapping[str, float]) -> float:
        """In [-1, 1]; 0 in the initial state."""
        return _cut(self.gain * state[ERROR] + state[INTEGRAL])


def between(effort: float, lowest: float, centre: float, highest: float) -> float:
    """``lowest`` at effort -1, ``centre`` at 0, ``highest`` at 1, linear on either side."""
    end = highest if effort > 0 else lowest
    return centre + abs(effort) * (end - centre)


def _cut(value: float) -> float:
    return min(max(value, -1.0), 1.0)
