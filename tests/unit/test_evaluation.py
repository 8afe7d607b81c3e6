"""Held-out evaluation: each verdict belongs to its problem and sample."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from cegppo_lab.evaluation import evaluate
from cegppo_lab.tasks import Problem, Task


class Echo(Task):
    """A response is right when it repeats the prompt."""

    name = "echo"
    version = 1

    @property
    def max_response_tokens(self) -> int:
        return 3

    def sample(self, count: int, rng: np.random.Generator) -> list[Problem]:
        raise AssertionError("an evaluation uses held-out problems only")

    def heldout(self) -> list[Problem]:
        return [Problem(f"echo/{text}", text, text) for text in "abc"]

    def reward(self, problem: Problem, response: str) -> float:
        return float(response == problem.answer)


class Parrot:
    """Repeats the prompt in the samples that ``right`` names, by prompt."""

    def __init__(self, right: dict[str, set[int]]) -> None:
        self.right, self.calls = right, []

    def generate(self, prompts: list[str], **options: Any) -> SimpleNamespace:
        self.calls.append(options)
        return SimpleNamespace(
            texts=[
                prompt if sample in self.right[prompt] else "?"
                for prompt in prompts
                for sample in range(options["repeats"])
            ]
        )


def _evaluate(policy: Parrot, **changes: int) -> Any:
    options = {"step": 8, "seed": 1, "samples": 2, "temperature": 0.6} | changes
    return evaluate(policy, Echo(), **options)


def test_each_verdict_is_kept_with_its_problem_and_sample() -> None:
    policy = Parrot({"a": {0}, "b": set(), "c": {0, 1}})
    record = _evaluate(policy)
    rows = list(zip(record.problem, record.sample, record.correct, strict=True))
    assert rows == [
        ("echo/a", 0, 1.0),
        ("echo/a", 1, 0.0),
        ("echo/b", 0, 0.0),
        ("echo/b", 1, 0.0),
        ("echo/c", 0, 1.0),
        ("echo/c", 1, 1.0),
    ]
    assert (record.step, record.benchmark) == (8, "echo")
    assert policy.calls[0]["temperature"] == 0.6
    assert policy.calls[0]["max_new_tokens"] == 3


def test_the_randomness_depends_on_seed_and_step_only() -> None:
    policy = Parrot({"a": set(), "b": set(), "c": set()})
    for changes in ({}, {}, {"seed": 2}, {"step": 16}):
        _evaluate(policy, **changes)
    first, again, seed, step = (call["uniforms"].tolist() for call in policy.calls)
    assert first == again
    assert first != seed != step != first
