"""What text alone settles between a gold answer and a given one, and how to read the rest."""

from __future__ import annotations

import re
from fractions import Fraction

from cegppo_lab.tasks.verifier.latex import MAX_CHARACTERS, tidy

Pairs = list[tuple[str, str]]
"""(gold, answer) readings in LaTeX: the answer is right if one of them agrees."""


def readings(gold: str, answer: str) -> bool | Pairs:
    """The verdict where text alone settles it, else what algebra is to compare.

    Settled here: equal text, plain numbers, words, letters of choices, times, numbers in stated
    bases, and what math-verify would misread (units that differ, two numbers side by side, a pair
    for a set).
    """
    if max(len(gold), len(answer)) > MAX_CHARACTERS:
        return False
    gold, answer = tidy(gold), tidy(answer)
    if not gold or not answer:
        return False
    if gold == answer:
        return True
    for settle in (_numbers, _choice, _words, _time, _bases):
        verdict = settle(gold, answer)
        if verdict is not None:
            return verdict
    if _units_differ(gold, answer) or _misread(gold, answer):
        return False
    return [pair for reading in _unlabelled(answer) for pair in _percent(gold, reading)]


# --- what text settles -----------------------------------------------------------------------

_NUMBER = re.compile(
    r"([+-]?)\s*\\?\$?\s*((?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+)"
    r"(?:\s*(?:\\times|\\cdot|\*)\s*10\s*\^\s*\{?\s*(-?\d{1,3})\s*\}?|[eE]([+-]?\d{1,3}))?"
)
_TEXT = re.compile(r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|mathrm|mbox|operatorname)\s*\{([^{}]*)\}")
_WORDS = re.compile(r"[A-Za-z][A-Za-z '\-]*")
_LABEL = re.compile(r"\(([A-Ja-j])\)\s*(.*)|([A-J])\s*[.:)]\s*(.*)", re.DOTALL)
_TIME = re.compile(r"(\d{1,2}):([0-5]\d)(?::[0-5]\d)?\s*(?:([ap])\.?m\.?)?", re.IGNORECASE)
_BASED = re.compile(r"(\w+?)_\{?\s*(\d{1,2})\s*\}?")
_TOLERANCE = Fraction(1, 10**6)


def _numbers(gold: str, answer: str) -> bool | None:
    """Whole numbers must be equal, decimals to a relative 1e-6 (math-verify's six digits)."""
    expected, given = _number(gold), _number(answer)
    if expected is None or given is None:
        return None
    if expected.denominator == 1:
        return given == expected
    return abs(given - expected) <= _TOLERANCE * abs(expected)


def _number(latex: str) -> Fraction | None:
    match = _NUMBER.fullmatch(latex)
    if not match:
        return None
    sign, digits, power, exponent = match.groups()
    value = Fraction(digits.replace(",", "").rstrip(".")) * Fraction(10) ** int(
        power or exponent or 0
    )
    return -value if sign == "-" else value


def _choice(gold: str, answer: str) -> bool | None:
    """The letter of a choice, e.g. C for (C), \\textbf{(C)}, C. or (C) 42."""
    expected, given = _plain(gold).strip("()"), _plain(answer)
    if len(expected) != 1 or not "A" <= expected <= "J":
        return None
    if label := _LABEL.fullmatch(given):
        given = label[1] or label[3]
    return given.upper() == expected if re.fullmatch("[A-Ja-j]", given) else None


def _words(gold: str, answer: str) -> bool | None:
    """Words are compared as words; math-verify would multiply their letters in any order."""
    wrapped = _TEXT.fullmatch(gold)
    expected = _plain(gold)
    letters = sum(map(str.isalpha, expected))
    wordlike = letters >= 4 or (letters == 3 and any(map(str.isupper, expected)))
    if not _WORDS.fullmatch(expected) or not (wrapped or wordlike):
        return None
    return expected.casefold() == _plain(answer).casefold()


