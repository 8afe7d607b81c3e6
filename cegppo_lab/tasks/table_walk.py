"""Table walk: reach a target state in a table whose moves must be known by heart.

A prompt ``^35:`` asks for a walk from state 3 to state 5. The response makes ``steps`` steps, each
of them some filler words, a move ``x``, more filler words and the new state ``TABLE[state, x]``;
it ends with ``=`` and the last state. The reward reads the numbers only. The words are free: their
entropy is moved by nothing but the algorithm's own bias, while moves and states carry the signal.
With ``given`` steps the prompt goes on with the first steps of a walk, their moves drawn from all.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from string import ascii_lowercase, digits
from typing import Annotated, ClassVar, Self

import numpy as np
from pydantic import Field, model_validator

from cegppo_lab.tasks.base import Problem, Task, register

Probability = Annotated[float, Field(ge=0, le=1)]
_GIVEN_WALKS = 5
"""Held-out problems of a (start, target) pair where the prompt gives the first steps."""


@register
class TableWalk(Task):
    """Walks of ``steps`` moves over ``states`` states, between filler words."""

    name: ClassVar[str] = "table_walk"
    version: ClassVar[int] = 1
    neutral: ClassVar[frozenset[str]] = frozenset({"given"})

    states: int = Field(8, ge=3, le=10, description="states, and moves out of each")
    steps: int = Field(6, ge=1, le=64, description="moves of a walk")
    words: int = Field(20, ge=2, le=26, description="words that may fill a slot")
    top_probability: tuple[Probability, ...] = Field(
        (0.85, 0.6, 0.9, 0.75, 0.9, 0.8),
        max_length=26,
        description="per filler slot: probability of its commonest word in demonstrations",
    )
    tail_exponent: float = Field(0.7, ge=0, description="Zipf exponent of the other words")
    finishing_pairs: Probability = Field(
        0.4, description="share of the (state, target) pairs whose finishing move is demonstrated"
    )
    finishing_rate: Probability = Field(
        0.7, description="how often a demonstration makes the finishing move at such a pair"
    )
    table_seed: int = Field(7, ge=0, description="seed of the table and of the finishing pairs")
    heldout_seed: int = Field(11, ge=0, description="seed of the held-out (start, target) pairs")
    given: int = Field(0, ge=0, le=8, description="steps of the walk that the prompt has already")

    @model_validator(mode="after")
    def _leaves_a_step(self) -> Self:
        if self.given >= self.steps:
            raise ValueError(f"given={self.given} must be less than steps={self.steps}")
        return self

    @property
    def max_response_tokens(self) -> int:
        return self._steps_left * (len(self.top_probability) + 2) + 4

    @property
    def _steps_left(self) -> int:
        return self.steps - self.given

    @cached_property
    def _table_and_known(self) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(self.table_seed)
        table = np.stack([rng.permutation(self.states) for _ in range(self.states)])
        known = rng.random((self.states, self.states)) < self.finishing_pairs
        return table, known

    @property
    def table(self) -> np.ndarray:
        """(states, states) int: the state that each (state, move) leads to; rows permute."""
        return self._table_and_known[0]

    @cached_property
    def _rows(self) -> list[list[int]]:
        return self.table.tolist()

    @cached_property
    def _pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Codes start * states + target of the held-out and of the training pairs (1 : 4)."""
        codes = np.random.default_rng(self.heldout_seed).permutation(self.states**2)
        held = self.states**2 // 5
        return codes[:held], codes[held:]

    def _problem(self, code: int, moves: Sequence[int] = ()) -> Problem:
        """``moves`` are made in the prompt; the answer is where they lead, and the target."""
        start, target = divmod(int(code), self.states)
        half, state, walked = len(self._slots) // 2, start, ""
        words = [str(words[0]) for words, _ in self._slots]
        for move in moves:
            state = self._rows[state][move]
            walked += "".join([*words[:half], str(move), *words[half:], str(state)])
        name = "/".join([self.name, f"{start}-{target}", *filter(None, ["".join(map(str, moves))])])
        return Problem(name, f"^{start}{target}:{walked}", f"{state}-{target}")

    def sample(self, count: int, rng: np.random.Generator) -> list[Problem]:
        codes = rng.choice(self._pairs[1], count)
        moves = rng.integers(self.states, size=(count, self.given)).tolist()
        return [self._problem(*drawn) for drawn in zip(codes, moves, strict=True)]

    def heldout(self) -> list[Problem]:
        return [
            self._problem(code, moves)
            for code in sorted(self._pairs[0])
            for moves in self._given_moves(int(code))
        ]

    def training(self) -> list[Problem] | None:
        return None if self.given else [self._problem(code) for code in sorted(self._pairs[1])]

    def training_count(self) -> int:
        return len(self._pairs[1]) * self.states**self.given

    def _given_moves(self, code: int) -> list[list[int]]:
        """The distinct beginnings of the held-out walks of a pair; one empty one without any."""
        kinds = self.states**self.given
        rng = np.random.default_rng([self.heldout_seed, code])
        chosen = sorted(rng.choice(kinds, min(_GIVEN_WALKS, kinds), replace=False).tolist())
        powers = [self.states**place for place in reversed(range(self.given))]
        return [[number // power % self.states for power in powers] for number in chosen]

    def reward(self, problem: Problem, response: str) -> float:
        start, _, target = problem.answer.partition("-")
        walked = self.answer(problem, response)
        if walked is None or walked[-1] != target:
            return 0.0
        numbers = [int(symbol) for symbol in walked]
        state = int(start)
        for move, claimed in zip(numbers[:-1:2], numbers[1::2], strict=True):
            if move >= self.states:
                return 0.0
            state = self._rows[state][move]
            if state != claimed:
                return 0.0
        return float(state == int(target))

    def answer(self, problem: Problem, response: str) -> str | None:
        """The numbers of the walk, whatever the words; None: too few, too many, or no end."""
        numbers = "".join(symbol for symbol in response if symbol in digits)
        whole = len(numbers) == 2 * self._steps_left + 1 and response[-2:] == f"={numbers[-1]}"
        return numbers if whole else None

    def demonstrations(self, count: int, rng: np.random.Generator) -> list[tuple[Problem, str]]:
        problems = self.sample(count, rng)
        ends = [problem.answer.split("-") for problem in problems]
        state, target = np.array(ends, dtype=int).reshape(-1, 2).T
        columns: list[np.ndarray] = []
        half = len(self._slots) // 2
        for step in range(self._steps_left):
            move = self._move(state, target, step == self._steps_left - 1, rng)
            state = self.table[state, move]
            columns += [_draw(words, p, count, rng) for words, p in self._slots[:half]]
            columns.append(move.astype(str))
            columns += [_draw(words, p, count, rng) for words, p in self._slots[half:]]
            columns.append(state.astype(str))
        columns += [np.full(count, "="), state.astype(str)]
        responses = ["".join(row) for row in zip(*columns, strict=True)]
        return list(zip(problems, responses, strict=True))

    def _move(
        self, state: np.ndarray, target: np.ndarray, last: bool, rng: np.random.Generator
    ) -> np.ndarray:
        """Demonstrated moves: the smaller the commoner, but for some of the last ones."""
        move = _inverse_cdf(np.arange(1, self.states + 1) ** -0.5, len(state), rng)
        if not last:
            return move
        table, known = self._table_and_known
        finishing = np.argsort(table, 1)[state, target]
        finishes = known[state, target] & (rng.random(len(state)) < self.finishing_rate)
        return np.where(finishes, finishing, move)

    @cached_property
    def _slots(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Per filler slot: its words and their probabilities in demonstrations."""
        tail = np.arange(1, self.words) ** -self.tail_exponent
        return [
            (
                np.array([slot + letter for letter in ascii_lowercase[: self.words]]),
                np.concatenate([[top], tail / tail.sum() * (1 - top)]),
            )
            for slot, top in zip(ascii_lowercase, self.top_probability, strict=False)
        ]

    def vocabulary(self) -> list[str]:
        fillers = [str(word) for words, _ in self._slots for word in words]
        return ["^", ":", "=", *digits[: self.states], *fillers]

    def token_weight(self, token: str) -> float:
        """Numbers are a quarter of the tokens and carry the whole task: they count sixfold."""
        return 6.0 if token.isdigit() else 1.0


def _inverse_cdf(weights: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    cumulative = np.cumsum(weights / weights.sum())
    return np.minimum(np.searchsorted(cumulative, rng.random(count)), len(weights) - 1)


def _draw(words: np.ndarray, p: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    return words[_inverse_cdf(p, count, rng)]
