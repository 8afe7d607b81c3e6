"""A process of the verifier's pool: compares answers with math-verify, one JSON line each.

It is run as a file and imports :mod:`cegppo_lab.serving` alone of this package, so that it starts
fast and stays small.
Arguments: the parent's process id, and the memory limit in bytes.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import logging
import os
import re
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any

from cegppo_lab.serving import requests

_GRACE_S = 1.0
_RECURSION_LIMIT = 3000
_KNOWN = (
    (r"\frac{1}{2}", r"\dfrac{2}{4}", True),
    (r"2\sqrt{3}", r"\sqrt{12}", True),
    (r"\{1, 2\}", r"\{2, 1\}", True),
    (r"[0, 1)", r"[0, 1.0)", True),
    (r"x^2+2x+1", r"(x+1)^2", True),
    (r"\frac{1}{2}", r"\frac{1}{3}", False),
    (r"[0, 1)", r"[0, 1]", False),
    (r"\{1, 2\}", r"\{1, 3\}", False),
    (r"x^2", r"x^3", False),
    (r"3", r"2=3", False),
    (r"[0, 1)", r"0 \le x < 1", True),
    (r"\frac{1}{2} + \frac{\sqrt{3}}{2}i", r"e^{i\pi/3}", True),
    (r"\{\sqrt{2}, 3\}", r"\{\sqrt{2} + 10^{-20}, 3\}", False),
)
_INTERVAL = re.compile(r"^\[|\]$|\\infty|\\cup")
"""Gold answers that are sets for sure; (1, 2) may be a point."""
_SIX_DIGITS, _ROUNDING = 5.1e-6, 1e-80


def load_comparison() -> Callable[[str, str], bool]:
    """``equal(gold, answer)`` on LaTeX, by math-verify without its alarms.

    Only the LaTeX of the whole answer counts: math-verify's search for any number in what it
    cannot parse would reward a guess amid noise.
    """
    from math_verify import grader, parse, verify
    from math_verify.parser import LatexExtractionConfig

    lenient = grader.sympy_numeric_eq
    grader.sympy_numeric_eq = lambda *given: lenient(*given) and not _apart(*given[:2])
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    boxed = [LatexExtractionConfig(boxed_match_priority=0, try_extract_without_anchor=False)]

    def read(latex: str) -> list[Any]:
        return [_with_i(e) for e in parse(rf"\boxed{{{latex}}}", boxed, parsing_timeout=None)]

    def equal(gold: str, answer: str) -> bool:
        expected, given = read(gold), read(answer)
        if any(symbol.is_real is False for symbol in _symbols(expected + given)):
            expected, given = map(_all_complex, (expected, given))
        if given and (_is_undefined(given[0]) or _is_false_statement(given[0])):
            return False
        as_sets = bool(_INTERVAL.search(gold))
        return bool(verify(expected, given, timeout_seconds=None, allow_set_relation_comp=as_sets))

    return equal


def _apart(gold: Any, given: Any) -> bool:
    """Whether two values that agree to some decimal places differ all the same.

    A decimal must have six significant digits right, an exact value all of them.
    """
    from sympy import Expr, Float

    if not isinstance(gold, Expr) or not isinstance(given, Expr):
        return False  # matrices come here element by element
    gold, given = gold.doit(), given.doit()
    rounded = gold.has(Float) or given.has(Float)
    difference = gold - given
    if difference.free_symbols:
        return not rounded and difference.evalf(15) != 0
    allowed = (_SIX_DIGITS if rounded else _ROUNDING) * abs(gold.evalf(30))
    return bool(abs(difference.evalf(30)) > allowed)


def _with_i(parsed: Any) -> Any:
    """With the imaginary unit for the variable i, as which math-verify mostly reads it."""
    from sympy import Eq, I
    from sympy.core.relational import Relational

    if isinstance(parsed, str):
        return parsed
    if isinstance(parsed, Eq):  # as it is written, without i = 5 and z = 2i becoming False
        name, value = parsed.args
        return Eq(name if name.is_Symbol else _with_i(name), _with_i(value), evaluate=False)
    if parsed.has(Relational):
        return parsed
    return parsed.xreplace({symbol: I for symbol in parsed.free_symbols if symbol.name == "i"})


def _symbols(parsed: list[Any]) -> set[Any]:
    return set().union(*(expr.free_symbols for expr in parsed if not isinstance(expr, str)))


def _all_complex(parsed: list[Any]) -> list[Any]:
    """With symbols of any value; math-verify reads one side so, and the other's as real."""
    from sympy import Symbol

    names = {symbol: Symbol(symbol.name) for symbol in _symbols(parsed)}
    return [expr if isinstance(expr, str) else expr.xreplace(names) for expr in parsed]


def _is_undefined(parsed: Any) -> bool:
    """Whether it divides by zero; math-verify calls all that does equal."""
    from sympy import nan, zoo

    return not isinstance(parsed, str) and parsed.has(nan, zoo)


def _is_false_statement(parsed: Any) -> bool:
    """Whether it is an equation of two different numbers; math-verify reads its right side only."""
    from sympy import Eq

    if not isinstance(parsed, Eq) or parsed.free_symbols:
        return False
    left, right = (side.doit() for side in parsed.args)
    return bool(left.is_number and right.is_number and abs((left - right).evalf()) > 1e-6)


def self_check(equal: Callable[[str, str], bool]) -> str | None:
    """What is wrong with the comparison, in words, or None."""
    for gold, answer, expected in _KNOWN:
        if equal(gold, answer) is not expected:
            version = importlib.metadata.version("math-verify")
            verdict = "right" if expected else "wrong"
            return (
                f"math-verify {version} does not call {answer!r} {verdict} where the answer is "
                f"{gold!r}; install the version that the constraints name."
            )
    return None


def _judge(equal: Callable[[str, str], bool], pairs: list[list[str]]) -> bool:
    """Whether any of the (gold, answer) readings agrees. MemoryError passes."""
    for gold, answer in pairs:
        try:
            if equal(gold, answer):
                return True
        except MemoryError:
            raise
        except Exception:  # whatever sympy makes of a hostile answer, it is no right answer
            continue
    return False


def _serve(
    equal: Callable[[str, str], bool],
    reply: Callable[[Any], None],
    parent: int,
    memory_bytes: int,
) -> None:
    for request in requests(parent):
        # The kernel ends a worker whose parent died in the middle; no Python code need run.
        signal.setitimer(signal.ITIMER_REAL, request["timeout"] + _GRACE_S)
        verdict = _judge(equal, request["pairs"])
        signal.setitimer(signal.ITIMER_REAL, 0)
        reply({"verdict": verdict, "spent": _peak_bytes() > memory_bytes // 2})


def _peak_bytes() -> int:
    """The largest memory this process has had; getrusage's would include its parent's at birth."""
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(parent: int, memory_bytes: int) -> None:
    """Announce ``{"ready": true}`` or ``{"error": ...}``, then serve."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
    with os.fdopen(os.dup(1), "w", buffering=1) as out:
        os.dup2(2, 1)  # nothing that a library prints may pass for a verdict

        def reply(message: Any) -> None:
            out.write(json.dumps(message) + "\n")

        try:
            equal = load_comparison()
            problem = self_check(equal)
        except ImportError as error:
            problem = f"{error}; install it: pip install math-verify"
        if problem:
            return reply({"error": problem})
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        sys.setrecursionlimit(_RECURSION_LIMIT)
        reply({"ready": True})
        try:
            _serve(equal, reply, parent, memory_bytes)
        except MemoryError:
            reply({"verdict": False, "spent": True})
    return None


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
