"""Which samples are missing, and in which batches they are drawn."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from cegppo_lab.tasks import Problem

Pair = tuple[str, int]
"""A problem's id and the number of the sample, from 0."""


@dataclass(frozen=True)
class Row:
    """One sample that is to be drawn."""

    problem: Problem
    sample: int

    @property
    def pair(self) -> Pair:
        """What it is known by."""
        return self.problem.id, self.sample


def missing_batches(
    problems: Sequence[Problem], samples: int, done: Collection[Pair], batch_size: int
) -> list[list[Row]]:
    """The (problem, sample) pairs that ``done`` lacks, in order, at most ``batch_size`` at a time.

    A batch holds whole problems, or a part of one that has more samples than fit. A batch is
    stored whole or not at all, so that after a kill the same batches are drawn as without it.
    """
    batches: list[list[Row]] = [[]]
    for problem in problems:
        rows = [Row(problem, i) for i in range(samples) if (problem.id, i) not in done]
        if len(batches[-1]) + len(rows) > batch_size:
            batches.append([])
        for start in range(0, len(rows), batch_size):
            if start:
                batches.append([])
            batches[-1] += rows[start : start + batch_size]
    return [batch for batch in batches if batch]
