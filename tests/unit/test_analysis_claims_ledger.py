"""The ledger: which sweeps are asked, and how it is written."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from analysis.claims import (
    evaluate,
    evaluate_sweeps,
    load_claims,
    rows_for_page,
    summary,
    to_json,
    to_terminal,
)
from cegppo_lab.errors import LabError
from tests.unit.claim_cases import CASES, bonus, ours
from tests.unit.claim_runs import SEEDS, arm, source, sweep

CLAIMS = load_claims()
KEYS = {"id", "statement", "verdict", "scale", "estimate", "low", "high", "n_seeds", "trials"}


@pytest.fixture(scope="module")
def ledger():
    return evaluate(source(*(CASES[name].data() for name in ("C4", "C9", "C12"))))


def of(verdicts, name):
    return [verdict for verdict in verdicts if verdict.id == name]


def told(verdicts):
    return {verdict.id: verdict.verdict for verdict in verdicts}


def test_a_ledger_has_every_claim_and_untested_ones_say_why(ledger):
    assert list(told(ledger)) == [claim.id for claim in CLAIMS]
    tested = {verdict.id for verdict in ledger if verdict.verdict != "untested"}
    assert tested == {"C4", "C9", "C12"}
    assert all(verdict.reason for verdict in ledger if verdict.verdict == "untested")
    assert "fewer than two values of beta2" in of(ledger, "C5")[0].reason
    assert "has logged actor/pg_clipfrac_lp" in of(ledger, "C8")[0].reason


def test_a_part_asked_only_if_present_is_left_out_where_its_arm_is_not():
    (found,) = of(evaluate_sweeps([sweep("beta_grid", CASES["C8"].build()[1:])]), "C8")
    assert (found.verdict, len(found.parts)) == ("holds", 1)
    (found,) = of(evaluate_sweeps([CASES["C2"].data()]), "C8")
    assert (found.verdict, found.sweep) == ("untested", "")


def test_two_sweeps_that_can_answer_give_two_verdicts():
    case = CASES["C4"]
    large = replace(case, sweep="paper/beta_grid_7b").data(scale="paper", **case.refuting[0])
    found = of(evaluate(source(case.data(), large)), "C4")
    assert [(v.sweep, v.scale, v.verdict) for v in found] == [
        ("beta_grid", "embedded", "holds"),
        ("paper/beta_grid_7b", "paper", "refuted"),
    ]


def test_each_sweep_is_read_once_and_only_those_asked():
    mine = source(CASES["C1"].data(), replace(CASES["C1"], sweep="mine").data())
    evaluate(mine)
    assert mine.read == ["algorithms"]


def test_a_sweep_of_ones_own_is_asked_of_every_claim():
    data = sweep("mine", [arm("grpo", (1, 0.2)), arm("dapo", (1, 1.6))])
    verdicts = evaluate(source(data, CASES["C4"].data()), ["mine"])
    assert told(verdicts) == dict.fromkeys(told(verdicts), "untested") | {
        "C1": "holds",
        "C2": "holds",
    }
    for name in ("C3", "C6"):  # of C6 one part has its arms
        assert of(verdicts, name)[0].reason.startswith(
            "mine, tiny: it has no arm cegppo with beta1"
        )
    assert told(evaluate_sweeps([data])) == told(verdicts)


def test_a_sweep_may_have_another_name_here():
    renamed = replace(CASES["C1"], sweep="verl runs").data()
    verdicts = evaluate(source(renamed, CASES["C4"].data()), {"algorithms": "verl runs"})
    (found,) = of(verdicts, "C1")
    assert (found.verdict, found.sweep) == ("holds", "verl runs")
    assert of(verdicts, "C4")[0].verdict == "holds"


@pytest.mark.parametrize(
    ("scales", "expected"), [([], "embedded"), (["paper"], "paper"), (["paper", "GPU"], "GPU")]
)
def test_an_unanswered_claim_is_told_at_the_smallest_scale_it_was_asked_at(scales, expected):
    sweeps = [replace(CASES["C1"], sweep=scale).data(scale=scale) for scale in scales]
    assert of(evaluate_sweeps(sweeps), "C9")[0].scale == expected


@pytest.mark.parametrize("names", [["algoritms"], {"algorithms": "algoritms"}, {"algoritms":
                         "algorithms"}])  # fmt: skip
def test_a_mistyped_sweep_is_one_line_with_the_nearest(names):
    with pytest.raises(LabError, match="Did you mean 'algorithms'"):
        evaluate(source(CASES["C1"].data()), names)


def test_a_sweep_without_a_step_leaves_its_claims_untested():
    mine = source(CASES["C4"].data())
    mine.sweeps["algorithms"] = None
    verdicts = evaluate(mine)
    assert of(verdicts, "C4")[0].verdict == "holds"
    assert "has a step in memory yet" in of(verdicts, "C1")[0].reason


@pytest.mark.parametrize(
    ("name", "arms", "reason"),
    [
        ("C1", [arm("grpo", (1, 0.2)), arm("grpo", (1, 0.9), clip_low=0.1)], "several of its arms"),
        ("C9", [bonus(0.001, 0.2)], "only one value of entropy_coef"),
        ("C1", [bonus(0.001, 0.2)], "no arm grpo"),
        ("C12", [ours(1, 1, beta1=0.0)], "no arm cegppo with beta1=scheduled"),
    ],
)
def test_an_arm_that_is_missing_or_not_the_only_one_is_not_guessed(name, arms, reason):
    (found,) = of(evaluate_sweeps([sweep("mine", arms)]), name)
    assert found.verdict == "untested"
    assert reason in found.reason


def test_a_scheduled_coefficient_is_no_point_of_the_grid():
    arms = [*CASES["C4"].build(), ours(1, 2, beta1={0: 0.0, 12: 0.5})]
    found = of(evaluate_sweeps([sweep("beta_grid", arms)]), "C4")[0]
    assert (found.verdict, len(found.trials)) == ("holds", 5 * len(SEEDS))


def test_equal_levels_of_two_arms_are_not_a_trend():
    arms = [*CASES["C4"].build(), arm("cegppo", (1, 0.5), beta1=0.5, beta2=1.0, clip_low=0.1)]
    found = of(evaluate_sweeps([sweep("beta_grid", arms)]), "C4")[0]
    assert "two arms have the same beta1" in found.reason


def test_trials_are_those_of_the_arms_compared():
    arms = [arm("grpo", (1, 0.2), stopped={SEEDS[-1]: 0}), arm("dapo", (1, 1.6))]
    (found,) = of(evaluate_sweeps([sweep("algorithms", arms)]), "C1")
    assert found.trials == [f"algorithms/{arms[0].name}/{seed}" for seed in SEEDS[:-1]]


def test_json_has_the_keys_null_for_what_is_not_a_number_and_reads_back(ledger):
    rows = to_json(ledger)
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert all(row.keys() >= KEYS for row in rows)
    missing = next(row for row in rows if row["id"] == "C1")
    assert (missing["estimate"], missing["low"], missing["high"]) == (None, None, None)
    held = next(row for row in rows if row["id"] == "C12")
    assert held["low"] < held["estimate"] < held["high"]
    assert {"label", "direction", "threshold", "estimate", "low", "high", "n_seeds", "method",
            "verdict"} <= held["parts"][0].keys()  # fmt: skip


def test_the_same_runs_give_the_same_ledger_in_any_order_of_rows(ledger):
    data = CASES["C12"].data()
    frames = {key: getattr(data, key).sample(frac=1, random_state=3) for key in ("steps", "evals")}
    first, second = (
        to_json(of(evaluate_sweeps([each]), "C12")) for each in (data, replace(data, **frames))
    )
    assert first == second == to_json(of(ledger, "C12"))


def test_the_terminal_table_is_narrow_and_says_all(ledger):
    text = to_terminal(ledger)
    assert max(map(len, text.splitlines())) <= 108
    flat = " ".join(text.split())
    assert all(f"{claim.id} " in flat for claim in CLAIMS)
    assert "holds 3, untested 10" in flat
    assert of(ledger, "C12")[0].evidence.split(":")[0] in flat
    assert "reproduced" not in text
    assert summary(ledger) == "At embedded scale: holds 3, untested 10."


def test_rows_for_the_page_tell_each_part_with_its_numbers(ledger):
    row = next(row for row in rows_for_page(ledger) if row["id"] == "C12")
    assert row["where"] == "beta_switch, tiny"
    assert len(row["parts"]) == 2
    assert all("[" in part and "claimed" in part and "5 seeds" in part for part in row["parts"])
