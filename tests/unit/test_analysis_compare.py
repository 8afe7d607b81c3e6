"""Tests between arms: against scipy, statsmodels and full enumeration."""

from __future__ import annotations

import math
import warnings
from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from analysis.stats import (
    best_of,
    compare,
    holm,
    paired_difference,
    permutation_p,
    permutation_p_problems,
    probability_of_improvement,
    smallest_p,
)
from cegppo_lab.errors import LabError


@pytest.fixture(autouse=True)
def _no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def seeds(*values: float, first: int = 11) -> pd.Series:
    return pd.Series(values, index=range(first, first + len(values)), dtype=float)


def arms(count: int = 4, n: int = 6) -> dict[str, pd.Series]:
    rng = np.random.default_rng(2)
    common = rng.normal(size=n)
    return {f"arm{i}": seeds(*(common + 0.6 * i + rng.normal(size=n))) for i in range(count)}


# Permutation tests


def test_three_seeds_that_agree_in_sign_give_a_quarter():
    assert permutation_p(seeds(1, 2, 3), seeds(0, 0, 0)) == 0.25 == smallest_p(3)


@pytest.mark.parametrize("n", [2, 6, 10])
def test_sign_flips_are_all_enumerated(n):
    rng = np.random.default_rng(n)
    a, b = seeds(*rng.normal(0.5, 1, n)), seeds(*rng.normal(0, 1, n))
    difference = (a - b).to_numpy()
    sums = np.array([np.dot(signs, difference) for signs in product([-1, 1], repeat=n)])
    expected = np.mean(np.abs(sums) >= abs(difference.sum()) - 1e-9)
    assert permutation_p(a, b) == pytest.approx(expected)
    assert permutation_p(b, a) == pytest.approx(expected)
    assert permutation_p(a.iloc[::-1], b) == pytest.approx(expected)


def test_many_seeds_are_flipped_at_random_and_repeatably():
    rng = np.random.default_rng(0)
    a, b = seeds(*rng.normal(0.45, 1, 30)), seeds(*np.zeros(30))
    p = permutation_p(a, b)
    assert permutation_p(a, b) == permutation_p(a.iloc[::-1], b) == p
    assert permutation_p(a, b, rng_seed=1) != p
    assert p == pytest.approx(stats.ttest_1samp(a, 0).pvalue, rel=0.3)
    assert permutation_p(a + 9, b) == pytest.approx(2 / 10_000)  # never 0


def test_only_shared_seeds_count_and_fewer_than_two_give_none():
    a, b = seeds(1, 2, 3, np.nan, 5), seeds(7, 0, 0, 0, first=10)
    assert permutation_p(a, b) == permutation_p(seeds(1, 2, 3), seeds(0, 0, 0))
    assert math.isnan(permutation_p(seeds(1), seeds(2)))
    assert math.isnan(permutation_p(seeds(1, 2), seeds(1, 2, first=90)))
    assert permutation_p(seeds(0.3, 0.4), seeds(0.3, 0.4)) == 1.0


def test_problems_are_flipped_after_the_seeds_are_averaged():
    rng = np.random.default_rng(1)
    a, b = (pd.DataFrame(rng.random((3, 8)), index=[1, 2, i]) for i in (3, 4))
    shared = permutation_p(a.loc[[1, 2]].mean(), b.loc[[1, 2]].mean())
    assert permutation_p_problems(a, b) == pytest.approx(shared)
    assert not math.isnan(permutation_p_problems(a.loc[[1]], b.loc[[1]]))
    assert math.isnan(permutation_p_problems(a.loc[[3]], b))
    assert math.isnan(permutation_p_problems(a[[0]], b[[0]]))
    assert permutation_p_problems(a, a.rename(index={3: 9})) == 1.0


