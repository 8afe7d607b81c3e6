"""Held-out accuracy: k sampled responses per problem, each verdict kept."""

from __future__ import annotations

from typing import Any, Protocol

from cegppo_lab.store import EvalRecord
from cegppo_lab.streams import uniforms
from cegppo_lab.tasks import Task


class Sampler(Protocol):
    """What an evaluation needs of a policy; ``Policy`` is one."""

    def generate(self, prompts: list[str], **options: Any) -> Any:
        """Sampled responses with their ``texts``, those to one prompt next to each other."""
        ...


def evaluate(
    policy: Sampler, task: Task, *, step: int, seed: int, samples: int, temperature: float
) -> EvalRecord:
    """Sample ``samples`` responses to every held-out problem of ``task`` and verify them.

    The random stream depends on ``seed`` and ``step`` only. avg@k is the mean over problems of
    the mean over their samples (evaluation set-up of the paper).
    """
    problems = task.heldout()
    rollout = policy.generate(
        [problem.prompt for problem in problems],
        repeats=samples,
        max_new_tokens=task.max_response_tokens,
        temperature=temperature,
        uniforms=uniforms(
            len(problems) * samples, task.max_response_tokens, seed, "eval", task.name, step
        ),
    )
    rows = [problem for problem in problems for _ in range(samples)]
    return EvalRecord(
        step=step,
        benchmark=task.name,
        problem=[problem.id for problem in rows],
        sample=list(range(samples)) * len(problems),
        correct=task.rewards(rows, rollout.texts),
    )
