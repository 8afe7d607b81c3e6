"""Estimates over seeds with intervals, and the refusal of an interval where there is none.

The unit of replication is the seed: everything inside one run (steps, problems, samples) is
averaged before it comes here. Intervals are Student's t for the mean over seeds: with three seeds
they are wide (2.5 standard deviations either way), and that is what three seeds can say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

LEVEL = 0.95
"""Confidence of every interval."""


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


@dataclass(frozen=True)
class Curve:
    """Mean over seeds at each step with its interval; arrays of shape (steps,).

    ``low`` and ``high`` are NaN where fewer than two seeds, or equal ones, refuse an interval.
    """

    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    n_seeds: NDArray[np.int64]


def mean_curve(values: ArrayLike) -> Curve:
    """Mean and t interval over the seeds of each column.

    ``values``: (seeds, steps), NaN where a seed has no value. A column uses the seeds it has.
    """
    table = np.asarray(values, dtype=float)
    present = np.isfinite(table)
    n = present.sum(axis=0)
    some, two = np.maximum(n, 1), np.maximum(n, 2)
    mean = np.where(n > 0, np.where(present, table, 0.0).sum(axis=0) / some, np.nan)
    spread = np.where(present, table - mean, 0.0)
    deviation = np.sqrt((spread**2).sum(axis=0) / (two - 1))
    same = np.where(present, table, -np.inf).max(axis=0) == np.where(present, table, np.inf).min(
        axis=0
    )
    half = stats.t.ppf(0.5 + LEVEL / 2, two - 1) * deviation / np.sqrt(two)
    half = np.where((n < 2) | same, np.nan, half)
    return Curve(mean, mean - half, mean + half, n)


def mean_estimate(values: ArrayLike) -> Estimate:
    """The mean over seeds with its t interval; ``values``: (seeds,), one number a seed.

    No interval from one seed, nor from seeds that all agree to the last bit: their spread is not
    measured, and a zero-width interval would claim a certainty that nobody has.
    """
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    if finite.size == 0:
        return Estimate(math.nan, None, None, 0, "no seed")
    curve = mean_curve(finite[:, None])
    value, low, high = float(curve.mean[0]), float(curve.low[0]), float(curve.high[0])
    if finite.size == 1:
        return Estimate(value, None, None, 1, "1 seed: no interval")
    if math.isnan(low):
        method = f"same in all {finite.size} seeds: no interval"
        return Estimate(value, None, None, finite.size, method)
    method = f"{LEVEL:.0%} t interval over {finite.size} seeds"
    return Estimate(value, low, high, finite.size, method)


def paired_difference(arm: pd.Series, reference: pd.Series) -> Estimate:
    """Mean of ``arm - reference`` over the seeds that both have, with the paired t interval.

    Both are indexed by seed. Sharing a seed means sharing the start and the prompts, so pairing
    takes out what the seeds have in common.
    """
    difference = (arm - reference).dropna()
    if difference.empty:
        return Estimate(math.nan, None, None, 0, "no shared seed")
    result = mean_estimate(difference.to_numpy(dtype=float))
    if result.low is None:
        return result
    return replace(result, method=f"{LEVEL:.0%} paired t interval over {result.n_seeds} seeds")
