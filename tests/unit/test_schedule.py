"""Coefficients as numbers and as values over steps."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import BaseModel, ValidationError

from cegppo_lab.schedule import Coefficient, bounded, changes, parse, value_at


def test_a_value_holds_from_its_step_on():
    schedule = parse({0: 0.0, 585: 0.5})
    found = [value_at(schedule, step) for step in (0, 1, 584, 585, 586, 10**6)]
    assert found == [0.0, 0.0, 0.0, 0.5, 0.5, 0.5]
    assert changes(schedule) == [585]


def test_a_number_holds_always():
    assert parse(1) == 1.0
    assert value_at(0.75, 10**6) == 0.75
    assert changes(0.75) == []


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ({"585": 0.5, "0": 0}, {0: 0.0, 585: 0.5}),
        ({" 0 ": "0.25", 7: "1e-1"}, {0: 0.25, 7: 0.1}),
        ({0: 1, 5: 1, 9: 2, 12: 2}, {0: 1.0, 9: 2.0}),
        ({0: 1, 5: 2, 9: 1}, {0: 1.0, 5: 2.0, 9: 1.0}),
        ({0: 1, 5: 1}, 1.0),
        ({0: 3}, 3.0),
        ("0.5", 0.5),
        (np.float32(0.5), 0.5),
        (np.int64(2), 2.0),
        ({np.int64(0): np.float64(1), np.int64(4): 0}, {0: 1.0, 4: 0.0}),
    ],
    ids=str,
)
def test_equal_schedules_have_one_form(given, canonical):
    parsed = parse(given)
    assert parsed == canonical
    assert repr(parsed) == repr(canonical)  # Order and types too: trial ids come from the text.


def test_the_canonical_form_has_the_same_values():
    rng = np.random.default_rng(0)
    for _ in range(50):
        steps = {0, *rng.integers(1, 40, size=rng.integers(0, 8)).tolist()}
        points = {step: float(rng.integers(3)) for step in steps}
        parsed = parse(points)
        for step in range(45):
            wanted = points[max(start for start in points if start <= step)]
            assert value_at(parsed, step) == wanted


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({5: 1.0}, "step 0"),
        ({}, "step 0"),
        ({0: 1, "0": 2}, "twice"),
        ({0: 1, -3: 2}, "-3 is not a step"),
        ({0: 1, 2.5: 2}, "2.5 is not a step"),
        ({0: 1, "²": 2}, "is not a step"),
        ({0: 1, True: 2}, "True is not a step"),
        ({0: 1, 3: None}, "None is not a number"),
        ({0: {1: 2}}, "is not a number"),
        (True, "True is not a number"),
        (None, "None is not a number"),
        ([1.0], "is not a number"),
        ("fast", "'fast' is not a number"),
        ("", "is not a number"),
        (float("nan"), "not finite"),
        ("inf", "not finite"),
        (10**400, "too large"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_schedule_is_refused(given, told):
    with pytest.raises(ValueError, match=told):
        parse(given)


class Bounds(BaseModel):
    coefficient: Coefficient = 0.0
    share: bounded(gt=0, le=1) = 0.5
    low: bounded(ge=-1, lt=1) = 0.0


@pytest.mark.parametrize(
    "values",
    [
        {"coefficient": -1e-9},
        {"coefficient": {0: 1, 9: -1}},
        {"share": 0},
        {"share": 1.0001},
        {"share": {0: 0.5, 3: 0}},
        {"low": 1},
        {"low": -1.5},
    ],
    ids=str,
)
def test_bounds_hold_at_every_step(values):
    with pytest.raises(ValidationError, match="must be"):
        Bounds(**values)


def test_bounds_include_what_they_say():
    assert Bounds(coefficient=0, share=1, low=-1).model_dump() == {
        "coefficient": 0.0,
        "share": 1.0,
        "low": -1.0,
    }


def test_a_dump_reads_back():
    first = Bounds(coefficient={0: 0.0, 585: 0.5})
    assert first.model_dump()["coefficient"] == {"0": 0.0, "585": 0.5}
    assert Bounds.model_validate(first.model_dump()) == first
    assert Bounds.model_validate_json(first.model_dump_json()) == first
