"""A check of options that come as a lower and an upper bound."""

from __future__ import annotations

from pydantic import BaseModel

from cegppo_lab.schedule import changes, value_at


def check_order(options: BaseModel, low: str, high: str) -> None:
    """Raise ``ValueError`` unless option ``low`` is below option ``high`` at every step."""
    lower, upper = getattr(options, low), getattr(options, high)
    for step in sorted({0, *changes(lower), *changes(upper)}):
        pair = value_at(lower, step), value_at(upper, step)
        if pair[0] >= pair[1]:
            raise ValueError(f"{low}={pair[0]:g} must be below {high}={pair[1]:g}")
