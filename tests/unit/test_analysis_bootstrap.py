"""Intervals over seeds x problems and bootstrap intervals: against hand, scipy and enumeration."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.stats import (
    Estimate,
    bootstrap_estimate,
    crossed_difference,
    crossed_estimate,
    hierarchical_difference,
    hierarchical_estimate,
    iqm_estimate,
)
from cegppo_lab.errors import LabError

OVER_TABLES = [crossed_estimate, hierarchical_estimate, iqm_estimate]
DRAWING = [
    lambda table, **kw: bootstrap_estimate(table.mean(axis=1), **kw),
    hierarchical_estimate,
    lambda table, **kw: hierarchical_difference(table, table.iloc[::-1] ** 2, **kw),
    iqm_estimate,
]


def table(seeds: int = 6, problems: int = 12, rng_seed: int = 0) -> pd.DataFrame:
    """Correct shares of 32 samples, with seeds and problems that differ."""
    rng = np.random.default_rng(rng_seed)
    logit = rng.normal(0, 0.5, (seeds, 1)) + rng.normal(0, 1.5, (1, problems))
    shares = rng.binomial(32, 1 / (1 + np.exp(-logit))) / 32
    return pd.DataFrame(
        shares, index=range(11, 11 + seeds), columns=[f"p{i}" for i in range(problems)]
    )


def t(df: int) -> float:
    return float(stats.t.ppf(0.975, df))


# Thresholds


def test_above_and_below_need_an_interval_on_that_side():
    estimate = Estimate(0.5, 0.4, 0.6, 3, "")
    assert estimate.above(0.39)
    assert not estimate.above(0.4)
    assert estimate.below(0.61)
    assert not estimate.below(0.6)
    refused = Estimate(0.5, None, None, 1, "")
    assert not refused.above(0)
    assert not refused.below(1)


# Crossed


def test_crossed_is_the_two_way_anova_by_hand():
    # seeds 0.2, 0.6; problems 0.1, 0.4, 0.7; cell (1, 1): residuals are +-0.2, +-0.1, +-0.1
    cells = pd.DataFrame([[0.1, 0.1, 0.4], [0.1, 0.7, 1.0]], index=[1, 2])
    mss, msp, mse = 3 * 0.08, 2 * 0.09, (0.04 + 0.01 + 0.01) * 2 / 2
    expected = math.sqrt(
        max(
            mss * t(1) ** 2 + (msp - mse) * t(2) ** 2,
            msp * t(2) ** 2 + (mss - mse) * t(1) ** 2,
        )
        / 6
    )
    found = crossed_estimate(cells)
    assert found.value == pytest.approx(0.4)
    assert (found.low, found.high) == pytest.approx((0.4 - expected, 0.4 + expected))
    assert (found.n_seeds, found.method) == (2, "95% t interval over 2 seeds x 3 problems")


def test_without_problem_effects_crossed_is_the_t_interval_over_seeds():
    seeds = np.array([0.3, 0.5, 0.45, 0.7])
    cells = pd.DataFrame(np.repeat(seeds[:, None], 5, axis=1))
    expected = stats.ttest_1samp(seeds, 0).confidence_interval(0.95)
    found = crossed_estimate(cells)
    assert (found.low, found.high) == pytest.approx(tuple(expected))


def test_more_problems_do_not_stand_in_for_seeds():
    few, many = (
        crossed_estimate(pd.DataFrame(np.repeat([[0.3], [0.5], [0.7]], problems, axis=1)))
        for problems in (4, 400)
    )
    assert many.high - many.low == pytest.approx(few.high - few.low)


def test_a_crossed_difference_takes_difficulty_out_and_uses_what_is_shared():
    a = table()
    b = a - 0.1 - 0.01 * np.arange(6)[:, None] + 0.001 * np.sin(np.arange(72)).reshape(6, 12)
    ours = crossed_difference(a, b)
    assert ours.high - ours.low < 0.2 * (crossed_estimate(a).high - crossed_estimate(a).low)
    wider = b.rename(index={11: 99}, columns={"p3": "other"})
    wider.loc[16, "p0"] = np.nan
    found = crossed_difference(a, wider)
    by_hand = crossed_estimate((a - b).drop(index=[11, 16], columns="p3"))
    assert found.n_seeds == 4
    assert (found.value, found.low) == pytest.approx((by_hand.value, by_hand.low))
    assert found.method == "95% paired t interval over 4 seeds x 11 problems"


@pytest.mark.parametrize("estimate", OVER_TABLES)
def test_a_seed_that_lacks_a_problem_is_dropped_and_a_problem_nobody_has_too(estimate):
    gaps = table().assign(nobody=np.nan)
    gaps.loc[13, "p4"] = np.nan
    assert estimate(gaps) == estimate(table().drop(index=13))
    assert estimate(gaps).n_seeds == 5


@pytest.mark.parametrize("estimate", OVER_TABLES)
def test_tables_that_carry_no_spread_get_no_interval(estimate):
    full = table()
    one = estimate(full.iloc[:1])
    assert (one.low, one.high, one.method) == (None, None, "1 seed: no interval")
    same = estimate(pd.DataFrame([full.iloc[0]] * 3, index=[1, 2, 3]))
    assert (same.low, same.method) == (None, "same in all 3 seeds: no interval")
    assert estimate(full * 0).low is None
    for nothing in (full.iloc[:0], full * np.nan):
        assert estimate(nothing).text() == "n/a (no seed)"


@pytest.mark.parametrize("difference", [crossed_difference, hierarchical_difference])
def test_differences_refuse_what_pairs_do_not_show(difference):
    full = table()
    apart = difference(full, full.rename(index=lambda seed: seed + 100))
    assert apart.text() == "n/a (no shared cell)"
    shifted = difference(full, full - 0.1)  # equal but for the last bit
    assert shifted.value == pytest.approx(0.1)
    assert shifted.method == "same in all 6 seeds: no interval"
    assert difference(full[["p1"]], 1 - full[["p1"]]).method == "1 problem: no interval"


@pytest.mark.parametrize("estimate", OVER_TABLES)
def test_a_seed_or_a_problem_that_comes_twice_is_told(estimate):
    with pytest.raises(LabError, match=r"seed 12 comes more than once.*Average"):
        estimate(table().rename(index={11: 12}))
    with pytest.raises(LabError, match="column p1 comes more than once"):
        estimate(table().rename(columns={"p0": "p1"}))


# Draws


@pytest.mark.parametrize("draw", DRAWING)
def test_draws_follow_their_seed_and_nothing_else(draw):
    full = table()
    first = draw(full)
    assert draw(full) == first
    assert draw(full.iloc[[3, 0, 5, 1, 2, 4]]) == first
    assert draw(full[full.columns[::-1]]).high == pytest.approx(first.high)
    other = draw(full, rng_seed=1)
    assert other.value == first.value
    assert (other.low, other.high) != (first.low, first.high)
    assert other.high - other.low == pytest.approx(first.high - first.low, rel=0.1)
    assert draw(full, draws=1_000) != first


@pytest.mark.parametrize("draw", DRAWING)
def test_too_few_draws_for_the_tails_are_told(draw):
    with pytest.raises(LabError, match=r"draws=200 was given.*at least 1000"):
        draw(table(), draws=200)


# Bootstrap over seeds


@pytest.mark.parametrize(("statistic", "n"), [(np.mean, 5), (np.median, 7), (np.mean, 3)])
def test_the_bootstrap_is_scipys_percentiles_widened(statistic, n):
    values = np.random.default_rng(3).normal(size=n)
    plain = stats.bootstrap(
        (values,), statistic, method="percentile", n_resamples=5_000, rng=np.random.default_rng(4)
    ).confidence_interval
    widening = math.sqrt(n / (n - 1)) * t(n - 1) / stats.norm.ppf(0.975)
    found = bootstrap_estimate(pd.Series(values), statistic, rng_seed=4)
    value = statistic(values)
    expected = (value + widening * (plain.low - value), value + widening * (plain.high - value))
    assert (found.value, found.n_seeds) == (pytest.approx(value), n)
    assert (found.low, found.high) == pytest.approx(expected)


def test_with_many_seeds_the_bootstrap_of_the_mean_is_the_t_interval():
    values = pd.Series(np.random.default_rng(5).normal(size=400))
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = bootstrap_estimate(values, draws=10_000)
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=0.005)


def test_the_bootstrap_refuses_as_the_t_interval_does():
    assert bootstrap_estimate(pd.Series({1: 0.3, 2: np.nan})).method == "1 seed: no interval"
    same = bootstrap_estimate(pd.Series({1: 0.3, 2: 0.3, 3: 0.3}))
    assert same.method == "same in all 3 seeds: no interval"
    assert bootstrap_estimate(pd.Series(dtype=float)).text() == "n/a (no seed)"
    with pytest.raises(LabError, match="seed 1 comes more than once"):
        bootstrap_estimate(pd.Series([0.1, 0.2], index=[1, 1]))


# Seeds and problems resampled


def test_hierarchical_has_the_spread_of_crossed_and_the_skew_of_the_data():
    even = hierarchical_estimate(table(20, 60), draws=10_000)
    crossed = crossed_estimate(table(20, 60))
    half = crossed.high - crossed.value
    assert even.value == crossed.value
    assert (even.low, even.high) == pytest.approx((crossed.low, crossed.high), abs=0.06 * half)
    noise = 0.02 * np.random.default_rng(0).random((6, 20))
    hard = pd.DataFrame(0.9 * 0.5 ** np.arange(20) + noise)
    skewed, crossed = hierarchical_estimate(hard), crossed_estimate(hard)
    assert skewed.low > crossed.low
    assert skewed.high - skewed.value > 1.2 * (skewed.value - skewed.low)


def test_a_hierarchical_difference_is_the_hierarchical_estimate_of_the_differences():
    a, b = table(), table(rng_seed=1)
    found, by_hand = hierarchical_difference(a, b), hierarchical_estimate(a - b)
    assert (found.low, found.high) == pytest.approx((by_hand.low, by_hand.high))


# Interquartile mean


def test_iqm_is_the_mean_of_the_middle_half_and_its_spread_that_of_all_resamples():
    scores = table(4, 3).to_numpy()
    middle = np.sort(scores.ravel())[3:9].mean()
    resamples = [
        np.sort(scores[list(picked)].ravel())[3:9].mean() for picked in product(range(4), repeat=4)
    ]
    expected = math.sqrt(4 / 3) * t(3) * np.std(resamples)
    found = iqm_estimate(table(4, 3), draws=20_000)
    assert found.value == pytest.approx(middle)
    assert found.high - found.value == pytest.approx(expected, rel=0.02)
    assert found.value - found.low == pytest.approx(found.high - found.value)


def test_copies_of_a_task_tell_nothing_new():
    one = table(4, 1)
    copies = pd.DataFrame({f"copy{i}": one["p0"] for i in range(5)})
    once, often = iqm_estimate(one), iqm_estimate(copies)
    assert (often.value, often.low, often.high) == pytest.approx((once.value, once.low, once.high))
