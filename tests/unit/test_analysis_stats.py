"""Intervals over seeds: scipy's own, and what they cover when the truth is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.stats import Estimate, mean_curve, mean_estimate, paired_difference


def test_the_interval_is_scipys_t_interval():
    values = [0.15, 0.45, 0.25, 0.30]
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    estimate = mean_estimate(values)
    assert (estimate.value, estimate.n_seeds) == (pytest.approx(np.mean(values)), 4)
    assert (estimate.low, estimate.high) == pytest.approx(tuple(expected))


def test_a_curve_is_the_estimate_at_every_step_with_the_seeds_it_has():
    table = np.random.default_rng(0).normal(size=(5, 20))
    table[3, 12:] = np.nan
    table[1:, 19] = np.nan
    curve = mean_curve(table)
    for step in range(20):
        alone = mean_estimate(table[:, step])
        assert curve.mean[step] == pytest.approx(alone.value)
        assert curve.n_seeds[step] == alone.n_seeds
        bounds = (np.nan, np.nan) if alone.low is None else (alone.low, alone.high)
        assert (curve.low[step], curve.high[step]) == pytest.approx(bounds, nan_ok=True)
    assert np.isnan(curve.low[19])


@pytest.mark.parametrize("seeds", [2, 3, 6])
def test_the_interval_covers_the_truth_in_95_of_100_sweeps(seeds):
    sweeps = np.random.default_rng(1).normal(0.5, 0.1, size=(seeds, 10_000))
    curve = mean_curve(sweeps)
    assert np.mean((curve.low <= 0.5) & (curve.high >= 0.5)) == pytest.approx(0.95, abs=0.01)


def test_one_seed_gets_no_interval_and_says_so():
    estimate = mean_estimate([0.63])
    assert (estimate.low, estimate.high) == (None, None)
    assert estimate.text(2) == "0.63 (1 seed: no interval)"
    assert not estimate.excludes_zero


def test_seeds_that_agree_to_the_bit_do_not_claim_certainty():
    estimate = mean_estimate([2 / 3, 2 / 3, 2 / 3])
    assert estimate.low is None
    assert "same in all 3 seeds" in estimate.text()


def test_no_seed_is_not_a_number():
    assert mean_estimate([np.nan, np.inf]).text() == "n/a (no seed)"


def test_a_paired_difference_is_scipys_over_shared_seeds():
    arm = pd.Series({11: 0.5, 12: 0.7, 13: 0.9, 14: 0.1})
    reference = pd.Series({13: 0.6, 12: 0.5, 11: 0.2, 99: 5.0})
    estimate = paired_difference(arm, reference)
    shared = [11, 12, 13]
    expected = stats.ttest_rel(arm[shared], reference[shared]).confidence_interval(0.95)
    assert estimate.n_seeds == 3
    assert (estimate.low, estimate.high) == pytest.approx(tuple(expected))
    assert estimate.excludes_zero == (expected.low > 0)


def test_without_a_shared_seed_there_is_no_difference():
    assert paired_difference(pd.Series({1: 0.1}), pd.Series({2: 0.2})).n_seeds == 0


def test_an_interval_is_cut_to_the_range_but_the_value_stays():
    cut = Estimate(0.9, 0.7, 1.1, 3, "t").within(0, 1)
    assert (cut.value, cut.low, cut.high) == (0.9, 0.7, 1)
    assert Estimate(0.9, None, None, 1, "t").within(0, 1).low is None


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(0.2, 0.1, 0.3, 3, ""), "+0.2 [0.1, 0.3]"),
        (Estimate(-0.001, -0.3, 0.3, 3, ""), "0.0 [-0.3, 0.3]"),
    ],
)
def test_differences_show_their_sign_and_no_minus_zero(estimate, text):
    assert estimate.text(1, signed=True) == text
