"""avg@k, pass@k and maj@k equal closed forms and enumerations; their intervals cover."""

from __future__ import annotations

from itertools import combinations, product
from math import comb

import numpy as np
import pandas as pd
import pytest
from scipy import special, stats

from analysis.stats import (
    Estimate,
    average_estimate,
    compare_on_problems,
    majority,
    pass_at,
    pass_at_k,
    per_problem,
    powers_up_to,
    problem_estimate,
)
from cegppo_lab.errors import LabError


def samples_of(scores, answers=None, length=7, truncated=False):
    """Rows of responses from {problem: [score, ...]}."""
    rows = [
        {"problem": problem, "sample": i, "correct": score, "length": length + i,
         "answer": answers[problem][i] if answers else str(score), "truncated": truncated}
        for problem, own in scores.items()
        for i, score in enumerate(own)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_pass_at_k_is_the_mean_over_all_subsets_of_k_samples():
    for n in range(1, 8):
        for c in range(n + 1):
            verdicts = [1] * c + [0] * (n - c)
            found = pass_at_k([n], [c])[0]
            for k in range(1, n + 1):
                subsets = [max(subset) for subset in combinations(verdicts, k)]
                assert found[k - 1] == pytest.approx(np.mean(subsets), abs=1e-12)
                assert found[k - 1] == pytest.approx(1 - comb(n - c, k) / comb(n, k), abs=1e-12)


def test_pass_at_k_is_exact_at_the_ends_and_stable_for_many_samples():
    assert pass_at_k([4, 4], [0, 4]).tolist() == [[0, 0, 0, 0], [1, 1, 1, 1]]
    n, c, k = 100_000, 3, 20_000
    exact = 1 - float(np.exp(
        special.gammaln(n - c + 1) - special.gammaln(n - c - k + 1)
        - special.gammaln(n + 1) + special.gammaln(n - k + 1)
    ))  # fmt: skip
    assert pass_at_k([n], [c])[0, k - 1] == pytest.approx(exact, rel=1e-6)
    assert pass_at_k([n], [n - k + 1])[0, k - 1] == 1


def test_problems_with_unequal_counts_have_pass_at_k_up_to_the_fewest():
    found = pass_at_k([2, 5], [1, 1])
    assert found.shape == (2, 2)
    assert found[1, 1] == pytest.approx(1 - comb(4, 2) / comb(5, 2))


def test_pass_at_k_has_the_beta_binomial_expectation():
    """Chance p ~ beta(a, b): pass@k is 1 - E[(1-p)^k] = 1 - B(a, b+k)/B(a, b), whatever n."""
    a, b, n = 0.7, 2.0, 6
    right = np.arange(n + 1)
    weights = stats.betabinom(n, a, b).pmf(right)
    found = pass_at_k(np.full(n + 1, n), right)
    for k in range(1, n + 1):
        expected = 1 - special.beta(a, b + k) / special.beta(a, b)
        assert weights @ found[:, k - 1] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("samples", "right"), [([0], [0]), ([3], [4]), ([3], [-1]), ([], [])])
def test_impossible_counts_are_refused(samples, right):
    with pytest.raises(LabError, match="at least 1 sample"):
        pass_at_k(samples, right)


def test_the_k_of_a_curve_are_powers_of_two_and_all_samples():
    assert [powers_up_to(n) for n in (1, 2, 5, 32)] == [
        [1], [1, 2], [1, 2, 4, 5], [1, 2, 4, 8, 16, 32],
    ]  # fmt: skip


def brute_force_majority(answers, scores):
    """Every tie-break equally likely, every response with the answer picked equally likely."""
    counts = {a: answers.count(a) for a in answers if a is not None}
    tops = [a for a in counts if counts[a] == max(counts.values())]
    outcomes = [np.mean([s for x, s in zip(answers, scores, strict=True) if x == top])
                for top in tops]  # fmt: skip
    return float(np.mean(outcomes)) if outcomes else 0.0


def test_majority_is_the_expectation_over_tie_breaks():
    scores = {"a": 1.0, "b": 0.0, "c": 0.5, None: 0.0}
    for n in range(1, 6):
        for answers in product(scores, repeat=n):
            own = [scores[answer] for answer in answers]
            assert majority(list(answers), own) == pytest.approx(
                brute_force_majority(list(answers), own)
            )


def test_no_answer_has_no_vote_even_where_it_is_the_commonest():
    assert majority([None, None, None, "x"], [0.0, 0.0, 0.0, 1.0]) == 1.0
    assert majority([float("nan"), None], [0.0, 0.0]) == 0.0
    assert majority(["x", "y"], [1.0, 0.0]) == 0.5


def test_a_partial_score_counts_for_avg_and_not_for_pass():
    table = per_problem(samples_of({"p": [0.5, 1.0], "q": [0.5, 0.75]}))
    assert table["avg"].tolist() == [0.75, 0.625]
    assert table["right"].tolist() == [1, 0]
    assert pass_at(table, 1).tolist() == [0.5, 0.0]
    assert pass_at(table, 2).tolist() == [1.0, 0.0]


def test_a_problem_has_its_means_whatever_the_others_have():
    scores = {"p": [1.0, 0.0, 0.0], "q": [1.0]}
    table = per_problem(samples_of(scores, {"p": ["1", "2", "2"], "q": ["5"]}, truncated=True))
    assert table.index.tolist() == ["p", "q"]
    assert table["avg"].tolist() == pytest.approx([1 / 3, 1])
    assert table["maj"].tolist() == [0.0, 1.0]
    assert table["length"].tolist() == [8.0, 7.0]
    assert table["truncated"].tolist() == [1.0, 1.0]


