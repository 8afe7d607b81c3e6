"""Verdicts: every claim can hold, be refuted by each of its parts, stay open and be untested."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from analysis.claims import evaluate_sweeps, load_claims
from tests.unit.claim_cases import CASES, ours
from tests.unit.claim_runs import SEEDS, arm, sweep, without

CLAIMS = {claim.id: claim for claim in load_claims()}
IDS = sorted(CASES, key=lambda name: int(name[1:]))
REFUTING = [(name, place) for name in IDS for place in range(len(CASES[name].refuting))]
WHERE_METRICS = [(name, metric) for name in IDS for metric in
                 sorted({part.options().get("metric") for part in CLAIMS[name].parts} - {None})
                 ]  # fmt: skip


def verdict(name, data):
    """The one verdict of a claim on one sweep."""
    (found,) = evaluate_sweeps([data], [CLAIMS[name]])
    return found


@pytest.mark.parametrize("name", IDS)
def test_a_claim_holds_where_all_its_parts_do(name):
    found = verdict(name, CASES[name].data())
    assert found.verdict == "holds"
    assert found.sentence == "holds at embedded scale"
    assert {part.verdict for part in found.parts} == {"holds"}
    assert len(found.parts) == len(CLAIMS[name].parts)
    assert found.low < found.estimate < found.high
    assert found.n_seeds == len(SEEDS)


@pytest.mark.parametrize(("name", "place"), REFUTING)
def test_each_part_alone_refutes_the_claim(name, place):
    case = CASES[name]
    assert len(case.refuting) == len(CLAIMS[name].parts)
    found = verdict(name, case.data(**case.refuting[place]))
    assert found.verdict == "refuted"
    assert found.sentence == "does not hold at embedded scale"
    assert found.parts[place].verdict == "refuted"
    first = next(part for part in found.parts if part.verdict == "refuted")
    assert (found.estimate, found.low) == (first.estimate.value, first.estimate.low)


@pytest.mark.parametrize("name", IDS)
def test_a_claim_stays_open_where_the_seeds_do_not_decide(name):
    found = verdict(name, CASES[name].undecided())
    assert found.verdict == "inconclusive"
    assert found.sentence.startswith("undecided at embedded scale")
    part = next(part for part in found.parts if part.verdict == "inconclusive")
    assert found.low <= part.threshold <= found.high
    assert found.evidence == part.text


@pytest.mark.parametrize("name", IDS)
def test_one_seed_tests_nothing(name):
    found = verdict(name, CASES[name].data(seeds=[7]))
    assert found.verdict == "untested"
    assert "1 seed: no interval" in found.reason
    assert math.isnan(found.low)
    assert found.n_seeds == 1
    assert found.sweep == CASES[name].sweep


@pytest.mark.parametrize("name", IDS)
def test_a_missing_sweep_is_named_with_what_to_type(name):
    (found,) = evaluate_sweeps([], [CLAIMS[name]])
    assert (found.verdict, found.trials, found.parts) == ("untested", [], [])
    assert found.reason == (
        f"there is no sweep {' or '.join(CLAIMS[name].sweeps)}; "
        f"type: python -m cegppo_lab sweep {CLAIMS[name].sweeps[0]}"
    )


@pytest.mark.parametrize(("name", "metric"), WHERE_METRICS)
def test_a_metric_that_no_run_has_is_named(name, metric):
    case = CASES[name]
    found = verdict(name, sweep(case.sweep, without(case.build(), metric)))
    assert found.verdict == "untested"
    assert "no run of" in found.reason
    assert f"has logged {metric}" in found.reason


@pytest.mark.parametrize("name", ["C6", "C11", "C12"])
def test_accuracies_that_nobody_measured_are_told(name):
    case = CASES[name]
    arms = [replace(each, accuracy=None) for each in case.build()]
    found = verdict(name, sweep(case.sweep, arms))
    assert found.verdict == "untested"
    assert "no evaluation" in found.reason


def test_an_untested_part_does_not_save_a_claim_that_another_refutes():
    arms = without(CASES["C13"].build(time=1.3), "actor/perf/max_memory_allocated_gb")
    found = verdict("C13", sweep("algorithms", arms))
    assert [part.verdict for part in found.parts] == ["refuted", "holds", "untested", "untested"]
    assert found.verdict == "refuted"


@pytest.mark.parametrize(("lost", "expected"), [(2, "holds"), (3, "untested")])
def test_seeds_that_ended_early_are_counted_and_at_least_half_must_be_left(lost, expected):
    stopped = dict.fromkeys(SEEDS[:lost], 12)
    found = verdict("C1", sweep("algorithms", [arm("grpo", (1, 0.2), stopped=stopped)]))
    left = len(SEEDS) - lost
    assert found.verdict == expected
    assert found.n_seeds == left
    assert f"{left} of {len(SEEDS)} planned seeds" in found.parts[0].text
    assert ("differ" if left > 2 else "mislead") in found.parts[0].text


def test_a_tie_between_neighbours_is_not_against_a_trend_and_decides_nothing():
    found = verdict("C4", CASES["C4"].data(ends=(1.1, 0.8, 0.8, 0.5, 0.3)))
    slope, guard = found.parts
    assert guard.estimate.low < 0 < guard.estimate.high
    assert (found.verdict, guard.verdict) == ("holds", "holds")
    assert found.evidence == slope.text
    assert "not surely above 0" in guard.text


@pytest.mark.parametrize(("dapo", "nearest"), [(0.7, 0), (0.3, 1)])
def test_a_claim_that_holds_is_told_by_the_part_nearest_its_threshold(dapo, nearest):
    found = verdict("C6", CASES["C6"].data(dapo=dapo, grpo=0.2))
    assert found.evidence == found.parts[nearest].text


@pytest.mark.parametrize(
    ("scale", "numbers", "sentence"),
    [
        ("embedded", {}, "holds at embedded scale"),
        ("GPU", {}, "holds at GPU scale"),
        ("GPU", {"end": 0.9}, "does not hold at GPU scale"),
        ("paper", {"steps": 550}, "the paper's result is reproduced"),
        ("paper", {"steps": 550, "end": 0.9}, "the paper's result is not reproduced"),
        ("paper", {}, "holds at paper scale, over 20 of the paper's 550 steps"),
    ],
)
def test_only_the_papers_scale_speaks_of_the_papers_result(scale, numbers, sentence):
    found = verdict("C1", CASES["C1"].data(scale=scale, **numbers))
    assert (found.sentence, found.scale) == (sentence, scale)


def test_the_arm_is_the_papers_setting_for_the_model():
    arms = [
        replace(each, model=model)
        for model, best in (("r1-distill-qwen-1.5b", 0.5), ("r1-distill-qwen-7b", 0.75))
        for each in (
            arm("grpo", (1, 1), accuracy=0.5),
            arm("dapo", (1, 1), accuracy=0.6),
            ours(1, 1, beta1=best, accuracy=0.7),
            ours(1, 1, beta1=1.25 - best, accuracy=0.2),
        )
    ]
    found = evaluate_sweeps([sweep("paper/algorithms", arms)], [CLAIMS["C6"]])
    assert [(v.model, v.verdict) for v in found] == [
        ("r1-distill-qwen-1.5b", "holds"),
        ("r1-distill-qwen-7b", "holds"),
    ]
    assert len({trial for v in found for trial in v.trials}) == 2 * 3 * len(SEEDS)
