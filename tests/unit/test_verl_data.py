"""What verl reads: prompts in parquet files, and our verifiers as its reward function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from cegppo_lab.compose import resolve
from cegppo_lab.errors import LabError
from cegppo_lab.evaluation import ProblemSet
from cegppo_lab.tasks import Task, make_task
from cegppo_lab.trainers.embedded.experience import collect
from cegppo_lab.trainers.embedded.policy import Policy
from cegppo_lab.trainers.verl.data import PromptFiles, write_prompts
from cegppo_lab.trainers.verl.reward import compute_score


def _named(name: str, **options: Any) -> dict[str, Any]:
    return {"name": name, **make_task(name, **options).model_dump(mode="json")}


def _write(task: Task, folder: Path, *, more: Any = (), **options: Any) -> PromptFiles:
    """The prompt files of ``task``, evaluated on its held-out problems and ``more`` sets."""
    own = ProblemSet(task.name, task, task.heldout(), task.max_response_tokens)
    return write_prompts(task, [own, *more], folder, **options)


def test_training_rows_are_the_prompts_that_the_embedded_trainer_draws(
    tmp_path: Path, tiny: dict[str, Any]
) -> None:
    run = resolve({**tiny, "trainer.filter_groups": False, "seed": 5})
    files = _write(run.task, tmp_path, seed=5, steps=3, train_batch_size=4)
    written = [row[0]["content"] for row in pd.read_parquet(files.train)["prompt"]]
    policy, drawn = Policy.load("table_walk"), []
    for step in range(3):
        rollout = collect(policy, run, step).rollout
        drawn += policy.tokenizer.batch_decode(rollout.input_ids[::4, : rollout.prompt_length])
    assert written == drawn


def test_one_generation_batch_is_a_prefix_of_the_step_with_several(tmp_path: Path) -> None:
    options = {"seed": 0, "steps": 2, "train_batch_size": 3}
    one = _write(make_task("chain"), tmp_path / "1", **options)
    two = _write(make_task("chain"), tmp_path / "2", generation_batches=2, **options)
    rows = pd.read_parquet(two.train)["extra_info"]
    assert [row["index"] for row in rows] == list(range(12))
    kept = [row["problem"] for row in rows][:3] + [row["problem"] for row in rows][6:9]
    assert [row["problem"] for row in pd.read_parquet(one.train)["extra_info"]] == kept


@pytest.mark.parametrize("name", ["chain", "table_walk"])
def test_rewards_of_written_rows_are_the_tasks(tmp_path: Path, name: str) -> None:
    task = make_task(name)
    files = _write(task, tmp_path / "new", seed=0, steps=1, train_batch_size=2)
    rows = pd.read_parquet(files.heldout)
    problems = task.heldout()
    assert [row["problem"] for row in rows["extra_info"]] == [problem.id for problem in problems]
    settings = OmegaConf.create({name: _named(name)})  # as Hydra hands them over
    rewards = set()
    for row, problem in zip(rows.to_dict("records"), problems, strict=True):
        for number in range(10):
            text = f"={number}"
            got = compute_score(
                row["data_source"],
                text,
                row["reward_model"]["ground_truth"],
                {**row["extra_info"], "num_turns": 2},
                tasks=settings,
            )
            assert got["score"] == got["acc"] == task.reward(problem, text)
            assert got["problem"] == problem.id
            rewards.add(got["score"])
    assert rewards == {"chain": {0.0, 1.0}, "table_walk": {0.0}}[name]


def test_rewards_follow_the_options_of_the_task() -> None:
    task = make_task("table_walk", table_seed=3)
    demonstrations = task.demonstrations(200, np.random.default_rng(0))

    def rewards(**options: Any) -> list[float]:
        return [
            compute_score(
                task.name,
                text,
                problem.answer,
                {"problem": problem.id, "prompt": problem.prompt},
                tasks={task.name: _named("table_walk", **options)},
            )["score"]
            for problem, text in demonstrations
        ]

    assert rewards(table_seed=3) == [task.reward(problem, text) for problem, text in demonstrations]
    assert sum(rewards(table_seed=3)) > 20 > sum(rewards())


def test_each_benchmark_is_written_and_rewarded_by_its_own_task(tmp_path: Path) -> None:
    task, other = make_task("table_walk"), make_task("chain")
    extra = ProblemSet("sums", other, other.heldout(), 40)
    files = _write(task, tmp_path, more=[extra], seed=0, steps=1, train_batch_size=2)
    assert set(pd.read_parquet(files.train)["data_source"]) == {"Training"}
    rows = pd.read_parquet(files.heldout)
    wanted = ["table_walk"] * len(task.heldout()) + ["sums"] * len(other.heldout())
    assert list(rows["data_source"]) == wanted
    tasks = {"table_walk": _named("table_walk"), "sums": _named("chain")}
    rewards = {
        source: {
            compute_score(
                row["data_source"],
                f"={digit}",
                row["reward_model"]["ground_truth"],
                row["extra_info"],
                tasks=tasks,
            )["score"]
            for row in rows[rows["data_source"] == source].to_dict("records")
            for digit in range(10)
        }
        for source in tasks
    }
    assert rewards == {"table_walk": {0.0}, "sums": {0.0, 1.0}}


def test_an_unknown_task_is_told() -> None:
    with pytest.raises(LabError, match="Did you mean 'chain'"):
        compute_score("x", "", "", {"problem": "x", "prompt": ""}, tasks={"x": {"name": "chains"}})
