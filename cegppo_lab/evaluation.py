"""Evaluation during training: k sampled responses per problem, each verdict kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import torch

from cegppo_lab.benchmark import Benchmark, load_benchmark
from cegppo_lab.config import RunConfig
from cegppo_lab.errors import LabError
from cegppo_lab.store import EvalRecord
from cegppo_lab.streams import uniforms
from cegppo_lab.tasks import Problem, Task

RANDOM_NUMBERS = 1 << 24
"""Random numbers that are held at a time for a benchmark: 64 MiB."""


class Sampler(Protocol):
    """What an evaluation needs of a policy; ``Policy`` is one."""

    def generate(self, prompts: list[str], **options: Any) -> Any:
        """Sampled responses with their ``texts``, those to one prompt next to each other."""
        ...


@dataclass(frozen=True)
class ProblemSet:
    """Problems that a run is evaluated on, under the ``name`` that its records carry."""

    name: str
    task: Task
    """Whose verifier decides."""
    problems: Sequence[Problem]
    max_tokens: int
    """Tokens of a response, the end-of-sequence token included."""

    def draws(
        self, samples: int, seed: int, step: int
    ) -> Iterator[tuple[Sequence[Problem], torch.Tensor]]:
        """The problems with the random numbers of their responses.

        The numbers are (problems x samples, max_tokens), a problem's samples next to each other.
        """
        rows = len(self.problems) * samples
        yield self.problems, uniforms(rows, self.max_tokens, seed, "eval", self.name, step)


class BenchmarkSet(ProblemSet):
    """A benchmark: a stream of random numbers a problem, drawn for a few problems at a time."""

    def draws(
        self, samples: int, seed: int, step: int
    ) -> Iterator[tuple[Sequence[Problem], torch.Tensor]]:
        """See :meth:`ProblemSet.draws`."""
        size = max(1, RANDOM_NUMBERS // (samples * self.max_tokens))
        for start in range(0, len(self.problems), size):
            some = self.problems[start : start + size]
            streams = [(seed, "eval", problem.id, step) for problem in some]
            noise = [uniforms(samples, self.max_tokens, *stream) for stream in streams]
            yield some, torch.cat(noise)


def evaluated(config: RunConfig) -> list[ProblemSet]:
    """What the run is evaluated on: its benchmarks, else the held-out problems of its task.

    Raises:
        LabError: the problems cannot be had or are not the pinned ones.
    """
    task = config.task
    if not config.benchmarks:
        return [ProblemSet(task.name, task, task.heldout(), task.max_response_tokens)]
    return [
        BenchmarkSet(each.name, each.task, each.problems, each.max_tokens)
        for each in benchmarks(config)
    ]


def benchmarks(config: RunConfig) -> list[Benchmark]:
    """The benchmarks of the run; their problems are not read.

    Raises:
        LabError: two of them have one name.
    """
    found = [_benchmark(name) for name in config.benchmarks]
    names = [benchmark.name for benchmark in found]
    for name in names:
        if names.count(name) > 1:
            raise LabError(
                f"benchmarks={list(config.benchmarks)}: two of them are named {name!r}; "
                "rename one, with name: in its file"
            )
    return found


@lru_cache(maxsize=32)
def _benchmark(name: str) -> Benchmark:
    """The benchmark, whose problems a process reads once."""
    return load_benchmark(name)


def evaluate(
    policy: Sampler,
    problem_set: ProblemSet,
    *,
    step: int,
    seed: int,
    samples: int,
    temperature: float,
) -> EvalRecord:
    """Sample ``samples`` responses to every problem of the set and verify them.

    The random numbers depend on ``seed``, ``step`` and the set only. avg@k is the mean over
    problems of the mean over their samples (evaluation set-up of the paper).
    """
    problem_ids: list[str] = []
    correct: list[float] = []
    for problems, noise in problem_set.draws(samples, seed, step):
        rollout = policy.generate(
            [problem.prompt for problem in problems],
            repeats=samples,
            max_new_tokens=problem_set.max_tokens,
            temperature=temperature,
            uniforms=noise,
        )
        rows = [problem for problem in problems for _ in range(samples)]
        problem_ids += [problem.id for problem in rows]
        correct += problem_set.task.rewards(rows, rollout.texts)
    return EvalRecord(
        step=step,
        benchmark=problem_set.name,
        problem=problem_ids,
        sample=list(range(samples)) * len(problem_set.problems),
        correct=correct,
    )
