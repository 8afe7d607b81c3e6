"""The same seed gives the same prompts in the same order: both trainers, any process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cegppo_lab.streams import numpy_stream
from cegppo_lab.tasks import make_task
from cegppo_lab.trainers.verl.data import write_prompts

SEED, STEPS, BATCH, GENERATED = 3, 2, 5, 2
_DRAW = """
import json, sys
from cegppo_lab.streams import numpy_stream
from cegppo_lab.tasks import make_task
for options in json.loads(sys.argv[1]):
    task = make_task(**options)
    held = task.heldout()  # first: what an entry is must not depend on those made before it
    drawn = [p for step in range(2) for batch in range(2)
             for p in task.sample(5, numpy_stream(3, "prompts", step, batch))]
    print(json.dumps([[p.id, p.prompt, p.answer] for p in [*drawn, *held]]))
"""


@pytest.fixture
def tasks(tmp_path: Path) -> list[dict[str, Any]]:
    rows = [{"problem": f"What is {n} + {n}?", "answer": 2 * n} for n in range(60)]
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    gym = {"name": "reasoning_gym", "heldout_problems": 6}
    return [
        {"name": "math", "path": str(file), "heldout_problems": 8},
        gym,
        {**gym, "dataset": "isomorphic_strings"},  # draws from sets: depends on the hash seed
        {"name": "table_walk", "given": 2},
        {"name": "chain", "listing": "swapped"},
    ]


def test_the_trainers_draw_the_same_prompts_in_any_process(
    tasks: list[dict[str, Any]], tmp_path: Path
) -> None:
    pytest.importorskip("reasoning_gym")
    here = []
    for options in tasks:
        task = make_task(**options)
        drawn = [  # as the embedded trainer does
            problem
            for step in range(STEPS)
            for batch in range(GENERATED)
            for problem in task.sample(BATCH, numpy_stream(SEED, "prompts", step, batch))
        ]
        files = write_prompts(
            task,
            [],
            tmp_path / "verl",
            seed=SEED,
            steps=STEPS,
            train_batch_size=BATCH,
            generation_batches=GENERATED,
        )
        rows = pd.read_parquet(files.train)
        assert [turns[0]["content"] for turns in rows["prompt"]] == [p.prompt for p in drawn]
        assert [row["problem"] for row in rows["extra_info"]] == [p.id for p in drawn]
        assert len({problem.id for problem in drawn}) > BATCH
        here.append([[p.id, p.prompt, p.answer] for p in [*drawn, *task.heldout()]])
    there = subprocess.run(
        [sys.executable, "-c", _DRAW, json.dumps(tasks)],
        env=os.environ | {"PYTHONHASHSEED": "12345"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [json.loads(line) for line in there.stdout.splitlines()] == here
