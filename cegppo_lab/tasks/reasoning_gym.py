"""Any data set of the package reasoning_gym (arXiv 2505.24760), scored by that data set itself."""

from __future__ import annotations

import hashlib
import json
import re
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from cegppo_lab.errors import LabError, unknown
from cegppo_lab.tasks.base import Problem, Task, register
from cegppo_lab.tasks.gym_process import GYM

_PLACEHOLDER = "{question}"
_OPEN, _CLOSE = "<answer>", "</answer>"
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:,\d{3})*(?:\.\d+)?")
_TAIL = 10_000
"""Characters from the end in which the last number is looked for."""
_PATIENCE = 200
"""Redraws of held-out problems, after which there are taken to be no others."""
_OWN = {"seed": "pool_seed", "size": "pool_size"}


@register
class ReasoningGym(Task):
    r"""Entries 0 to ``pool_size`` - 1 of one data set, made on demand and split by their texts.

    An entry is held out if the sha256 of its question, as a share of the largest, lies below
    ``heldout_share``: no text is in both splits, and more problems or another pool change none.

    The answer is what the last ``<answer>...</answer>`` holds, as the package's own system prompts
    ask and its ``extract_answer`` reads; a box would need LaTeX around grids, JSON and code. The
    reward is the data set's own score in [0, 1], partial credit included, unless
    ``partial_credit`` is off; a response without an answer gets 0, where some data sets give 0.01.

    Of version 0.1.25, ``game_of_life_halting`` scores any answer 1.0 and ``puzzle24`` does not ask
    which four numbers were used: a policy trained on them learns that.
    """

    name: ClassVar[str] = "reasoning_gym"
    version: ClassVar[int] = 1

    dataset: str = Field("chain_sum", min_length=1, description="a data set's name")
    options: dict[str, Any] = Field(
        default_factory=dict, description="of the data set, e.g. {max_terms: 3}"
    )
    prompt_template: str = Field(
        "{question}\n\nGive the final answer alone between <answer> and </answer>.",
        description="the prompt, with {question} where the question goes",
    )
    extract: Literal["tag", "last_number"] = Field(
        "tag", description="what counts as the answer: the last <answer>, or the last number"
    )
    response_tokens: int = Field(256, ge=2, description="tokens that a response may have")
    heldout_problems: int = Field(64, ge=1, description="problems kept for evaluation")
    heldout_share: float = Field(
        0.2, gt=0, le=1, description="share of all problems that are never trained on"
    )
    pool_size: int = Field(10_000, ge=1, description="entries that training draws from")
    pool_seed: int = Field(0, ge=0, description="seed of the entries")
    partial_credit: bool = Field(True, description="false: scores below 1 count as 0")

    @field_validator("prompt_template")
    @classmethod
    def _has_placeholder(cls, value: str) -> str:
        if _PLACEHOLDER not in value:
            raise ValueError(f"must contain {_PLACEHOLDER}")
        return value

    @field_validator("options")
    @classmethod
    def _plain_options(cls, value: dict[str, Any]) -> dict[str, Any]:
        for key in _OWN.keys() & value.keys():
            raise ValueError(f"{key} is set by task.{_OWN[key]}")
        try:
            return json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError):
            raise ValueError("must hold plain values: numbers, texts, lists, mappings") from None

    @property
    def max_response_tokens(self) -> int:
        return self.response_tokens

    def data_hash(self) -> str:
        """Hash of the package's version: another one may make other problems.

        Raises:
            LabError: the package is not installed, or does not make this data set.
        """
        return hashlib.sha256(f"reasoning-gym {self._package_version}".encode()).hexdigest()

    def sample(self, count: int, rng: np.random.Generator) -> list[Problem]:
        if self.heldout_share == 1.0:
            raise LabError("task.heldout_share=1.0 leaves nothing to train on; lower it, e.g. 0.2.")
        indices = rng.integers(self.pool_size, size=count)
        for _ in range(_PATIENCE):
            held = np.array([self._is_held(index) for index in indices.tolist()], dtype=bool)
            if not held.any():
                return [self._problem(index) for index in indices.tolist()]
            indices[held] = rng.integers(self.pool_size, size=int(held.sum()))
        raise LabError(
            f"nearly all of the {self.pool_size} problems of {self.dataset} are held out; "
            f"lower task.heldout_share={self.heldout_share}, or raise task.pool_size."
        )

    def heldout(self) -> list[Problem]:
        return list(self._heldout)

    def reward(self, problem: Problem, response: str) -> float:
        """The score of the answer in [0, 1]; an answer that the scorer cannot bear gets 0."""
        answer = self.answer(problem, response)
        if answer is None:
            return 0.0
        score = self._ask("score", index=self._index(problem), answer=answer)["score"]
        return float(score) if self.partial_credit or score == 1.0 else 0.0

    def answer(self, problem: Problem, response: str) -> str | None:
        """What the last ``<answer>`` that is closed holds, stripped; takes linear time.

        With ``extract=last_number`` the last number of the response, as lm-evaluation-harness's
        ``flexible-extract`` reads one, for models too small to keep to a format.
        """
        if self.extract == "last_number":
            numbers = _NUMBER.findall(response[-_TAIL:])
            return numbers[-1].replace(",", "") if numbers else None
        start = response.rfind(_OPEN, 0, max(response.rfind(_CLOSE), 0))
        if start < 0:
            return None
        start += len(_OPEN)
        return response[start : response.find(_CLOSE, start)].strip() or None

    @cached_property
    def _heldout(self) -> tuple[Problem, ...]:
        """The first ``heldout_problems`` held-out texts of the pool, by their indices."""
        found: dict[str, Problem] = {}
        for index in range(self.pool_size):
            if self._is_held(index):
                problem = self._problem(index)
                found.setdefault(problem.question, problem)
            if len(found) == self.heldout_problems:
                return tuple(found.values())
        raise LabError(
            f"task.heldout_problems={self.heldout_problems}: only {len(found)} different ones of "
            f"the {self.pool_size} problems of {self.dataset} are held out; lower it, or raise "
            "task.heldout_share or task.pool_size."
        )

    @cached_property
    def _known(self) -> dict[int, Problem]:
        """The problems made so far, by index: at most ``pool_size`` short texts."""
        return {}

    def _problem(self, index: int) -> Problem:
        if index not in self._known:
            made = self._ask("problem", index=index)
            self._known[index] = Problem(
                id=f"{self.name}/{self.dataset}/{index}",
                prompt=self.prompt_template.replace(_PLACEHOLDER, made["question"].rstrip()),
                answer=made["answer"],
                question=made["question"],
            )
        return self._known[index]

    def _is_held(self, index: int) -> bool:
        digest = hashlib.sha256(self._problem(index).question.encode()).hexdigest()
        return int(digest, 16) < self.heldout_share * 16**64

    def _index(self, problem: Problem) -> int:
        """The entry's index; a benchmark puts its own name in the place of the task's."""
        *_, dataset, index = ("", *problem.id.split("/"))
        if dataset != self.dataset or not index.isdecimal():
            raise LabError(f"problem {problem.id!r} is none of {self.name}/{self.dataset}.")
        return int(index)

    @cached_property
    def _package_version(self) -> str:
        return self._ask("check")["version"]

    @cached_property
    def _description(self) -> str:
        return json.dumps([self.dataset, self.options, self.pool_seed, self.pool_size])

    def _ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        reply = GYM.ask(do, description=self._description, **arguments)
        if reply is None:
            if do == "score":
                return {"score": 0.0}
            reply = {"error": "it takes too much time or memory"}
        if "unknown" in reply:
            kinds = {"dataset": "reasoning_gym dataset", "option": f"option of {self.dataset}"}
            raise unknown(kinds[reply["unknown"]], reply["given"], reply["allowed"])
        if "error" in reply:
            raise LabError(
                f"reasoning_gym cannot make {self.dataset} with task.options={self.options} and "
                f"task.pool_size={self.pool_size}: {reply['error']}"
            )
        return reply
