"""Stop rules: each fires when it should and not one step before, and mistakes are one line."""

from __future__ import annotations

import math
from itertools import count

import pytest

from cegppo_lab import metrics as names
from cegppo_lab.errors import LabError
from cegppo_lab.sentinel import NO_RULES, Sentinel, StopRules
from cegppo_lab.store import StepRecord
from cegppo_lab.sweep.single import stop_rules
from cegppo_lab.validation import validated

NAN, INF = math.nan, math.inf
ABSENT = object()
REWARD = names.REWARD_MEAN


def series(metric: str, values: list) -> list[StepRecord]:
    return [
        StepRecord(step, {} if value is ABSENT else {metric: value})
        for step, value in zip(count(1), values, strict=False)
    ]


def fires_at(rules: dict, records: list[StepRecord]) -> int | None:
    """The step at which the rules stop the run; None where they do not."""
    sentinel = Sentinel(StopRules(**rules))
    return next((record.step for record in records if sentinel.see(record)), None)


BOUNDS = {
    "entropy_below": (names.ENTROPY, -1),
    "entropy_above": (names.ENTROPY, 1),
    "kl_above": (names.PPO_KL, 1),
    "ratio_above": (names.RATIO_MAX, 1),
}


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize(
    ("values", "steps", "step"),
    [  # distances beyond the bound, on the rule's side
        ([0.1], 1, 1),
        ([0, 0, 0], 1, None),  # on the bound is not beyond it
        ([-1, 0.1, 0.1, 0.1], 3, 4),
        ([0.1, 0.1, 0, 0.1, 0.1, 0.1], 3, 6),  # a step within ends the row
        ([0.1, 0.1], 3, None),
        ([0.1, NAN, 0.1, NAN], 2, 3),  # NaN is no measurement: it neither counts nor ends a row
        ([NAN, NAN, NAN], 2, None),
        ([0.1, ABSENT, 0.1], 2, 3),
        ([INF, INF], 2, 2),
        ([-INF, -INF], 2, None),
    ],
)
def test_a_bound_stops_after_so_many_steps_beyond_it(name, values, steps, step) -> None:
    metric, side = BOUNDS[name]
    beyond = [value if value is ABSENT else 2 + side * value for value in values]
    assert fires_at({name: {"value": 2, "steps": steps}}, series(metric, beyond)) == step


@pytest.mark.parametrize("name", BOUNDS)
def test_a_bound_looks_at_its_own_metric_alone(name) -> None:
    for metric in {other for other, _ in BOUNDS.values()} - {BOUNDS[name][0]}:
        for value in (-100.0, 100.0):
            assert fires_at({name: {"value": 2, "steps": 1}}, series(metric, [value] * 3)) is None


@pytest.mark.parametrize(
    ("values", "window", "step"),
    [
        ([0.0, 0.0, 0.0], 1, None),  # nothing was there to lose
        ([1.0, 0.6, 0.51, 0.5], 1, 4),  # half of the best is gone, to the last bit
        ([0.4, 0.8, 0.41, 0.4], 1, 4),  # of the best, not of the first
        ([1.0, 1.0, 0.0], 2, 3),  # mean 0.5 of 1.0
        ([1.0, 0.0, 1.0, 0.0], 2, None),  # the mean stays 0.5, and was never better
        ([1.0, 0.0], 3, None),  # the window is not full
        ([1.0, NAN, 0.9, ABSENT, 0.4], 1, 5),
        ([-1.0, -2.0, -9.0], 1, None),  # no share of a best that is not positive
        ([1.0, INF, 0.6, 0.5], 1, 4),  # an infinite reward is not the best
    ],
)
def test_reward_collapse_is_a_share_of_the_best_mean(values, window, step) -> None:
    rules = {"reward_collapse": {"drop": 0.5, "window": window}}
    assert fires_at(rules, series(REWARD, values)) == step


