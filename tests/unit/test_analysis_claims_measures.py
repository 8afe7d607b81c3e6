"""The measures of the claims: numbers equal scipy's, and runs that are not whole count as told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from analysis.claims import evaluate_sweeps, load_claims
from analysis.claims.measures import MEASURES
from analysis.load.experiments import MEAN_PROBLEM
from analysis.stats import hierarchical_difference
from cegppo_lab.metrics import ENTROPY, PPO_KL
from cegppo_lab.store import FAILED, RUNNING, STOPPED
from tests.unit.claim_cases import c3, c12, grid, ours, spiky
from tests.unit.claim_runs import BENCHMARK, PROBLEMS, SEEDS, STEPS, arm, sweep

CLAIMS = {claim.id: claim for claim in load_claims()}


def verdict(name, data):
    """The one verdict of a claim on one sweep."""
    (found,) = evaluate_sweeps([data], [CLAIMS[name]])
    return found


def measure(name, arms, **options):
    """A measure on a sweep of these arms."""
    data = sweep("s", arms, spread=options.pop("spread", 0.02))
    return MEASURES[name](data, *data.arms, **options)


def test_the_clearest_contradiction_is_a_bonferroni_interval():
    data = sweep("beta_grid", grid("beta1", "beta2", [0, 0.5, 1], [0.9, 0.4, 0.5]), spread=0.1)
    guard = verdict("C4", data).parts[1].estimate
    low, high = ends(data, 1), ends(data, 2)
    assert guard.value == pytest.approx((high - low).mean())
    expected = stats.ttest_rel(high, low).confidence_interval(1 - 0.05 / 2)
    assert (guard.low, guard.high) == pytest.approx(tuple(expected))


def ends(data, place):
    """End entropies of an arm, by seed."""
    return data.metric(data.arms[place].name, ENTROPY).loc[:, STEPS - 1 :].mean(axis=1)


def test_a_change_is_scipys_interval_of_the_ratio_over_seeds():
    data = sweep("algorithms", [arm("grpo", (0.8, 0.5, 0.3))], spread=0.2)
    table = data.metric(data.arms[0].name, ENTROPY)
    ratios = table.loc[:, [19, 20]].mean(axis=1) / table[1]
    low, high = stats.ttest_1samp(ratios, 0).confidence_interval(0.95)
    found = verdict("C1", data)
    assert (found.estimate, found.low, found.high) == pytest.approx((ratios.mean(), low, high))


def test_an_excursion_counts_though_the_run_comes_back():
    arms = [*c3()[:2], ours(1, 1.8, 1)]
    assert verdict("C3", sweep("algorithms", arms)).parts[0].verdict == "refuted"


def test_one_noisy_step_is_no_excursion():
    blip = [1.0] * 30 + [2.0] + [1.0] * 33
    found = measure("farthest", [arm("a", blip, steps=64)], metric=ENTROPY)
    assert found.value == pytest.approx(1 / 5, abs=0.02)


@pytest.mark.parametrize(("state", "counted"), [(STOPPED, 5), (FAILED, 3), (RUNNING, 3)])
def test_a_stopped_run_counts_with_its_steps_and_an_unfinished_one_does_not(state, counted):
    runs = arm("a", curves={PPO_KL: spiky(1, 9)[::-1]}, stopped=dict.fromkeys(SEEDS[:2], 12))
    found = measure("spike", [replace(runs, state=state)], metric=PPO_KL, spread=0.2)
    assert found.n_seeds == counted
    assert found.value > 7


def test_a_ratio_is_taken_over_the_steps_that_both_runs_have():
    arms = [arm(name, curves={PPO_KL: [1, 9]}) for name in "ab"]
    arms[0] = replace(arms[0], stopped=dict.fromkeys(SEEDS[:3], 8))
    assert measure("ratio", arms, metric=PPO_KL).value == pytest.approx(1, abs=0.05)


def test_a_ratio_and_its_inverse_are_as_far_from_one():
    arms = [arm(name, curves={PPO_KL: [level]}) for name, level in (("a", 1), ("b", 3))]
    found, inverse = (measure("ratio", each, metric=PPO_KL, spread=0.3) for each in
                      (arms, arms[::-1]))  # fmt: skip
    assert found.low < found.value < found.high
    assert (1 / found.value, 1 / found.low) == pytest.approx((inverse.value, inverse.high))


def test_benchmarks_weigh_the_same_whatever_their_number_of_problems():
    arms = [arm("a", (1, 1), accuracy=0.5), arm("b", (1, 1), accuracy=0.4)]
    data = sweep("s", [replace(each, benchmarks=("one", "two")) for each in arms])
    fewer = data.evals[(data.evals["benchmark"] == "one") | (data.evals["problem_id"] == "p0")]
    easy = (fewer["arm"] == arms[0].name) & (fewer["benchmark"] == "two")
    data = replace(data, evals=fewer.assign(correct=fewer["correct"] + 0.3 * easy))
    found = MEASURES["accuracy_difference"](data, *data.arms)
    tables = [
        [data.correctness(each.name, name, STEPS) for name in ("one", "two")] for each in data.arms
    ]
    means = [(one.mean(axis=1) + two["p0"]).to_numpy() / 2 for one, two in tables]
    assert found.value == pytest.approx((means[0] - means[1]).mean())
    assert f"{len(PROBLEMS) + 1} problems" in found.method


@pytest.mark.parametrize(
    "changes", [[{}, {"benchmarks": ("one",)}], [{"evaluated": 10}] * 2, [{}, {"evaluated": 10}]]
)
def test_arms_without_all_the_last_evaluations_are_not_compared(changes):
    arms = [
        replace(arm(name, (1, 1), accuracy=0.5, benchmarks=("one", "two")), **change)
        for name, change in zip("ab", changes, strict=True)
    ]
    found = measure("accuracy_difference", arms)
    assert (found.n_seeds, found.low) == (0, None)
    assert "no evaluation in the last tenth" in found.method


def test_one_benchmark_is_resampled_over_seeds_and_problems():
    data = sweep("s", c12())
    a, b = (data.correctness(each.name, BENCHMARK, STEPS) for each in data.arms)
    assert MEASURES["accuracy_difference"](data, *data.arms) == hierarchical_difference(a, b)


def test_mean_accuracies_will_do_where_no_answers_were_kept():
    common = {"problems": (MEAN_PROBLEM,), "benchmarks": ("aime", "amc")}
    arms = [arm(name, (1, 1), accuracy=level, **common) for name, level in (("a", 0.5), ("b", 0.4))]
    data = sweep("s", arms)
    found = MEASURES["accuracy_difference"](data, *data.arms)
    ends = [data.accuracy(each.name, "aime")[STEPS] for each in data.arms]
    low, high = stats.ttest_rel(*ends).confidence_interval(0.95)
    assert (found.value, found.low, found.high) == pytest.approx((0.1, low, high))
    found = measure("accuracy_difference", [arms[0], replace(arms[1], benchmarks=("aime",))])
    assert found.n_seeds == 0


def test_ends_of_runs_of_different_length_are_not_compared():
    arms = [arm("grpo", (1, 1), accuracy=0.4), arm("dapo", (1, 1), accuracy=0.5, steps=10)]
    data = sweep("s", arms)
    for name, options in (("difference", {"metric": ENTROPY}), ("accuracy_difference", {})):
        found = MEASURES[name](data, *data.arms, **options)
        assert found.low is None
        assert "differ in length (20 and 10 steps)" in found.method
    arms = grid("beta1", "beta2", [0, 1], [0.9, 0.5])
    data = sweep("beta_grid", [arms[0], replace(arms[1], steps=10)])
    assert "differ in length" in verdict("C4", data).reason


def test_what_a_ratio_cannot_be_taken_to_is_left_out():
    data = sweep("s", [arm("grpo", curves={PPO_KL: [-1e-5]})])
    assert np.isnan(MEASURES["spike"](data, data.arms[0], metric=PPO_KL).value)
