"""How many seeds a question needs, and whether a quantity follows a level."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from analysis.stats import (
    SeedsNeeded,
    mean_estimate,
    page_p,
    seeds_for_permutation,
    seeds_needed,
    slope_estimate,
    smallest_p,
)
from cegppo_lab.errors import LabError


def seeds(*values: float, first: int = 1) -> pd.Series:
    return pd.Series(values, index=range(first, first + len(values)), dtype=float)


# Seeds needed


@pytest.mark.parametrize("power", [0.5, 0.8, 0.95])
def test_the_seeds_are_the_fewest_with_the_power(power):
    differences = seeds(0.1, 0.35, -0.2, 0.3)
    for wanted in np.geomspace(0.05, 1, 40):
        effect = wanted / differences.std()
        solved = TTestPower().solve_power(effect, alpha=0.05, power=power)
        assert seeds_needed(differences, wanted, power).value == max(2, math.ceil(solved))
        assert seeds_needed(differences, -wanted, power).value == max(2, math.ceil(solved))


def test_low_and_high_are_those_of_the_standard_deviation():
    differences, wanted = seeds(0.1, 0.35, -0.2, 0.3), 0.1
    found = seeds_needed(differences, wanted)
    sum_of_squares = 3 * differences.var()
    for bound, tail in ((found.low, 0.975), (found.high, 0.025)):
        sd = math.sqrt(sum_of_squares / stats.chi2.ppf(tail, 3))
        assert bound == math.ceil(TTestPower().solve_power(wanted / sd, alpha=0.05, power=0.8))
    assert found.low < found.value < found.high
    assert found.text == (
        f"to detect 0.1 with 80 % power: {found.value} seeds ({found.low} to {found.high})"
    )


def test_only_the_spread_counts_not_the_mean_nor_the_order():
    base = seeds(0.1, 0.35, -0.2, 0.3, np.nan)
    assert seeds_needed(base + 7, 0.1) == seeds_needed(base.iloc[::-1], 0.1)


@pytest.mark.parametrize("power", [0.06, 0.8, 0.999])
def test_an_effect_of_any_size_has_its_number(power):
    counts = [
        seeds_needed(seeds(0, 1, 2), effect, power).value for effect in np.logspace(-4, 4, 33)
    ]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == 2


def test_one_seed_or_no_spread_gives_no_number_but_the_reason():
    one = seeds_needed(seeds(0.1, np.nan), 0.1)
    assert one == SeedsNeeded(None, None, None, "1 seed: the spread over seeds is not known")
    assert seeds_needed(seeds(), 0.1).text.startswith("no seed: ")
    same = seeds_needed(seeds(0.1, 0.3 - 0.2, 0.1), 0.1)
    assert (same.value, same.low, same.high) == (None, None, None)
    assert same.text.startswith("same in all 3 seeds")


@pytest.mark.parametrize("wanted", [0, math.nan, math.inf])
def test_a_difference_that_cannot_be_wanted_is_told(wanted):
    with pytest.raises(LabError, match=r"wanted=.*smallest difference that matters"):
        seeds_needed(seeds(0.1, 0.2), wanted)


@pytest.mark.parametrize("power", [0.05, 1, 80])
def test_a_power_that_cannot_be_is_told(power):
    with pytest.raises(LabError, match=r"power=.*below 1"):
        seeds_needed(seeds(0.1, 0.2), 0.1, power)


def test_the_permutation_test_needs_seeds_to_say_anything():
    assert [seeds_for_permutation(k) for k in (1, 2, 6, 21)] == [6, 7, 8, 10]
    for comparisons in range(1, 40):
        n = seeds_for_permutation(comparisons)
        assert smallest_p(n) * comparisons <= 0.05 < smallest_p(n - 1) * comparisons
    with pytest.raises(LabError, match="comparisons=0 was given"):
        seeds_for_permutation(0)


# Trends


def grid(noise: float = 0.1, n: int = 4) -> dict[float, pd.Series]:
    rng = np.random.default_rng(0)
    start = rng.normal(size=n)
    return {
        level: seeds(*(start - 0.4 * level + noise * rng.normal(size=n)))
        for level in (0.5, 0.0, 1.0, 0.25)
    }


def test_the_slope_is_the_mean_of_every_seeds_own_line():
    values = grid()
    values[1.0] = values[1.0].drop(2)
    levels = sorted(values)
    slopes = [
        stats.linregress(levels, [values[level][seed] for level in levels]).slope
        for seed in (1, 3, 4)
    ]
    expected = mean_estimate(slopes)
    found = slope_estimate(values)
    assert (found.value, found.low, found.high) == pytest.approx(
        (expected.value, expected.low, expected.high)
    )
    assert (found.n_seeds, found.method) == (3, "95% t interval over the slopes of 3 seeds")


def test_a_slope_refuses_as_a_mean_does():
    assert slope_estimate({0: seeds(1), 1: seeds(2)}).method == "1 seed: no interval"
    assert slope_estimate({0: seeds(1), 1: seeds(2, first=9)}).text().startswith("n/a")
    flat = slope_estimate({x: seeds(0.1, 0.7, 0.3) for x in (0, 0.1, 0.7)})  # 0 but for rounding
    assert (flat.value, flat.low) == (0, None)


def test_pages_test_is_scipys_in_the_direction_asked():
    values = grid()
    table = np.column_stack([values[level] for level in sorted(values)])
    expected = stats.page_trend_test(table[:, ::-1], method="exact").pvalue
    assert page_p(values, decreasing=True) == pytest.approx(expected)
    assert expected < 0.001
    assert page_p(values, decreasing=False) > 0.99
    assert page_p(dict(reversed(values.items())), decreasing=True) == pytest.approx(expected)
    one = {level: arm.iloc[:1] for level, arm in values.items()}
    assert math.isnan(page_p(one, decreasing=True))


def test_levels_that_make_no_trend_are_told():
    with pytest.raises(LabError, match=r"1 level.*at least 2"):
        slope_estimate({1: seeds(1, 2)})
    with pytest.raises(LabError, match=r"2 level.*at least 3"):
        page_p({1: seeds(1, 2), 2: seeds(1, 2)}, decreasing=True)
    with pytest.raises(LabError, match="not all finite"):
        slope_estimate({1: seeds(1, 2), math.inf: seeds(1, 2)})
    with pytest.raises(LabError, match="seed 1 comes more than once"):
        slope_estimate({1: pd.Series([1, 2], index=[1, 1]), 2: seeds(1, 2)})