def test_the_two_tests_answer_different_questions():
    # Training with either arm is the same; each policy came out a little better or worse.
    rng = np.random.default_rng(3)
    of_seeds, of_problems = [], []
    for _ in range(150):
        a, b = (pd.DataFrame(rng.normal(0, 0.1, (6, 1)) + rng.normal(0, 0.1, (6, 8))) for _ in "ab")
        of_seeds.append(permutation_p(a.mean(axis=1), b.mean(axis=1)))
        of_problems.append(permutation_p_problems(a, b))
    assert np.mean(np.array(of_seeds) <= 0.05) < 0.08
    assert np.mean(np.array(of_problems) <= 0.05) > 0.3


def test_the_smallest_p_is_two_patterns_of_all():
    assert [smallest_p(n) for n in (1, 2, 6)] == [1, 0.5, 2 / 64]
    with pytest.raises(LabError, match="n=0 was asked for"):
        smallest_p(0)


# Holm


def test_holm_by_hand_and_without_the_tests_that_were_not_made():
    found = holm({"a": 0.01, "none": math.nan, "b": 0.04, "c": 0.03})
    assert {k: v for k, v in found.items() if k != "none"} == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06}
    )
    assert math.isnan(found["none"])
    assert list(found) == ["a", "none", "b", "c"]
    assert holm({}) == {}


def test_holm_is_statsmodels():
    rng = np.random.default_rng(0)
    for size in (1, 2, 7, 30):
        p = np.append(rng.random(size) ** 3, [0.0, 1.0, 0.2, 0.2])
        names = [f"arm{i}" for i in range(p.size)]
        found = holm(dict(zip(names, p, strict=True)))
        assert list(found.values()) == pytest.approx(multipletests(p, method="holm")[1])


@pytest.mark.parametrize("p", [-0.1, 1.5])
def test_holm_refuses_what_is_no_p(p):
    with pytest.raises(LabError, match=r"p of 'a' is .*allowed: 0 to 1"):
        holm({"a": p})


# Probability of improvement


def test_improvement_counts_pairs_and_half_the_ties():
    found = probability_of_improvement(seeds(1, 2, 3), seeds(2, 0, first=90))
    assert found.value == pytest.approx((0 + 1 + 0.5 + 1 + 1 + 1) / 6)
    assert (found.n_seeds, found.method) == (2, "95% score interval over 3 x 2 seeds")
    u = stats.mannwhitneyu(seeds(1, 2, 3), seeds(2, 0)).statistic
    assert found.value == pytest.approx(u / 6)


@pytest.mark.parametrize(("m", "n"), [(6, 6), (4, 9)])
def test_its_ends_solve_newcombes_equation(m, n):
    # Newcombe's own form of the variance of method 5, with the mean size N
    rng = np.random.default_rng(0)
    found = probability_of_improvement(seeds(*rng.normal(0.5, 1, m)), seeds(*rng.normal(size=n)))
    mean_size = (m + n) / 2
    for end in (found.low, found.high):
        inner = 2 * mean_size - 1 - (3 * mean_size - 3) / ((2 - end) * (1 + end))
        error = math.sqrt(end * (1 - end) * inner / (m * n))
        assert abs(found.value - end) == pytest.approx(stats.norm.ppf(0.975) * error)
    assert 0 < found.low < found.value < found.high < 1


def test_entire_separation_is_not_certainty():
    better = probability_of_improvement(seeds(5, 6, 7, 8), seeds(1, 2, 3, 4))
    assert (better.value, better.high) == (1, 1)
    assert 0.4 < better.low < 0.9
    worse = probability_of_improvement(seeds(1, 2, 3, 4), seeds(5, 6, 7, 8))
    assert (worse.value, worse.low) == (0, 0)
    assert worse.high == pytest.approx(1 - better.low)


def test_improvement_over_one_seed_is_refused():
    assert probability_of_improvement(seeds(1), seeds(0, 2)).method == "1 seed: no interval"
    assert math.isnan(probability_of_improvement(seeds(), seeds(0, 2)).value)


# All arms against one