def _plain(latex: str) -> str:
    """Without text commands and doubled spaces."""
    return " ".join(_TEXT.sub(r"\1", latex).split()).strip(" .,;:")


def _time(gold: str, answer: str) -> bool | None:
    """Times of day; math-verify would divide the hours by the minutes."""
    expected, given = _TIME.fullmatch(_plain(gold)), _TIME.fullmatch(_plain(answer))
    if not expected or not given:
        return None
    (hour, minute, half), (said_hour, said_minute, said_half) = expected.groups(), given.groups()
    same_half = not half or not said_half or half.lower() == said_half.lower()
    return (int(hour), minute) == (int(said_hour), said_minute) and same_half


def _bases(gold: str, answer: str) -> bool | None:
    """Numbers that both state their base; math-verify would drop it."""
    expected, given = _BASED.fullmatch(gold), _BASED.fullmatch(answer)
    if not expected or not given:
        return None
    try:
        return int(expected[1], int(expected[2])) == int(given[1], int(given[2]))
    except ValueError:
        return None


# --- what math-verify would misread ----------------------------------------------------------

_UNIT = re.compile(
    r"[\d}\)]\s*(?:\\(?:text(?:rm)?|mathrm|mbox)\s*\{\s*([^{}]*?)\s*\}|([A-Za-z/]+))"
    r"\s*(?:\^\s*\{?\s*\d\s*\}?)?$"
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
_SIDE_BY_SIDE = re.compile(r"(?<![\w^_\\.])\d+(?:\.\d+)?(?: +|\s*\{\s*)\.?\d")
_NOT_EQUAL = re.compile(r"\\(?:neq?|not)(?![a-zA-Z])")


def _units_differ(gold: str, answer: str) -> bool:
    """Whether both name a unit that we know, and not the same; math-verify drops units."""
    expected, given = _unit(gold), _unit(answer)
    return expected is not None and given is not None and expected != given


def _unit(latex: str) -> str | None:
    match = _UNIT.search(latex)
    return _UNIT_NAMES.get(match[1] or match[2] or "") if match else None


def _misread(gold: str, answer: str) -> bool:
    """Whether the answer is written in a way in which math-verify sees another."""
    kinds = _bracket(gold), _bracket(answer)
    return (
        bool(_SIDE_BY_SIDE.search(answer))  # it would add 7 3
        or bool(_NOT_EQUAL.search(answer)) != bool(_NOT_EQUAL.search(gold))
        or kinds in {("(", "{"), ("{", "(")}  # it takes (1,2) for {1,2}
    )


def _bracket(latex: str) -> str:
    """``(`` for a pair or an interval, ``{`` for a set, nothing for anything else."""
    if latex.startswith(("(", "[")) and latex.endswith((")", "]")) and "," in latex:
        return "("
    return "{" if latex.startswith(r"\{") and latex.endswith(r"\}") else ""


# --- readings --------------------------------------------------------------------------------

_PERCENT = re.compile(r"\s*(?:\\?%|\\text\s*\{\s*(?:\\?%|percent)\s*\}|percent)$")


def _unlabelled(answer: str) -> list[str]:
    """The answer, and what follows the label of a choice in it, e.g. 42 of (C) 42."""
    label = _LABEL.fullmatch(answer) or _LABEL.fullmatch(_plain(answer))
    rest = label and (label[2] or label[4])
    return [answer, rest] if rest else [answer]


def _percent(gold: str, answer: str) -> Pairs:
    """Readings of percentages: 50% is 50 of a hundred, 0.5, and 50 where percents are asked for."""
    expected, given = _PERCENT.sub("", gold), _PERCENT.sub("", answer)
    if (expected == gold) == (given == answer):
        return [(expected, given)]
    if expected == gold:
        return [(gold, given), (gold, rf"\frac{{{given}}}{{100}}")]
    return [(expected, answer), (rf"\frac{{{expected}}}{{100}}", answer)]
