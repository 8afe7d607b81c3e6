"""Chain: add labelled digits modulo 10, one after the other, in an order of one's own.

The prompt ``^a3b5c0d7e7f1:`` lists the digits. A response visits the labels in any order and notes
the running sum, either with the digit it copied (``b5>8``) or without (``b~8``), then states the
last sum, ``=3``. The reward looks at that statement only. Its optimum is nearly deterministic, so
learning itself lowers the entropy here.
"""

from __future__ import annotations

from functools import cached_property
from string import ascii_lowercase, digits
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from cegppo_lab.tasks.base import Problem, Task, register

Probability = Annotated[float, Field(ge=0, le=1)]
_LABELS = ascii_lowercase[:8]
_HELDOUT_SEED = 11
_LISTING_SEED = 13


@register
class Chain(Task):
    """Sums modulo 10 of ``terms`` labelled digits."""

    name: ClassVar[str] = "chain"
    version: ClassVar[int] = 1
    neutral: ClassVar[frozenset[str]] = frozenset({"listing"})

    terms: int = Field(6, ge=3, le=len(_LABELS), description="digits to add")
    heldout_problems: int = Field(64, ge=1, le=200, description="problems kept for evaluation")
    slip_rate: Probability = Field(
        0.03, description="demonstrations: chance of a wrong digit, and of a wrong sum, per term"
    )
    skip_rate: Probability = Field(0.01, description="demonstrations: chance of leaving a term out")
    short_rate: Probability = Field(
        0.7, description="demonstrations: share of those that mostly omit the copied digit"
    )
    style_mix: Probability = Field(
        0.1, description="demonstrations: chance per term of the other of the two styles"
    )
    listing: Literal["sorted", "swapped"] = Field(
        "sorted", description="order of the labels in the prompt; swapped: two neighbours exchanged"
    )

    @property
    def max_response_tokens(self) -> int:
        return 4 * self.terms + 5

    @cached_property
    def _heldout_codes(self) -> frozenset[int]:
        rng = np.random.default_rng(_HELDOUT_SEED)
        return frozenset(rng.choice(10**self.terms, self.heldout_problems, replace=False).tolist())

    def _problem(self, code: int) -> Problem:
        values = f"{code:0{self.terms}d}"
        order = list(range(self.terms))
        if self.listing == "swapped":
            i = int(np.random.default_rng([_LISTING_SEED, code]).integers(self.terms - 1))
            order[i], order[i + 1] = order[i + 1], order[i]
        listed = "".join(_LABELS[i] + values[i] for i in order)
        answer = str(sum(map(int, values)) % 10)
        return Problem(f"{self.name}/{values}", f"^{listed}:", answer)

    def _sample_codes(self, count: int, rng: np.random.Generator) -> np.ndarray:
        codes = rng.integers(10**self.terms, size=count)
        while (held := np.isin(codes, list(self._heldout_codes))).any():
            codes[held] = rng.integers(10**self.terms, size=int(held.sum()))
        return codes

    def sample(self, count: int, rng: np.random.Generator) -> list[Problem]:
        return [self._problem(code) for code in self._sample_codes(count, rng).tolist()]

    def heldout(self) -> list[Problem]:
        return [self._problem(code) for code in sorted(self._heldout_codes)]

    def training_count(self) -> int:
        return 10**self.terms - self.heldout_problems

    def reward(self, problem: Problem, response: str) -> float:
        return float(response.endswith(f"={problem.answer}"))

    def answer(self, problem: Problem, response: str) -> str | None:
        """The digit that the response states at its end; None: it ends otherwise."""
        stated = response[-2:]
        return stated[1] if stated[:1] == "=" and stated[1:] in set(digits) else None

    def demonstrations(self, count: int, rng: np.random.Generator) -> list[tuple[Problem, str]]:
        problems = self.sample(count, rng)
        return [(problem, self._solve(problem, rng)) for problem in problems]

    def _solve(self, problem: Problem, rng: np.random.Generator) -> str:
        """A demonstration, slips and skips included."""
        values = problem.id.rpartition("/")[2]
        short = rng.random() < self.short_rate
        skipped, misread, miscounted, other = (
            rng.random((4, self.terms))
            < np.array([self.skip_rate, self.slip_rate, self.slip_rate, self.style_mix])[:, None]
        ).tolist()
        guesses = rng.integers(10, size=(2, self.terms)).tolist()
        total, written = 0, []
        for i in rng.permutation(self.terms).tolist():
            if skipped[i]:
                continue
            value = guesses[0][i] if misread[i] else int(values[i])
            total = guesses[1][i] if miscounted[i] else (total + value) % 10
            copied = "~" if short != other[i] else f"{value}>"
            written.append(f"{_LABELS[i]}{copied}{total}")
        return "".join([*written, f"={total}"])

    def vocabulary(self) -> list[str]:
        return [*"^:=>~", *digits, *_LABELS]
