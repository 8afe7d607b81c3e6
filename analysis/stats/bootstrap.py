"""Bootstrap intervals for few seeds: of any statistic, over seeds x problems, and the IQM.

The bootstrap takes the n seeds for the population. Its spread is then too small by (n-1)/n, and it
forgets that the spread itself is a guess: with 3 to 6 seeds a plain 95 % percentile interval covers
75 to 86 %. Everything here is therefore widened by sqrt(n/(n-1)) and by t over the normal quantile.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from analysis.stats.estimate import (
    LEVEL,
    NORMAL_QUANTILE,
    Estimate,
    all_agree,
    t_quantile,
    too_few_seeds,
)
from analysis.stats.inputs import ROUND_OFF, complete_cells, seed_values, shared_cells
from analysis.stats.intervals import crossed_difference, crossed_estimate
from cegppo_lab.errors import LabError

DRAWS = 5_000
FEWEST_DRAWS = 1_000
_TAILS = (0.5 - LEVEL / 2, 0.5 + LEVEL / 2)


def bootstrap_estimate(
    values: pd.Series,
    statistic: Callable[..., NDArray[np.float64] | np.float64] = np.mean,
    *,
    draws: int = DRAWS,
    rng_seed: int = 0,
) -> Estimate:
    """A statistic of the seeds with a bootstrap interval that is widened for few seeds.

    ``values``: one number a seed, indexed by seed. ``statistic``: called as ``statistic(x, axis)``
    like ``np.mean`` or ``np.median``. The percentiles' distances to the estimate are scaled by
    sqrt(n/(n-1)) t_(n-1)/z. That is the correction of Hesterberg's expanded percentile interval
    (2015, Am Stat 69:371), which moves the percentiles outwards instead; with 3 to 6 seeds those
    fall beyond the last value that the draws can have. Refused for one seed, and where all draws
    agree. Raises ``LabError`` for a duplicate seed or fewer than 1,000 draws.

    Measured coverage, normal values: mean 0.93 at 2 seeds, 0.94 to 0.95 from 3 on (plain
    percentiles: 0.75 at 3, 0.83 at 5, 0.90 at 10); median 0.94 at 2, 0.92 at 3, 0.96 to 0.98 from 4
    on. Exponential values: mean 0.89 to 0.90 up to 6 seeds, 0.91 at 10 (Student's t: 0.87 to 0.91);
    nothing mends a skew that so few seeds do not show.
    """
    _check(draws)
    given = seed_values(values).to_numpy()
    value = float(statistic(given, axis=-1)) if given.size else math.nan
    refusal = too_few_seeds(value, given.size)
    if refusal is not None:
        return refusal
    resampled = stats.bootstrap(
        (given,), statistic, n_resamples=draws, vectorized=True, method="percentile",
        rng=np.random.default_rng(rng_seed),
    ).bootstrap_distribution  # fmt: skip
    if np.ptp(resampled) <= ROUND_OFF * np.abs(given).max():
        return all_agree(value, given.size)
    low, high = (np.quantile(resampled, _TAILS) - value) * _widening(given.size)
    method = f"{LEVEL:.0%} bootstrap interval over {given.size} seeds, widened for few seeds"
    return Estimate(value, value + float(low), value + float(high), given.size, method)


def hierarchical_estimate(
    table: pd.DataFrame, *, draws: int = DRAWS, rng_seed: int = 0
) -> Estimate:
    """The grand mean of seeds x problems, both resampled: for other seeds and other problems.

    ``table`` as in ``crossed_estimate``; refusals and errors as there. Pigeonhole bootstrap: seeds
    and problems are drawn with replacement, independently, and a cell is in as often as its seed
    times its problem (Owen 2007, Ann Appl Stat 1:386). Its variance is biased: a seed's part comes
    out (S-1)/S of what it should be, a problem's (P-1)/P, and the cell noise up to three times
    what it should be, since it enters with the resampled seeds and again with the problems. Only
    the shape of its distribution (its skew) is kept: distances to the mean are scaled so that 1.96
    of its standard deviations are the half-width of ``crossed_estimate``.

    Measured coverage: within 0.01 of ``crossed_estimate``, nearer to 0.95 where difficulty is
    skewed (plain pigeonhole percentiles: 0.79 to 0.99 at three seeds).
    """
    return _pigeonhole(complete_cells(table), crossed_estimate(table), draws, rng_seed)


def hierarchical_difference(
    a: pd.DataFrame, b: pd.DataFrame, *, draws: int = DRAWS, rng_seed: int = 0
) -> Estimate:
    """Grand mean of ``a - b`` over the shared seeds and problems, as ``hierarchical_estimate``."""
    shared_a, shared_b = shared_cells(a, b)
    return _pigeonhole(shared_a - shared_b, crossed_difference(a, b), draws, rng_seed)


def _pigeonhole(table: pd.DataFrame, crossed: Estimate, draws: int, rng_seed: int) -> Estimate:
    _check(draws)
    if crossed.high is None:
        return crossed
    cells = table.to_numpy()
    seeds, problems = cells.shape
    rng = np.random.default_rng(rng_seed)
    of_seeds, of_problems = _shares(seeds, draws, rng), _shares(problems, draws, rng)
    away = ((of_seeds @ cells) * of_problems).sum(axis=1) - crossed.value
    scale = (crossed.high - crossed.value) / (NORMAL_QUANTILE * away.std())
    low, high = crossed.value + scale * np.quantile(away, _TAILS)
    method = f"{LEVEL:.0%} bootstrap interval over {seeds} seeds x {problems} problems"
    return Estimate(crossed.value, float(low), float(high), seeds, method)


def iqm_estimate(table: pd.DataFrame, *, draws: int = DRAWS, rng_seed: int = 0) -> Estimate:
    """Interquartile mean of seeds x tasks: the mean of the middle half of all runs.

    ``table``: index seed, columns task, one score each. Agarwal et al. 2021 (NeurIPS, rliable);
    a quarter of the scores is cut at either end (``scipy.stats.trim_mean``, whole scores only).
    rliable resamples each task's seeds on their own; here one trained policy meets every task, so
    that a seed is drawn with all its tasks. The interval is t_(n-1) times the bootstrap standard
    error times sqrt(n/(n-1)); a seed that lacks a task is dropped. Refused for one seed, and where
    all draws agree. Raises ``LabError`` for a duplicate seed or task or fewer than 1,000 draws.

    Measured coverage: 0.93 to 0.96 from 2 seeds on over 4 and 6 tasks, alike and not alike; 0.94 to
    0.98 over one task. The target is what many seeds of *these* tasks give.
    """
    _check(draws)
    cells = complete_cells(table).to_numpy()
    n = cells.shape[0]
    value = float(stats.trim_mean(cells, 0.25, axis=None)) if cells.size else math.nan
    refusal = too_few_seeds(value, n if cells.size else 0)
    if refusal is not None:
        return refusal
    picked = np.random.default_rng(rng_seed).integers(n, size=(draws, n))
    resampled = stats.trim_mean(cells[picked].reshape(draws, -1), 0.25, axis=1)
    if np.ptp(resampled) <= ROUND_OFF * np.abs(cells).max():
        return all_agree(value, n)
    half = NORMAL_QUANTILE * _widening(n) * float(resampled.std())
    method = f"{LEVEL:.0%} bootstrap interval over {n} seeds, widened for few seeds"
    return Estimate(value, value - half, value + half, n, method)


def _shares(n: int, draws: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """How much of each draw, with replacement, every one of ``n`` units makes up: (draws, n)."""
    picked = rng.integers(n, size=(draws, n)) + n * np.arange(draws)[:, None]
    return np.bincount(picked.ravel(), minlength=n * draws).reshape(draws, n) / n


def _widening(n: int) -> float:
    return math.sqrt(n / (n - 1)) * t_quantile(n - 1) / NORMAL_QUANTILE


def _check(draws: int) -> None:
    if draws < FEWEST_DRAWS:
        raise LabError(
            f"draws={draws} was given; the tails of an interval need at least {FEWEST_DRAWS}. "
            f"Leave it out for {DRAWS}."
        )
