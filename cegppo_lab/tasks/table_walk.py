"""Table walk: reach a target state in a table whose moves must be known by heart.

A prompt ``^35:`` asks for a walk from state 3 to state 5. The response makes ``steps`` steps, each
of them some filler words, a move ``x``, more filler words and the new state ``TABLE[state, x]``;
it ends with ``=`` and the last state. The reward reads the numbers only. The words are free: their
entropy is moved by nothing but the algorithm's own bias, while moves and states carry the signal.
"""

from __future__ import annotations

from functools import cached_property
from string import ascii_lowercase, digits
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from cegppo_lab.tasks.base import Problem, Task, register

Probability = Annotated[float, Field(ge=0, le=1)]


@register
class TableWalk(Task):
    """Walks of ``steps`` moves over ``states`` states, between filler words."""

    name: ClassVar[str] = "table_walk"
    version: ClassVar[int] = 1

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

    @property
    def max_response_tokens(self) -> int:
        return self.steps * (len(self.top_probability) + 2) + 4

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

    def _problem(self, code: int) -> Problem:
        start, target = divmod(int(code), self.states)
        return Problem(f"{self.name}/{start}-{target}", f"^{start}{target}:", f"{start}-{target}")

    def sample(self, count: int, rng: np.random.Generator) -> list[Problem]:
        return [self._problem(code) for code in rng.choice(self._pairs[1], count)]

    def heldout(self) -> list[Problem]:
        return [self._problem(code) for code in sorted(self._pairs[0])]

    def reward(self, problem: Problem, response: str) -> float:
        start, _, target = problem.answer.partition("-")
        numbers = [int(symbol) for symbol in response if symbol in digits]
        if len(numbers) != 2 * self.steps + 1 or not response.endswith(f"={target}"):
            return 0.0
        state = int(start)
        for move, claimed in zip(numbers[:-1:2], numbers[1::2], strict=True):
            if move >= self.states:
                return 0.0
            state = self._rows[state][move]
            if state != claimed:
                return 0.0
        return float(state == int(target))

    def demonstrations(self, count: int, rng: np.random.Generator) -> list[tuple[Problem, str]]:
        codes = rng.choice(self._pairs[1], count)
        state, target = np.divmod(codes, self.states)
        columns: list[np.ndarray] = []
        half = len(self._slots) // 2
        for step in range(self.steps):
            move = self._move(state, target, step == self.steps - 1, rng)
            state = self.table[state, move]
            columns += [_draw(words, p, count, rng) for words, p in self._slots[:half]]
            columns.append(move.astype(str))
            columns += [_draw(words, p, count, rng) for words, p in self._slots[half:]]
            columns.append(state.astype(str))
        columns += [np.full(count, "="), state.astype(str)]
        responses = ["".join(row) for row in zip(*columns, strict=True)]
        return [(self._problem(c), text) for c, text in zip(codes, responses, strict=True)]

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