def test_a_whole_collapse_is_the_loss_of_all_reward() -> None:
    rules = {"reward_collapse": {"drop": 1.0, "window": 2}}
    assert fires_at(rules, series(REWARD, [0.5, 0.1, 1e-9, 0.0, 0.0])) == 5


@pytest.mark.parametrize(
    ("values", "options", "step"),
    [
        ([0.5, 0.5, 0.5, 0.5], {"steps": 3}, 4),  # the first step sets the best
        ([0.1, 0.2, 0.3, 0.3, 0.3, 0.3], {"steps": 3}, 6),
        ([0.1, 0.2, 0.15, 0.15, 0.21, 0.1, 0.1, 0.1], {"steps": 3}, 8),
        ([0.5, 0.75, 0.75, 1.0], {"steps": 2, "min_delta": 0.25}, 3),  # not by more than 0.25
        ([0.5, 0.625, 0.875, 0.875], {"steps": 2, "min_delta": 0.25}, None),  # slow, but rises
        ([0.5, ABSENT, NAN, 0.5, 0.5], {"steps": 2}, 5),
        ([0.0, 1.0, 0.0, 1.0, 0.0, 1.0], {"steps": 3, "window": 2}, 5),
    ],
)
def test_no_progress_waits_for_a_better_mean(values, options, step) -> None:
    assert fires_at({"no_progress": {"window": 1, **options}}, series(REWARD, values)) == step


@pytest.mark.parametrize("metric", [names.ENTROPY, names.GRAD_NORM, names.LOSS, REWARD])
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_non_finite_stops_at_once_or_after_a_row(metric, value) -> None:
    values = [1.0, value, 1.0, value, ABSENT, value]
    assert fires_at({"non_finite": {}}, series(metric, values)) == 2
    assert fires_at({"non_finite": {"steps": 2}}, series(metric, values)) == 6
    assert fires_at({"non_finite": {}}, series("timing_s/step", values)) is None


def test_a_stop_says_the_rule_the_step_and_the_numbers() -> None:
    sentinel = Sentinel(StopRules(entropy_below={"value": 0.05, "steps": 2}))
    for record in series(names.ENTROPY, [1.0, 0.04, 0.03]):
        sentinel.see(record)
    assert sentinel.stop.rule == {"entropy_below": {"value": 0.05, "steps": 2}}
    assert sentinel.stop.reason == (
        "entropy_below at step 3: actor/entropy below 0.05 for 2 steps, now 0.03"
    )


def test_the_first_stop_stays_whatever_follows() -> None:
    sentinel = Sentinel(StopRules(entropy_below={"value": 1, "steps": 1}))
    first = sentinel.see(StepRecord(3, {names.ENTROPY: 0.5}))
    assert sentinel.see(StepRecord(4, {names.ENTROPY: 0.1})) is first


def test_of_rules_that_fire_together_the_first_is_told() -> None:
    bound = {"value": 0.5, "steps": 1}
    sentinel = Sentinel(StopRules(kl_above=bound, entropy_above=bound))
    stop = sentinel.see(StepRecord(1, {names.PPO_KL: 1.0, names.ENTROPY: 1.0}))
    assert stop.rule == {"entropy_above": bound}


@pytest.mark.parametrize("cut", range(1, 9))
def test_a_resumed_run_stops_where_the_whole_one_does(cut) -> None:
    """The store has the steps up to ``cut``; the trainer repeats the last ones, with other noise.

    What is stored is what counts.
    """
    rules = StopRules(
        reward_collapse={"drop": 0.5, "window": 3}, entropy_below={"value": 0.1, "steps": 4}
    )
    records = series(REWARD, [0.2, 0.9, 0.9, 0.9, 0.5, 0.4, 0.3, 0.3, 0.3])
    whole = Sentinel(rules)
    stops = [whole.see(record) for record in records]
    assert stops.index(whole.stop) + 1 == 7
    resumed = Sentinel(rules, records[:cut])
    for record in records[max(cut - 2, 0) : cut]:
        resumed.see(StepRecord(record.step, {REWARD: 0.0}))
    for record in records[cut:]:
        resumed.see(record)
    assert resumed.stop == whole.stop


