"""Our tasks as the parquet files that verl reads its prompts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cegppo_lab.evaluation import ProblemSet
from cegppo_lab.streams import numpy_stream
from cegppo_lab.tasks import Problem, Task

TRAINING = "Training"
"""The ``data_source`` of training rows; the name of a benchmark or task has no capital."""


@dataclass(frozen=True)
class PromptFiles:
    """verl's ``data.train_files`` and ``data.val_files``."""

    train: Path
    heldout: Path


def write_prompts(
    task: Task,
    heldout: Sequence[ProblemSet],
    folder: Path,
    *,
    seed: int,
    steps: int,
    train_batch_size: int,
    generation_batches: int = 1,
) -> PromptFiles:
    """Write ``train.parquet`` and ``heldout.parquet`` into ``folder``, which is made.

    The training rows are the prompts that the embedded trainer draws at this seed, step by step,
    ``generation_batches`` of ``train_batch_size`` each. verl reads them in this order when
    ``data.shuffle=False`` (otherwise it permutes them by ``data.seed``); without group filtering
    and with one generation batch, step k of both trainers therefore has the same prompts. With
    filtering verl takes one prompt after another until its batch is full, so the steps drift apart;
    when it runs out of rows it starts over. The held-out rows are the problems of ``heldout``, one
    set after the other.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = [
        problem
        for step in range(steps)
        for batch in range(generation_batches)
        for problem in task.sample(train_batch_size, numpy_stream(seed, "prompts", step, batch))
    ]
    files = PromptFiles(folder / "train.parquet", folder / "heldout.parquet")
    _write(_rows(TRAINING, drawn, "train"), files.train)
    _write([row for each in heldout for row in _rows(each.name, each.problems)], files.heldout)
    return files


def _write(rows: list[dict[str, Any]], path: Path) -> None:
    pd.DataFrame(rows).to_parquet(path, index=False)


def _rows(source: str, problems: Sequence[Problem], split: str = "heldout") -> list[dict[str, Any]]:
    """Rows in verl's columns. ``data_source`` says whose verifier decides; see :mod:`.reward`."""
    return [
        {
            "data_source": source,
            "prompt": [{"role": "user", "content": problem.prompt}],
            "ability": source,
            "reward_model": {"style": "rule", "ground_truth": problem.answer},
            "extra_info": {
                "index": index,
                "split": split,
                "problem": problem.id,
                "prompt": problem.prompt,
            },
        }
        for index, problem in enumerate(problems)
    ]
