"""What text alone settles between a gold answer and a given one, and how to read the rest."""

from __future__ import annotations

import re
from fractions import Fraction

from cegppo_lab.tasks.verifier.latex import MAX_CHARACTERS, in_radians, tidy
from cegppo_lab.tasks.verifier.units import units_differ, with_variables

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
    if gold == answer or _bare(gold) == _bare(answer) != "":
        return True
    if ":" in gold:
        answer = _TO.sub(":", answer)
    for settle in (_numbers, _choice, _words, _time, _ratio, _bases):
        verdict = settle(gold, answer)
        if verdict is not None:
            return verdict
    if units_differ(gold, answer) or _misread(gold, answer):
        return False
    if r"\pi" in gold + answer:
        gold, answer = in_radians(gold), in_radians(answer)
    gold = _both_signs(gold)
    if (named := with_variables(gold, _both_signs(answer))) is None:
        return False
    gold, answer = named
    read = map(_both_signs, _unlabelled(answer))
    return [pair for reading in read for pair in _percent(gold, reading)]


# --- what text settles -----------------------------------------------------------------------

_NUMBER = re.compile(
    r"([+-]?)\s*\\?\$?\s*((?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+)"
    r"(?:\s*(?:\\times|\\cdot|\*)\s*10\s*\^\s*\{?\s*(-?\d{1,3})\s*\}?|[eE]([+-]?\d{1,3}))?"
)
_TEXT = re.compile(r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|mathrm|mbox|operatorname)\s*\{([^{}]*)\}")
_WORDS = re.compile(r"[A-Za-z][A-Za-z '\-]*")
_LABEL = re.compile(r"\(([A-Ja-j])\)\s*(.*)|([A-J])\s*[.:)]\s*(.*)", re.DOTALL)
_OTHER_LABEL = re.compile(r"\([A-J]\)|(?:^|\bor |\band |[,/&] ?)[A-J]\b")
_CHOSEN = re.compile(r"^(?:option|choice|answer)[ :]+", re.IGNORECASE)
_ARTICLE = re.compile(r"^(?:an?|the) ")
_TO = re.compile(r"\s*\\text\s*\{\s*to\s*\}\s*")
_TIME = re.compile(r"(\d{1,2}):([0-5]\d)(?::[0-5]\d)?\s*(?:([ap])\.?m\.?)?", re.IGNORECASE)
_BASED = re.compile(r"([0-9A-Za-z]+)\s*_\s*\{?\s*\(?(\d+|[a-z]+)\)?\s*\}?")
_BASES = ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
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
        if _OTHER_LABEL.search(label[2] or label[4] or ""):
            return False
        given = label[1] or label[3]
    return _CHOSEN.sub("", given).strip("()").upper() == expected


def _words(gold: str, answer: str) -> bool | None:
    """Words are compared as words; math-verify would multiply their letters in any order."""
    wrapped = _TEXT.fullmatch(gold)
    expected = _plain(gold)
    letters = sum(map(str.isalpha, expected))
    wordlike = letters >= 4 or (letters == 3 and any(map(str.isupper, expected)))
    if not _WORDS.fullmatch(expected) or not (wrapped or wordlike):
        return None
    said = (_ARTICLE.sub("", text.casefold()) for text in (expected, _plain(answer)))
    return next(said) == next(said)


def _plain(latex: str) -> str:
    """Without text commands, doubled spaces, and punctuation around it."""
    return _bare(latex).strip(" .,;:")


def _bare(latex: str) -> str:
    return " ".join(_TEXT.sub(r"\1", latex).split())


def _time(gold: str, answer: str) -> bool | None:
    """Times of day; math-verify would divide the hours by the minutes."""
    expected, given = _TIME.fullmatch(_plain(gold)), _TIME.fullmatch(_plain(answer))
    if not expected or not given:
        return None
    (hour, minute, half), (said_hour, said_minute, said_half) = expected.groups(), given.groups()
    same_half = not half or not said_half or half.lower() == said_half.lower()
    return (int(hour), minute) == (int(said_hour), said_minute) and same_half


def _ratio(gold: str, answer: str) -> bool | None:
    """Ratios of three or more; math-verify would divide them in a row, and lose the order."""
    expected, given = gold.split(":"), answer.split(":")
    if len(expected) < 3:
        return None
    numbers = [_number(part.strip()) for part in (*expected, *given)]
    if len(given) != len(expected) or None in numbers:
        return "".join(gold.split()) == "".join(answer.split())
    values = list(zip(numbers[: len(expected)], numbers[len(expected) :], strict=True))
    (first, said), *others = values
    return said != 0 and all(a * said == b * first for a, b in others)