def test_a_rule_that_never_had_its_metric_is_told_and_does_nothing() -> None:
    rules = {"ratio_above": {"value": 2, "steps": 1}, "entropy_above": {"value": 9, "steps": 1}}
    sentinel = Sentinel(StopRules(**rules))
    for record in series(names.ENTROPY, [1.0, 1.0]):
        assert sentinel.see(record) is None
    assert sentinel.note() == "stop rules without their metric: ratio_above (actor/ratio_max)"
    sentinel.see(StepRecord(3, {names.RATIO_MAX: 1.0}))
    assert sentinel.note() == ""
    assert Sentinel(NO_RULES).note() == ""


@pytest.mark.parametrize(
    ("tree", "told"),
    [
        ({"entropy_belov": {}}, "'entropy_belov'. Did you mean 'entropy_below'"),
        ({"kl_above": {"value": 1, "step": 2}}, "unknown key of s.yaml.kl_above 'step'"),
        ({"kl_above": {"value": 1, "step": 2}}, "Did you mean 'steps'"),
        ({"kl_above": {"steps": 2}}, "s.yaml.kl_above.value is missing"),
        ({"kl_above": {"value": 1, "steps": 0}}, "s.yaml.kl_above.steps=0"),
        ({"kl_above": {"value": NAN, "steps": 1}}, "s.yaml.kl_above.value=nan"),
        ({"kl_above": 3}, "s.yaml.kl_above=3"),
        ({"reward_collapse": {"drop": 50}}, "s.yaml.reward_collapse.drop=50"),
        ({"no_progress": {"steps": 3, "min_delta": -1}}, "s.yaml.no_progress.min_delta=-1"),
    ],
)
def test_a_mistake_in_the_rules_is_one_line(tree, told) -> None:
    with pytest.raises(LabError) as caught:
        validated(StopRules, tree, "s.yaml")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rules_travel_as_plain_values_and_ask_for_their_own_stops_only() -> None:
    rules = StopRules(entropy_below={"value": 0.05, "steps": 5}, reward_collapse={"drop": 0.5})
    assert StopRules(**rules.tree()) == rules
    assert rules.tree()["reward_collapse"] == {"drop": 0.5, "window": 8}
    assert NO_RULES.tree() == {}
    assert rules.ask_for({})
    assert NO_RULES.ask_for({})
    assert rules.ask_for({"entropy_below": {"value": 0.05, "steps": 5}})
    assert not rules.ask_for({"entropy_below": {"value": 0.05, "steps": 4}})
    assert not rules.ask_for({"kl_above": {"value": 0.05, "steps": 5}})
    assert not NO_RULES.ask_for({"entropy_below": {"value": 0.05, "steps": 5}})


def test_words_of_a_single_run_switch_rules_on() -> None:
    rules, rest = stop_rules(
        ["algorithm=dapo", "stop={kl_above:{value:1,steps:2}}", "stop.no_progress={steps:9}", "a=1"]
    )
    assert rest == ["algorithm=dapo", "a=1"]
    assert rules == StopRules(kl_above={"value": 1, "steps": 2}, no_progress={"steps": 9})
    assert stop_rules(["seed=1"]) == (NO_RULES, ["seed=1"])


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("stop=3", "stop=3: must be a mapping"),
        ("stop.kl_abov={value:1,steps:1}", "Did you mean 'kl_above'"),
        ("stop.kl_above={value:1}", "stop.kl_above.steps is missing"),
        ("stop.kl_above=", "stop.kl_above=''"),
    ],
)
def test_a_mistake_in_the_words_is_one_line(word, told) -> None:
    with pytest.raises(LabError) as caught:
        stop_rules([word])
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