def test_the_interval_is_students_over_problem_means():
    values = [0.25, 0.5, 1.0, 0.0, 0.75]
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = problem_estimate(values)
    assert (found.value, found.low, found.high) == pytest.approx((0.5, low, high))
    assert (found.n_seeds, found.method) == (5, "95% t interval over 5 problems")


def test_all_right_or_all_wrong_has_the_exact_interval_and_other_agreement_none():
    none, every = problem_estimate([0.0] * 20), problem_estimate([1.0] * 20)
    assert (none.value, none.low, none.high) == pytest.approx((0, 0, 1 - 0.025 ** (1 / 20)))
    assert (every.value, every.low, every.high) == pytest.approx((1, 0.025 ** (1 / 20), 1))
    assert none.method == "95% Clopper-Pearson interval over 20 problems"
    half = problem_estimate([0.5] * 4)
    assert (half.value, half.low, half.method) == (0.5, None, "same in all 4 problems: no interval")


def test_one_problem_has_no_interval():
    for value in (0.0, 0.4, 1.0):
        found = problem_estimate([value])
        assert (found.value, found.low, found.method) == (value, None, "1 problem: no interval")
    assert np.isnan(problem_estimate([]).value)


def test_an_average_adds_distances_in_squares_and_is_refused_where_a_part_is():
    parts = [Estimate(0.4, 0.1, 0.6, 30, ""), Estimate(0.0, 0.0, 0.2, 20, "")]
    found = average_estimate(parts)
    assert (found.value, found.low) == pytest.approx((0.2, 0.2 - 0.3 / 2))
    assert found.high == pytest.approx(0.2 + np.hypot(0.2, 0.2) / 2)
    assert found.n_seeds == 50
    refused = average_estimate([*parts, problem_estimate([0.5])])
    assert (refused.value, refused.low) == (pytest.approx(0.3), None)
    assert np.isnan(average_estimate([*parts, problem_estimate([])]).value)


def test_a_difference_is_paired_over_shared_problems():
    a = pd.Series({"p": 1.0, "q": 0.5, "r": 0.75, "only a": 0.0})
    b = pd.Series({"r": 0.0, "q": 0.5, "p": 0.25, "only b": 1.0})
    (found,) = compare_on_problems({"b": b, "a": a}, "b")
    low, high = stats.ttest_rel([1, 0.5, 0.75], [0.25, 0.5, 0]).confidence_interval(0.95)
    assert (found.difference.value, found.difference.low, found.difference.high) == pytest.approx(
        (0.5, low, high)
    )
    flips = [np.mean(np.array(signs) * [0.75, 0, 0.75]) for signs in product([1, -1], repeat=3)]
    assert found.p == pytest.approx(np.mean([abs(flip) >= 0.5 for flip in flips]))


def test_p_values_are_corrected_over_the_policies_and_equal_policies_have_p_1():
    rng = np.random.default_rng(1)
    base = pd.Series(rng.random(12))
    near = pd.Series(rng.random(12))
    values = {"base": base, "far": base + 1 + near, "near": near, "same": base}
    found = {c.name: c for c in compare_on_problems(values, "base")}
    assert list(found) == ["far", "near", "same"]
    assert found["far"].p == pytest.approx(2 / 2**12)
    assert found["far"].p_holm == pytest.approx(3 * found["far"].p)
    assert found["same"].p == found["same"].p_holm == 1
    assert found["same"].difference.method == "same in all 12 problems: no interval"
    with pytest.raises(LabError, match="unknown policy"):
        compare_on_problems(values, "bass")


def test_a_comparison_without_shared_problems_has_no_number():
    (found,) = compare_on_problems({"a": pd.Series({"p": 1.0}), "b": pd.Series({"q": 1.0})}, "a")
    assert np.isnan([found.difference.value, found.p, found.p_holm]).all()
    one = compare_on_problems({"a": pd.Series({"p": 1.0}), "b": pd.Series({"p": 0.0})}, "a")[0]
    assert (one.difference.value, one.difference.low) == (-1, None)


@pytest.mark.parametrize(("a", "b", "problems", "least"), [(2, 2, 20, 0.93), (0.5, 1, 30, 0.92)])
def test_intervals_cover_the_mean_of_the_benchmarks_population(a, b, problems, least):
    """Scores of 4 samples a problem whose chance is beta(a, b): the mean is a / (a + b)."""
    rng, hits, trials = np.random.default_rng(3), 0, 800
    for _ in range(trials):
        found = problem_estimate(rng.binomial(4, rng.beta(a, b, problems)) / 4)
        hits += found.low <= a / (a + b) <= found.high
    assert least <= hits / trials <= 0.975


def test_the_interval_of_pass_at_k_covers_and_so_does_that_of_an_average():
    rng, trials = np.random.default_rng(4), 500
    shapes = [(2.0, 2.0, 30), (0.5, 1.0, 30), (0.02, 1.0, 20)]  # the last one often has no success
    truth = np.array([1 - special.beta(a, b + 2) / special.beta(a, b) for a, b, _ in shapes])
    hits = np.zeros(2)
    for _ in range(trials):
        parts = [
            problem_estimate(pass_at_k(np.full(m, 8), rng.binomial(8, rng.beta(a, b, m)))[:, 1])
            for a, b, m in shapes
        ]
        whole = average_estimate(parts)
        hits += parts[0].low <= truth[0] <= parts[0].high, whole.low <= truth.mean() <= whole.high
    assert ((hits / trials >= 0.93) & (hits / trials <= 0.985)).all(), hits / trials