def test_every_arm_against_the_reference_is_scipys():
    values = arms()
    values["arm3"] = values["arm3"].drop(12)
    found = compare(values, "arm1")
    assert [c.name for c in found] == ["arm0", "arm2", "arm3"]
    for c in found:
        shared = values[c.name].index
        pair = values[c.name], values["arm1"][shared]
        assert c.p_t == pytest.approx(stats.ttest_rel(*pair).pvalue)
        assert c.p_permutation == pytest.approx(permutation_p(*pair))
        expected = paired_difference(*pair)
        assert (c.difference.low, c.difference.high) == pytest.approx((expected.low, expected.high))
        assert (c.difference.method, c.n_seeds) == (expected.method, len(shared))
        assert c.improvement == probability_of_improvement(values[c.name], values["arm1"])
    for kind in ("p_t", "p_permutation"):
        adjusted = multipletests([getattr(c, kind) for c in found], method="holm")[1]
        assert [getattr(c, f"{kind}_holm") for c in found] == pytest.approx(adjusted)


def test_the_order_of_arms_and_seeds_changes_nothing():
    values = arms()
    turned = {name: values[name].iloc[::-1] for name in reversed(values)}
    found = {c.name: c for c in compare(values, "arm1")}
    assert {c.name: c for c in compare(turned, "arm1")} == found
    assert best_of(turned)[0] == best_of(values)[0]
    assert sorted(best_of(turned)[1]) == sorted(best_of(values)[1])


def test_what_was_not_measured_has_no_p():
    base = seeds(0.1, 0.2, 0.4)
    equal, shifted, one, none = compare(
        {"base": base, "equal": base, "shifted": base + 0.1, "one": seeds(0.5), "none": seeds()},
        "base",
    )
    assert math.isnan(equal.p_t)
    assert (equal.p_permutation, equal.difference.value, equal.improvement.value) == (1, 0, 0.5)
    assert math.isnan(shifted.p_t)
    assert shifted.difference.low is None  # the differences differ in the last bit only
    assert shifted.p_permutation == 0.25
    for c, count in ((one, 1), (none, 0)):
        assert math.isnan(c.p_t)
        assert math.isnan(c.p_permutation_holm)
        assert (c.n_seeds, c.difference.low, c.improvement.low) == (count, None, None)


def test_an_unknown_reference_is_told_with_the_nearest():
    with pytest.raises(LabError, match="unknown arm 'arm9'"):
        compare(arms(), "arm9")


# The best


def test_the_best_and_those_that_are_not_worse():
    rng = np.random.default_rng(0)
    common = rng.normal(size=8)
    values = {
        "bad": seeds(*(common - 5 + rng.normal(0, 0.5, 8))),
        "close": seeds(*(common - 0.3 + rng.normal(0, 0.5, 8))),
        "best": seeds(*(common + rng.normal(0, 0.5, 8))),
        "lonely": seeds(-100),
        "strange": seeds(-100, -101, -100, first=90),
    }
    assert best_of(values) == ("best", ["close", "lonely", "strange"])


def test_holm_decides_what_is_worse_than_the_best():
    # p = 0.03 alone is worse than the best; among three it is not
    best, near = seeds(0, 0, 0, 0, 0), seeds(-1, -2, -0.4, -3.2, -1.7)
    p = stats.ttest_rel(best, near).pvalue
    assert 0.02 < p < 0.05
    assert best_of({"best": best, "near": near}) == ("best", [])
    flat = {name: seeds(-1, 0.9, -1, 1, 0) for name in ("flat", "also")}
    assert best_of({"best": best, "near": near, **flat}) == ("best", ["near", "flat", "also"])


def test_of_equal_means_the_first_is_best_and_nobody_at_all_is_told():
    assert best_of({"a": seeds(1, 2), "b": seeds(2, 1), "c": seeds()}) == ("a", ["b", "c"])
    with pytest.raises(LabError, match=r"no value in any of the arms \['a'\]"):
        best_of({"a": seeds(np.nan)})
