"""Coefficients that may change with the training step: a number, or ``{step: value}``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

Schedule = float | dict[int, float]


def value_at(schedule: Schedule, step: int) -> float:
    """The value in force at ``step``: that of the greatest key <= ``step``.

    ``{0: 0.0, 585: 0.5}`` is 0.0 on steps 0..584 and 0.5 from step 585 on (Figure 6).
    """
    if not isinstance(schedule, dict):
        return schedule
    return schedule[max(start for start in schedule if start <= step)]


def changes(schedule: Schedule) -> list[int]:
    """The steps after 0 at which the value changes, in order."""
    return sorted(start for start in schedule if start > 0) if isinstance(schedule, dict) else []


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real | str):
        raise ValueError(f"{value!r} is not a number")
    try:
        number = float(value)
    except ValueError:
        raise ValueError(f"{value!r} is not a number") from None
    except OverflowError:
        raise ValueError("too large for a number") from None
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is not finite")
    return number


def _start(key: Any) -> int:
    text = str(key).strip()
    if not text.isdecimal():
        raise ValueError(f"{key!r} is not a step (a whole number, 0 or more)")
    return int(text)


def parse(value: Any) -> Schedule:
    """A number or a mapping ``{step: number}`` as a :data:`Schedule` in canonical form.

    A mapping must give the value at step 0; keys that repeat the value before them are dropped,
    so that equal schedules compare (and hash) equal. Raises ``ValueError`` on anything else.
    """
    if not isinstance(value, Mapping):
        return _number(value)
    points = {_start(key): _number(number) for key, number in value.items()}
    if len(points) != len(value):
        raise ValueError("a schedule names one step twice")
    if 0 not in points:
        raise ValueError("a schedule needs its value at step 0, e.g. {0: 0.0, 585: 0.5}")
    canonical: dict[int, float] = {}
    for start in sorted(points):
        if not canonical or points[start] != canonical[max(canonical)]:
            canonical[start] = points[start]
    return canonical if len(canonical) > 1 else canonical[0]


def bounded(
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
) -> Any:
    """A pydantic field type: a schedule all of whose values lie within the bounds."""
    tests = [
        (ge, lambda v, b: v >= b, ">="),
        (gt, lambda v, b: v > b, ">"),
        (le, lambda v, b: v <= b, "<="),
        (lt, lambda v, b: v < b, "<"),
    ]

    def check(value: Any) -> Schedule:
        schedule = parse(value)
        for number in schedule.values() if isinstance(schedule, dict) else [schedule]:
            for bound, holds, sign in tests:
                if bound is not None and not holds(number, bound):
                    raise ValueError(f"must be {sign} {bound:g}, not {number:g}")
        return schedule

    plain = PlainSerializer(
        lambda v: {str(k): x for k, x in v.items()} if isinstance(v, dict) else v
    )
    return Annotated[float | dict[int, float], BeforeValidator(check), plain]


Coefficient = bounded(ge=0)
"""The field type of a coefficient that may be scheduled: 0 or more at every step."""
