"""Tasks by name: where the problems and the verifiable rewards come from."""

from __future__ import annotations

from typing import Any

from cegppo_lab.errors import unknown
from cegppo_lab.tasks import (  # noqa: F401  (importing registers them)
    chain,
    math,
    reasoning_gym,
    table_walk,
)
from cegppo_lab.tasks.base import Problem, Task, register, registered
from cegppo_lab.validation import validated

__all__ = ["Problem", "Task", "make_task", "register", "task_names"]


def task_names() -> list[str]:
    """The names that ``make_task`` knows, sorted."""
    return sorted(registered())


def make_task(name: str, **options: Any) -> Task:
    """The task called ``name``, with its defaults but for ``options``.

    Raises:
        LabError: an unknown task or option, or a value that the option does not take.
    """
    tasks = registered()
    if name not in tasks:
        raise unknown("task", name, tasks)
    return validated(tasks[name], options, "task")
