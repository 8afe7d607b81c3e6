"""Our tasks as the parquet files that verl reads its prompts from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cegppo_lab.streams import numpy_stream
from cegppo_lab.tasks import Problem, Task


@dataclass(frozen=True)
class PromptFiles:
    """verl's ``data.train_files`` and ``data.val_files``."""

    train: Path
    heldout: Path


def write_prompts(
    task: Task,
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
    when it runs out of rows it starts over.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = [
        problem
        for step in range(steps)
        for batch in range(generation_batches)
        for problem in task.sample(train_batch_size, numpy_stream(seed, "prompts", step, batch))
    ]
    files = PromptFiles(folder / "train.parquet", folder / "heldout.parquet")
    _write(task, drawn, "train", files.train)
    _write(task, task.heldout(), "heldout", files.heldout)
    return files


def _write(task: Task, problems: Iterable[Problem], split: str, path: Path) -> None:
    rows = [_row(task, problem, split, index) for index, problem in enumerate(problems)]
    pd.DataFrame(rows).to_parquet(path, index=False)


def _row(task: Task, problem: Problem, split: str, index: int) -> dict[str, Any]:
    """One row in verl's columns; ``data_source`` becomes the benchmark's name in its metrics."""
    return {
        "data_source": task.name,
        "prompt": [{"role": "user", "content": problem.prompt}],
        "ability": task.name,
        "reward_model": {"style": "rule", "ground_truth": problem.answer},
        "extra_info": {
            "index": index,
            "split": split,
            "problem": problem.id,
            "prompt": problem.prompt,
        },
    }
