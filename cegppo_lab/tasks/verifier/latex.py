"""Finds the boxed answer of a response and tidies its LaTeX."""

from __future__ import annotations

import re
from collections import deque

MAX_CHARACTERS = 2000
"""A longer answer is wrong: references are far shorter, and algebra on it takes forever."""

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)


def last_box(text: str) -> str | None:
    r"""What the last ``\boxed{...}`` (or ``\fbox``) holds; None: there is none, or it never closes.

    Takes time linear in the text.
    """
    boxes = deque(_BOX.finditer(text), maxlen=1)
    return _closed(text, boxes[0].end()) if boxes else None


def _closed(text: str, start: int) -> str | None:
    depth = 1
    for brace in _BRACES.finditer(text, start, start + 4 * MAX_CHARACTERS):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return text[start : brace.start()]
    return None


_UNICODE = str.maketrans(
    {
        **{chr(0xFF10 + digit): str(digit) for digit in range(10)},
        **dict.fromkeys("\u2212\u2013\u2014\uff0d", "-"),
        **dict.fromkeys("\u200b\u200c\u200d\ufeff\u2060\u200e\u200f\u061c", ""),
        **dict.fromkeys(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A))), ""),  # bidi
        **dict.fromkeys("\u00a0\u2009\u202f\u3000\t\r\n", " "),
        "\u00d7": r"\times ", "·": r"\cdot ", "÷": "/", "π": r"\pi ", "∞": r"\infty ",
        "°": r"^\circ ",
        "√": r"\sqrt ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ",
        "\u222a": r"\cup ", "∩": r"\cap ", "∅": r"\emptyset ", "²": "^2", "³": "^3",
        "½": r"\frac{1}{2}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}",
    }
)  # fmt: skip
_REWRITES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in [
        (r"(?<!\\)\$|\\[()]|^\\\[|\\\]$", ""),  # math delimiters; \$ is money
        (r"\\!", ""),
        (r"(?<!\\)\\[,;: ]|~|\\q?quad\b|\\(?:thin|med|thick)space\b", " "),
        (r"\\(?:displaystyle|textstyle|boldmath|tiny|small|[lL]arge|LARGE|[hH]uge)\b", " "),
        (r"\\[hv]space\*?\s*\{[^{}]*\}", " "),
        (r"\\(?:left|right)\s*\.|\\(?:left|right|[bB]igg?[lr]?)(?![a-zA-Z])\s*", ""),
        (r"\\(?:bf|rm|it|sf|tt|bfseries|mathstrut)(?![a-zA-Z])", " "),
        (r"\\mathrm\s*\{\s*([ei])\s*\}", r"\1 "),
        (r"\\(?:text)?color\s*\{\w+\}", ""),
        (r"\\(?:mathbf|mathsf|boldsymbol|bm|underline|boxed|fbox|mathit)\s*\{([^{}]*)\}", r"\1"),
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\\frac\s*(\w)\s*(\w)(?!\w)", r"\\frac{\1}{\2}"),
        (r"\\(?:varnothing|O)(?![a-zA-Z])|\\\{\s*\\\}", r"\\emptyset "),
        (r"\\langle(?![a-zA-Z])", "("),
        (r"\\rangle(?![a-zA-Z])", ")"),
        (r"\\(?:[lcv]dots|dots[cbim]?)(?![a-zA-Z])", "..."),
        (r"\\(?:angle|triangle)(?![a-zA-Z])\s*", ""),  # letters in a row are a name
        (r"\*\*", "^"),
        (r"(?<![\\a-zA-Z])sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"(?<![\\a-zA-Z])pi(?![a-zA-Z])", r"\\pi "),
        (r"(\d)\{([,:])\}(?=\d)", r"\1\2"),
        (r"\s+", " "),
    ]
]
_ENDS = re.compile(r"^[\s:=]+|(?<!\.)[.,;:]?[\s\\]*$")
_GROUPS = re.compile(r"(?<![\d.,])\d{1,3}(?: \d{3})+(?![\d,])")
_MIXED = re.compile(r"(?<![\d.])(\d+) (\d+)\s*/\s*(\d+)(?!\d)")
_REPEATING = re.compile(r"(?<![\d.])(\d{0,9})\.(\d{0,9})\\(?:overline|bar|dot)\s*\{(\d{1,9})\}")
_DEGREES = re.compile(r"(\d+(?:\.\d+)?)\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ)")
_MULTIPLE = re.compile(
    r"(\d)\s*(\\(?:text|mathrm|mbox)\s*\{\s*)?(hundred|thousand|million|billion|trillion)s?\b"
)
_ZEROS = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_CHAIN = re.compile(r"([^<>=,]+)(>|\\geq?)(?![a-zA-Z])([^<>=,]+?)(>|\\geq?)(?![a-zA-Z])([^<>=,]+)")
_TURNED = {">": "<", r"\ge": r"\le ", r"\geq": r"\le "}
_TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-zA-Z])")


def tidy(latex: str) -> str:
    """The same answer without fonts, delimiters, spacing commands and other noise."""
    if (boxed := last_box(latex)) is not None:
        latex = boxed
    latex = latex.translate(_UNICODE)
    for pattern, replacement in _REWRITES:
        latex = pattern.sub(replacement, latex)
    latex = _GROUPS.sub(lambda match: match[0].replace(" ", ""), latex)
    latex = _MIXED.sub(r"\1\\frac{\2}{\3}", latex)
    latex = _REPEATING.sub(_as_fraction, latex)
    latex = _MULTIPLE.sub(_as_power, latex)
    if _TRIGONOMETRIC.search(latex):
        latex = in_radians(latex)
    exact, _, rounded = latex.partition(r"\approx")
    latex = exact if exact.strip() else rounded
    if chain := _CHAIN.fullmatch(latex):  # math-verify compares chains link by link
        a, first, b, second, c = chain.groups()
        latex = f"{c}{_TURNED[second]}{b}{_TURNED[first]}{a}"
    return _unwrapped(_ENDS.sub("", latex))


def in_radians(latex: str) -> str:
    """With every angle that is given in degrees."""
    return _DEGREES.sub(r"(\1 \\pi/180)", latex)


def _as_fraction(match: re.Match[str]) -> str:
    whole, fixed, cycle = match.groups()
    top = int(whole + fixed + cycle) - int((whole + fixed) or 0)
    return rf"\frac{{{top}}}{{{10 ** len(fixed) * (10 ** len(cycle) - 1)}}}"


def _as_power(match: re.Match[str]) -> str:
    digit, text, name = match.groups()
    return rf"{digit} \times 10^{{{_ZEROS[name]}}}" + (text or "")


def _unwrapped(latex: str) -> str:
    """Without the braces that enclose all of it."""
    while latex.startswith("{") and _closed(latex + " ", 1) == latex[1:-1]:
        latex = _ENDS.sub("", latex[1:-1])
    return latex
