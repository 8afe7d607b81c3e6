"""What a task is: problems, a verifier that turns a response into a reward, demonstrations."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from cegppo_lab.errors import LabError


@dataclass(frozen=True)
class Problem:
    """One prompt with what the verifier needs; ``id`` is stable, e.g. ``"table_walk/3-5"``.

    ``question``: the text without the prompt's template; by default the prompt.
    """

    id: str
    prompt: str
    answer: str
    question: str = ""

    def __post_init__(self) -> None:
        if not self.question:
            object.__setattr__(self, "question", self.prompt)


class Task(BaseModel):
    """A source of verifiable problems; the fields of a subclass are the task's options.

    ``version`` is bumped when the same options begin to mean other problems or other rewards;
    it enters trial ids.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: ClassVar[str]
    version: ClassVar[int]
    data_options: ClassVar[frozenset[str]] = frozenset()
    """Options that only say where the data of :meth:`data_hash` lie; no part of trial ids."""
    neutral: ClassVar[frozenset[str]] = frozenset()
    """Options that came later: no part of trial ids while they have their defaults."""

    def __eq__(self, other: object) -> bool:
        """By the options; what was derived from them and kept does not count."""
        return type(self) is type(other) and self.model_dump() == other.model_dump()

    def __hash__(self) -> int:
        return hash((self.name, self.model_dump_json()))

    def data_hash(self) -> str | None:
        """Hash of the content of external data, which enters trial ids; None: there are none.

        Raises:
            LabError: the data cannot be had.
        """
        return None

    @property
    @abstractmethod
    def max_response_tokens(self) -> int:
        """Tokens a response may have, the end-of-sequence token included."""

    @abstractmethod
    def sample(self, count: int, rng: np.random.Generator) -> list[Problem]:
        """``count`` training problems, drawn with replacement, none of them held out."""

    @abstractmethod
    def heldout(self) -> list[Problem]:
        """The fixed evaluation problems, which neither training nor demonstrations contain."""

    def training(self) -> list[Problem] | None:
        """All problems that :meth:`sample` draws from; None: too many to list."""
        return None

    def training_count(self) -> int | None:
        """How many problems :meth:`sample` draws from; None: only making them all would tell."""
        return None

    def contaminated(self) -> int:
        """How many problems the task leaves out of training for their overlap with benchmarks."""
        return 0

    def at_hand(self) -> bool:
        """Whether the problems can be had without a network."""
        return True

    @abstractmethod
    def reward(self, problem: Problem, response: str) -> float:
        """1.0 if the decoded ``response`` solves ``problem``, else 0.0; any string is allowed.

        A task that says so gives partial credit in between.
        """

    def rewards(self, problems: Sequence[Problem], responses: Sequence[str]) -> list[float]:
        """:meth:`reward` of each response to the problem beside it; faster, where a task can."""
        return [self.reward(*pair) for pair in zip(problems, responses, strict=True)]

    def answer(self, problem: Problem, response: str) -> str | None:
        """What ``response`` answers, for votes (maj@k): equal strings are equal answers.

        None: it answers nothing.
        """
        return response.strip() or None

    def demonstrations(self, count: int, rng: np.random.Generator) -> list[tuple[Problem, str]]:
        """``count`` training problems with a response each (no end token), for pretraining.

        Raises:
            LabError: the task has no demonstrations.
        """
        raise LabError(f"task {self.name!r} has no demonstrations to pretrain on.")

    def vocabulary(self) -> Sequence[str]:
        """The tokens that prompts and responses are made of, for a policy of the task's own.

        Raises:
            LabError: the task is written in ordinary text and brings no vocabulary.
        """
        raise LabError(f"task {self.name!r} has no vocabulary to pretrain a policy with.")

    def token_weight(self, token: str) -> float:
        """How much the token counts in the pretraining loss (1.0 unless a task says otherwise)."""
        return 1.0


_TASKS: dict[str, type[Task]] = {}
_T = TypeVar("_T", bound=type[Task])


def register(cls: _T) -> _T:
    """Class decorator that makes a task known by its ``name``; a name is taken only once."""
    if cls.name in _TASKS:
        raise ValueError(f"task {cls.name!r} is already {_TASKS[cls.name].__qualname__}")
    _TASKS[cls.name] = cls
    return cls


def registered() -> dict[str, type[Task]]:
    """A copy of the registry: task class by name."""
    return dict(_TASKS)
