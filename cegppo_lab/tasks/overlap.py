"""Which benchmark problems share an n-gram of words with problems that are trained on.

The paper's training data are decontaminated by 9-grams (CE-GPPO, section 5: KlearReasoner-
MathSub-30K); how texts were normalised it does not say. Here they are as in GPT-3's analysis (Brown
et al. 2020, arXiv 2005.14165, appendix C): lower case, words between white space and punctuation,
punctuation dropped. LaTeX's delimiters, spacing and sizing commands are dropped first, so that
``$x \\, + \\, 1$`` and ``\\(x+1\\)`` are the same words; other commands are words, without their
backslash. A text of fewer than n words counts as one gram and equals only the same text. Operators
are punctuation: ``1 + 1`` and ``1 - 1`` count as the same, which reports too much, not too little.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cegppo_lab.tasks.base import Problem

N = 9
_LAYOUT = re.compile(
    r"\\(?:[,;:!>\s()\[\]]|(?:q?quad|left|right|[bB]igg?[lr]?|(?:display|text)style"
    r"|(?:thin|med|thick)space|mathrm|mathbf|text(?:bf|it|rm)?)(?![a-zA-Z]))"
)
_SCRIPTS = "\u3040-\u30ff\u3400-\u9fff"  # written without spaces: each character is a word
_WORD = re.compile(rf"[{_SCRIPTS}]|[^\W_{_SCRIPTS}]+")


def words(text: str) -> list[str]:
    """The normalised words of a text, in order."""
    plain = _LAYOUT.sub(" ", unicodedata.normalize("NFKC", text))
    return _WORD.findall(plain.lower())


def grams(text: str, n: int = N) -> list[str]:
    """The n-grams of a text in order, words joined by spaces; of fewer than n words, one."""
    found = words(text)
    if not found:
        return []
    return [" ".join(found[i : i + n]) for i in range(max(1, len(found) - n + 1))]


class Grams:
    """The n-grams of some problems' questions, to look others up in; memory is theirs alone."""

    def __init__(self, problems: Iterable[Problem], n: int = N) -> None:
        self.n = n
        self._owners: dict[str, list[str]] = {}
        for problem in problems:
            for gram in dict.fromkeys(grams(problem.question, n)):
                self._owners.setdefault(gram, []).append(problem.id)

    def shared(self, question: str) -> dict[str, str]:
        """Problem id -> the first n-gram that its question has in common with ``question``."""
        found: dict[str, str] = {}
        for gram in grams(question, self.n):
            for owner in self._owners.get(gram, ()):
                found.setdefault(owner, gram)
        return found


@dataclass(frozen=True)
class Overlap:
    """What a benchmark has in common with training problems.

    ``shared``: benchmark problem -> (a training problem, an n-gram of both), the first met.
    """

    benchmark: str
    problems: int
    shared: Mapping[str, tuple[str, str]]


def overlaps(
    training: Iterable[Problem], benchmarks: Mapping[str, Sequence[Problem]], n: int = N
) -> list[Overlap]:
    """The overlap of each benchmark with the training problems, which are read once.

    Time is linear in all texts together, memory in the benchmarks'.
    """
    indices = {name: Grams(problems, n) for name, problems in benchmarks.items()}
    shared: dict[str, dict[str, tuple[str, str]]] = {name: {} for name in benchmarks}
    for problem in training:
        for name, index in indices.items():
            for owner, gram in index.shared(problem.question).items():
                shared[name].setdefault(owner, (problem.id, gram))
    return [Overlap(name, len(found), shared[name]) for name, found in benchmarks.items()]
