"""Do 95 % intervals hold the truth in 95 of 100 sweeps, and do corrected tests stay below 5 %?

Synthetic sweeps whose truth is known, at least 1,500 a case, so that a share of 0.95 is measured to
0.006; where a docstring of ``analysis.stats`` states a number, it was measured the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.stats import (
    Estimate,
    best_of,
    bootstrap_estimate,
    compare,
    crossed_difference,
    crossed_estimate,
    hierarchical_estimate,
    holm,
    iqm_estimate,
    mean_estimate,
    paired_difference,
    probability_of_improvement,
    slope_estimate,
)

SWEEPS = 1_500
LEAST_DRAWS = 1_000


def coverage(estimates: Iterable[Estimate], truth: float) -> float:
    held = [estimate.low <= truth <= estimate.high for estimate in estimates]
    assert len(held) >= SWEEPS
    return float(np.mean(held))


def holds(share: float) -> bool:
    return 0.93 <= share <= 0.97


def series(values: np.ndarray) -> Iterator[pd.Series]:
    return (pd.Series(row) for row in values)


# Seeds


@pytest.mark.parametrize("n", [2, 3, 6])
def test_the_mean(n):
    values = np.random.default_rng(n).normal(0.5, 0.1, (4_000, n))
    assert holds(coverage((mean_estimate(row) for row in values), 0.5))


@pytest.mark.parametrize("n", [2, 3, 6])
def test_a_paired_difference(n):
    rng = np.random.default_rng(n)
    common = rng.normal(0, 1, (2_000, n))
    a, b = (common + rng.normal(mean, 0.1, (2_000, n)) for mean in (0.2, 0.1))
    pairs = zip(series(a), series(b), strict=True)
    assert holds(coverage((paired_difference(*pair) for pair in pairs), 0.1))


@pytest.mark.parametrize("n", [5, 10])
def test_the_bootstrap_of_the_mean(n):
    values = series(np.random.default_rng(n).normal(0.5, 0.1, (SWEEPS, n)))
    found = (bootstrap_estimate(x, draws=LEAST_DRAWS, rng_seed=i) for i, x in enumerate(values))
    assert holds(coverage(found, 0.5))


def test_a_slope():
    n = 3
    rng = np.random.default_rng(n)
    levels = (0, 0.25, 0.5, 1)
    start, own = rng.normal(0, 1, (SWEEPS, n)), rng.normal(-0.4, 0.2, (SWEEPS, n))
    noisy = [start + own * level + rng.normal(0, 0.1, (SWEEPS, n)) for level in levels]
    sweeps = zip(*map(series, noisy), strict=True)
    found = (slope_estimate(dict(zip(levels, sweep, strict=True))) for sweep in sweeps)
    assert holds(coverage(found, -0.4))


# Seeds x problems


def normal_tables(shape: tuple[int, int], *, seed: float, problem: float, noise: float = 0.1):
    """Tables of true mean 0.5 with normal effects of these standard deviations."""
    rng = np.random.default_rng(0)
    effects = (
        rng.normal(0, seed, (2_000, shape[0], 1)),
        rng.normal(0, problem, (2_000, 1, shape[1])),
    )
    return 0.5 + sum(effects) + rng.normal(0, noise, (2_000, *shape)), 0.5


def sampled_tables(shape: tuple[int, int], *, seed: float, problem: float, samples: int = 32):
    """Correct shares of samples whose logit is the sum of normal effects; true mean 0.5."""
    rng = np.random.default_rng(1)
    logit = rng.normal(0, seed, (2_000, shape[0], 1)) + rng.normal(0, problem, (2_000, 1, shape[1]))
    logit = logit + rng.normal(0, 0.3, (2_000, *shape))
    return rng.binomial(samples, 1 / (1 + np.exp(-logit))) / samples, 0.5


TABLES = {
    "6 x 12": lambda: normal_tables((6, 12), seed=0.05, problem=0.2),
    "6 x 30, equal effects": lambda: normal_tables((6, 30), seed=0.1, problem=0.1),
    "6 x 12, sampled": lambda: sampled_tables((6, 12), seed=0.4, problem=1.5),
    "6 x 30, sampled": lambda: sampled_tables((6, 30), seed=0.3, problem=1.5),
}


@pytest.mark.parametrize("tables", TABLES.values(), ids=TABLES)
@pytest.mark.parametrize(
    "estimate",
    [
        lambda table, i: crossed_estimate(table),
        lambda table, i: hierarchical_estimate(table, draws=LEAST_DRAWS, rng_seed=i),
    ],
    ids=["crossed", "hierarchical"],
)
def test_seeds_by_problems(estimate, tables):
    cells, truth = tables()
    found = (estimate(pd.DataFrame(table), i) for i, table in enumerate(cells[:SWEEPS]))
    assert holds(coverage(found, truth))


def test_seeds_by_problems_at_three_seeds():
    cells, truth = normal_tables((3, 30), seed=0.1, problem=0.1)
    assert holds(coverage((crossed_estimate(pd.DataFrame(table)) for table in cells), truth))


def test_a_crossed_difference():
    rng = np.random.default_rng(2)
    difficulty = rng.normal(0, 1.5, (SWEEPS, 1, 12))
    a, b = (
        rng.binomial(32, 1 / (1 + np.exp(-difficulty - rng.normal(0, 0.4, (SWEEPS, 6, 1))))) / 32
        for _ in "ab"
    )
    pairs = zip(map(pd.DataFrame, a), map(pd.DataFrame, b), strict=True)
    assert holds(coverage((crossed_difference(*pair) for pair in pairs), 0.0))


def test_neither_seeds_nor_problems_alone_are_enough():
    cells, truth = normal_tables((6, 12), seed=0.05, problem=0.2)
    assert coverage((mean_estimate(table.mean(axis=1)) for table in cells), truth) < 0.8
    cells, truth = normal_tables((6, 12), seed=0.1, problem=0.1)
    assert coverage((mean_estimate(table.mean(axis=0)) for table in cells), truth) < 0.85


# Seeds x tasks


ALIKE, APART = (0.5, 0.5, 0.5, 0.5), (0.1, 0.3, 0.45, 0.5, 0.7, 0.9)


@pytest.mark.parametrize(("n", "tasks"), [(3, APART), (6, APART), (6, ALIKE)])
def test_the_interquartile_mean(n, tasks):
    def scores(seeds: int, sweeps: int) -> np.ndarray:
        rng = np.random.default_rng(seeds)
        of_seeds = rng.normal(0, 0.05, (sweeps, seeds, 1))
        return tasks + of_seeds + rng.normal(0, 0.04, (sweeps, seeds, len(tasks)))

    truth = float(stats.trim_mean(scores(400_000, 1), 0.25, axis=None))
    found = (
        iqm_estimate(pd.DataFrame(table), draws=LEAST_DRAWS, rng_seed=i)
        for i, table in enumerate(scores(n, SWEEPS))
    )
    assert holds(coverage(found, truth))


# Arms


@pytest.mark.parametrize("n", [4, 6, 10])
@pytest.mark.parametrize("truth", [0.5, 0.8])
def test_the_probability_of_improvement(n, truth):
    rng = np.random.default_rng(n)
    apart = np.sqrt(2) * stats.norm.ppf(truth)
    a, b = (series(rng.normal(mean, 1, (3_000, n))) for mean in (apart, 0))
    pairs = zip(a, b, strict=True)
    assert holds(coverage((probability_of_improvement(*pair) for pair in pairs), truth))


def test_holm_over_seven_equal_arms_finds_something_in_5_of_100_sweeps_at_most():
    n, arms, sweeps = 8, 7, 3_000  # with eight seeds the sign flips can reach 0.05 / 6
    rng = np.random.default_rng(0)
    values = rng.normal(size=(sweeps, arms, n)) + rng.normal(size=(sweeps, 1, n))
    away = values[:, 1:] - values[:, :1]
    p = {
        "p_t": stats.ttest_1samp(away, 0, axis=-1).pvalue,
        "p_permutation": _sign_flips(away),
    }
    for kind, table in p.items():
        adjusted = np.array([list(holm(dict(enumerate(row))).values()) for row in table])
        assert np.mean((table <= 0.05).any(axis=1)) > 0.12
        assert 0.01 < np.mean((adjusted <= 0.05).any(axis=1)) <= 0.05 + 2 * 0.004
        for sweep in range(20):  # and these are the p values of compare
            named = dict(zip("abcdefg", series(values[sweep]), strict=True))
            found = compare(named, "a")
            assert [getattr(c, kind) for c in found] == pytest.approx(table[sweep])
            assert [getattr(c, f"{kind}_holm") for c in found] == pytest.approx(adjusted[sweep])


def _sign_flips(differences: np.ndarray) -> np.ndarray:
    """Two-sided p of all sign patterns along the last axis."""
    n = differences.shape[-1]
    signs = 1 - 2 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)
    sums = np.abs(differences @ signs.T)
    return (sums >= np.abs(differences.sum(axis=-1, keepdims=True)) - 1e-9).mean(axis=-1)


def left_out(means: Iterable[float], n: int, sweeps: int) -> np.ndarray:
    """Which arms of each sweep are told to be worse than its best: (sweeps, arms)."""
    means = np.asarray(list(means))
    values = np.random.default_rng(5).normal(size=(sweeps, means.size, n)) + means[:, None]
    result = np.zeros((sweeps, means.size), bool)
    for sweep, arms in enumerate(values):
        best, close = best_of(dict(enumerate(series(arms))))
        result[sweep, [arm for arm in range(means.size) if arm != best and arm not in close]] = True
    return result


def test_a_truly_best_arm_is_hardly_ever_left_out():
    out = left_out([0, 0, -1.5, -3], n=6, sweeps=500)
    assert out[:, 0].mean() < 0.05
    assert out[:, 3].mean() > 0.3  # the list is not simply everyone


def test_of_equal_arms_none_is_called_worse_in_more_than_5_of_100_sweeps():
    sweeps = 400
    error = 3 * np.sqrt(0.05 * 0.95 / sweeps)
    assert left_out([0] * 6, n=6, sweeps=sweeps).any(axis=1).mean() <= 0.05 + error
