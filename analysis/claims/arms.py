"""Which arms of a sweep a part of a claim compares, or why there are none."""

from __future__ import annotations

from analysis import select
from analysis.claims.schema import Claim, Part, Selector
from analysis.load import Arm, SweepData

Arms = dict[str, Arm | list[Arm]]
EXTREMES = {"smallest": min, "largest": max}


class NoArmError(Exception):
    """The sweep cannot answer: the message says which arm it lacks, or has more than once."""


def arms_of(part: Part, data: SweepData, model: str) -> Arms:
    """The arms of a part, by the name its measure knows them by. Raises ``NoArmError``."""
    over = part.options().get("over")
    return {
        role: _several(data, selector, model, over)
        if role == "arms"
        else _one(data, selector, model)
        for role, selector in part.selectors().items()
    }


def parts_of(claim: Claim, data: SweepData, model: str) -> list[tuple[Part, Arms]]:
    """The claim's parts with their arms, without the parts that are asked ``if_present`` only.

    Raises ``NoArmError`` where the sweep lacks an arm, or has none of those that would do.
    """
    found, missing = [], []
    for part in claim.parts:
        try:
            found.append((part, arms_of(part, data, model)))
        except NoArmError as lack:
            if not part.if_present:
                raise
            missing.append(str(lack))
    if not found:
        raise NoArmError("; ".join(missing))
    return found


def used(arms: Arms) -> list[Arm]:
    """The arms, one after the other."""
    return [arm for each in arms.values() for arm in (each if isinstance(each, list) else [each])]


def by_model(data: SweepData) -> dict[str, SweepData]:
    """``select.by_model``, but for arms whose model is not known.

    An arm that has no run has no known model; with one model in the sweep it is that one.
    """
    models = [model for model in data.models() if model]
    if len(models) < 2:
        return {"".join(models): data}
    return {model: own for model, own in select.by_model(data).items() if model}


def _one(data: SweepData, selector: Selector, model: str) -> Arm:
    wanted = selector.wanted(model)
    extremes = {key: value for key, value in wanted.items() if value in EXTREMES}
    found = select.find(data, wanted | dict.fromkeys(extremes, "positive"))
    if not found:
        raise NoArmError(f"it has no arm {_told(wanted)}")
    for key, extreme in extremes.items():
        if len({arm.coefficient(key) for arm in found}) < 2:
            raise NoArmError(f"it has only one value of {key} to pick the {extreme} of")
        best = EXTREMES[extreme](arm.coefficient(key) for arm in found)
        found = [arm for arm in found if arm.coefficient(key) == best]
    if len(found) > 1:
        names = ", ".join(arm.name for arm in found)
        raise NoArmError(f"several of its arms are {_told(wanted)}: {names}")
    return found[0]


def _several(data: SweepData, selector: Selector, model: str, over: str) -> list[Arm]:
    wanted = selector.wanted(model)
    found = [arm for arm in select.find(data, wanted) if isinstance(arm.coefficient(over), float)]
    if len({arm.coefficient(over) for arm in found}) < 2:
        raise NoArmError(f"it has fewer than two values of {over} among arms {_told(wanted)}")
    return found


def _told(wanted: dict[str, object]) -> str:
    rest = [f"{key}={value}" for key, value in wanted.items() if key != "algorithm"]
    return " with ".join([str(wanted["algorithm"]), *([", ".join(rest)] if rest else [])])
