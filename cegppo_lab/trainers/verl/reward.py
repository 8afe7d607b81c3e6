"""Our tasks' verifiers as verl's custom reward function.

verl loads it from ``reward.custom_reward_function.path=pkg://cegppo_lab.trainers.verl.reward`` and
passes ``reward_kwargs`` along.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from omegaconf import OmegaConf

from cegppo_lab.tasks import Problem, Task, make_task

PATH = f"pkg://{__name__}"
"""What ``reward.custom_reward_function.path`` must be."""


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any],
    *,
    tasks: Mapping[str, Mapping[str, Any]],
) -> dict[str, float | str]:
    """The reward of one response, and its verdict under the names that verl writes out.

    Args:
        data_source: whose problem it is: the training task's or a benchmark's.
        solution_str: decoded by verl without special tokens, as our verifiers expect it.
        ground_truth: the problem's answer.
        extra_info: the columns of :mod:`cegppo_lab.trainers.verl.data`.
        tasks: by data source the ``name`` and options of the task whose verifier decides, from
            ``custom_reward_function.reward_kwargs.tasks``.

    Returns:
        ``score`` is what verl trains on; ``acc`` names its validation metrics; ``problem`` is the
        problem's id, for the responses that verl writes to ``trainer.validation_data_dir``.
    """
    task = tasks[data_source]
    if OmegaConf.is_config(task):
        task = OmegaConf.to_container(task, resolve=True)
    problem = Problem(extra_info["problem"], extra_info["prompt"], ground_truth)
    reward = _task(json.dumps(task, sort_keys=True)).reward(problem, solution_str)
    return {"score": reward, "acc": reward, "problem": problem.id}


@lru_cache(maxsize=8)
def _task(description: str) -> Task:
    return make_task(**json.loads(description))
