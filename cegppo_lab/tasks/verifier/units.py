"""Units and variables at the end of an answer; math-verify drops the ones like the others."""

from __future__ import annotations

import re

_UNIT = re.compile(
    r"[\d}\)]\s*(?:\\(?:text(?:rm)?|mathrm|mbox)\s*\{\s*([^{}]*?)\s*\}|([A-Za-z/]+))"
    r"\s*(?:\^\s*\{?\s*(\d)\s*\}?)?$"
)
_UNIT_NAMES = {
    name: names.split()[0]
    for names in (
        "mm millimeter millimeters millimetre millimetres", "cm centimeter centimeters centimetres",
        "m meter meters metre metres", "km kilometer kilometers kilometre kilometres",
        "in inch inches", "ft foot feet", "yd yard yards", "mi mile miles",
        "mg milligram milligrams", "g gram grams", "kg kilogram kilograms", "lb lbs pound pounds",
        "ml milliliter milliliters mL", "l L liter liters litre litres",
        "s sec second seconds", "min minute minutes", "h hr hour hours", "day days", "week weeks",
        "month months", "year years", "cent cents", "dollar dollars", "km/h kmh kph", "m/s", "mph",
        "degree degrees", "radian radians rad",
    )
    for name in names.split()
}  # fmt: skip
_COMMANDS = re.compile(r"\\(?:text\w*|mathrm|mbox)\s*\{[^{}]*\}|\\[A-Za-z]+")
_TAIL = re.compile(r"(?<=[\d}\s])[A-Za-z]{1,2}$")


def units_differ(gold: str, answer: str) -> bool:
    """Whether both name a unit that we know, and not the same; math-verify drops units."""
    expected, given = _unit(gold), _unit(answer)
    return expected is not None and given is not None and expected != given


def _unit(latex: str) -> tuple[str, str] | None:
    """A known unit at the end, and its exponent."""
    match = _UNIT.search(latex)
    name = _UNIT_NAMES.get(match[1] or match[2] or "") if match else None
    return (name, match[3] or "1") if name else None


def with_variables(gold: str, answer: str) -> tuple[str, str] | None:
    """Both with their last variable in braces, or math-verify would drop it as a unit (2s, 3bc).

    None: a variable at the end of one does not occur in the other.
    """
    names = [set(filter(str.isalpha, _COMMANDS.sub("", latex))) for latex in (gold, answer)]
    kept = []
    for latex, others, strict in ((gold, names[1], True), (answer, names[0], bool(names[0]))):
        tail = _TAIL.search(latex)
        if tail and (len(tail[0]) == 1 or tail[0] not in _UNIT_NAMES):
            bound = re.search(rf"_\s*\{{?\s*{tail[0]}\s*(?:=|\\to)", latex)  # of a sum
            if bound or set(tail[0]) <= others:
                latex = f"{latex[: tail.start()]}{{{tail[0]}}}"
            elif strict:
                return None
        kept.append(latex)
    return kept[0], kept[1]
