"""A number and how sure it is, and the words for where it cannot be sure."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from scipy import special, stats

LEVEL = 0.95
"""Confidence of every interval; ``1 - LEVEL`` is the size of every test."""

NORMAL_QUANTILE = float(stats.norm.ppf(0.5 + LEVEL / 2))
"""Half-width of a ``LEVEL`` interval in standard errors that are known: 1.96."""


def t_quantile(df: float) -> float:
    """Half-width of a ``LEVEL`` interval in standard errors that were estimated with ``df``."""
    return float(special.stdtrit(df, 0.5 + LEVEL / 2))  # stats.t.ppf, without its overhead


@dataclass(frozen=True)
class Estimate:
    """A number and how sure it is: ``low`` to ``high`` hold ``LEVEL``, both None where refused.

    ``method`` says how the interval was made, or why there is none.
    """

    value: float
    low: float | None
    high: float | None
    n_seeds: int
    method: str

    @property
    def excludes_zero(self) -> bool:
        """Whether there is an interval and 0 lies outside it."""
        return self.low is not None and self.high is not None and self.low * self.high > 0

    def above(self, threshold: float) -> bool:
        """Whether there is an interval and all of it lies above ``threshold``."""
        return self.low is not None and self.low > threshold

    def below(self, threshold: float) -> bool:
        """Whether there is an interval and all of it lies below ``threshold``."""
        return self.high is not None and self.high < threshold

    def within(self, lowest: float, highest: float) -> Estimate:
        """The estimate with its interval cut to the quantity's range (coverage stays)."""
        if self.low is None or self.high is None:
            return self
        return replace(self, low=max(self.low, lowest), high=min(self.high, highest))

    def text(self, digits: int = 3, *, scale: float = 1.0, signed: bool = False) -> str:
        """``0.284 [0.183, 0.385]``, or ``0.284 (1 seed: no interval)``, or ``n/a (no seed)``.

        ``signed`` writes the plus of a positive value (for differences).
        """

        def show(number: float, sign: str = "") -> str:
            text = f"{number * scale:{sign}.{digits}f}"
            return text if float(text) else text.lstrip("+-")  # no "-0.000"

        if math.isnan(self.value):
            return f"n/a ({self.method})"
        value = show(self.value, "+" if signed else "")
        if self.low is None or self.high is None:
            return f"{value} ({self.method})"
        return f"{value} [{show(self.low)}, {show(self.high)}]"


def refused(value: float, n_seeds: int, reason: str) -> Estimate:
    """The value without an interval; ``reason`` is what its method says before the refusal."""
    return Estimate(value, None, None, n_seeds, f"{reason}: no interval")


def too_few_seeds(value: float, n_seeds: int) -> Estimate | None:
    """The estimate where no seed or one leaves nothing to measure a spread with, else None."""
    if n_seeds == 0:
        return Estimate(math.nan, None, None, 0, "no seed")
    return refused(value, 1, "1 seed") if n_seeds == 1 else None


def all_agree(value: float, n_seeds: int) -> Estimate:
    """The estimate where every seed says the same: a spread that was not seen is not zero."""
    return refused(value, n_seeds, f"same in all {n_seeds} seeds")