def _bases(gold: str, answer: str) -> bool | None:
    """Numbers that state their base; math-verify would drop it.

    Without a base the answer is in the reference's, and the reference is in base ten.
    """
    expected, given = _BASED.fullmatch(_plain(gold)), _BASED.fullmatch(_plain(answer))
    if expected and (value := _in_base(*expected.groups())) is not None:
        if given:
            return _in_base(*given.groups()) == value
        return answer.casefold() == expected[1].casefold() if answer.isalnum() else None
    number = _number(gold)
    return _in_base(*given.groups()) == number if given and number is not None else None


def _in_base(digits: str, base: str) -> int | None:
    """The value of ``digits`` in a base from two to 36, given in digits or as a word."""
    radix = _BASES.index(base) + 2 if base in _BASES else int(base[:3]) if base.isdecimal() else 0
    try:
        return int(digits, radix) if radix > 1 else None
    except ValueError:
        return None


# --- what math-verify would misread ----------------------------------------------------------

_ALTERING = re.compile(
    r"\b(?:not|plus|minus|times|divided|over|more|less|fewer|least|most|about|approximately|"
    r"squared|cubed|factorial|dozen|half|but|maybe|either|between|to|through|wrong|incorrect|"
    r"false|except|excluding|negative)\b|(?<![A-Za-z])\d+",
    re.IGNORECASE,
)
_SIDE_BY_SIDE = re.compile(r"(?<![\w^_\\.])\d+(?:\.\d+)?(?: +|\s*\{\s*)\.?\d")
_NOT_EQUAL = re.compile(r"\\(?:neq?|not)(?![a-zA-Z])")


def _misread(gold: str, answer: str) -> bool:
    """Whether the answer is written in a way in which math-verify sees another."""
    kinds = _bracket(gold), _bracket(answer)
    return (
        bool(_SIDE_BY_SIDE.search(answer))  # it would add 7 3
        or bool(_NOT_EQUAL.search(answer)) != bool(_NOT_EQUAL.search(gold))
        or kinds in {("(", "{"), ("{", "(")}  # it takes (1,2) for {1,2}
        or (kinds[1] == "(" and _number(gold) is not None)  # and [3,3] for 3
        or not _alterations(answer) <= _alterations(gold)  # it drops what \text says
    )


def _alterations(latex: str) -> set[str]:
    """Words and numbers in the text of ``latex`` that change what is said beside it."""
    if not any(map(str.isalnum, _TEXT.sub("", latex))):
        return set()
    texts = (match[1] for match in _TEXT.finditer(latex))
    return {word.lower() for text in texts for word in _ALTERING.findall(text)}


def _bracket(latex: str) -> str:
    """``(`` for a pair or an interval, ``{`` for a set, nothing for anything else."""
    if latex.startswith(("(", "[")) and latex.endswith((")", "]")) and "," in latex:
        return "("
    return "{" if latex.startswith(r"\{") and latex.endswith(r"\}") else ""


# --- readings --------------------------------------------------------------------------------

_COMMA_OUTSIDE = re.compile(r"[,;](?![^()]*\))")
_PERCENT = re.compile(r"\s*(?:\\?%|\\text\s*\{\s*(?:\\?%|percent)\s*\}|percent)$")


def _unlabelled(answer: str) -> list[str]:
    """The answer, and what follows the label of a choice in it, e.g. 42 of (C) 42."""
    label = _LABEL.fullmatch(answer) or _LABEL.fullmatch(_plain(answer))
    rest = label and (label[2] or label[4])
    return [answer, rest] if rest else [answer]


def _both_signs(latex: str) -> str:
    r"""One ``\pm`` within an expression as the list of what it means."""
    if latex.count(r"\pm") != 1 or _COMMA_OUTSIDE.search(latex):
        return latex
    above, below = latex.replace(r"\mp", "-"), latex.replace(r"\mp", "+")
    return above.replace(r"\pm", "+") + ", " + below.replace(r"\pm", "-")


def _percent(gold: str, answer: str) -> Pairs:
    """Readings of percentages: 50% is 50 of a hundred, 0.5, and 50 where percents are asked for."""
    expected, given = _PERCENT.sub("", gold), _PERCENT.sub("", answer)
    if (expected == gold) == (given == answer):
        return [(expected, given)]
    if expected == gold:
        return [(gold, given), (gold, rf"\frac{{{given}}}{{100}}")]
    return [(expected, answer), (rf"\frac{{{expected}}}{{100}}", answer)]
