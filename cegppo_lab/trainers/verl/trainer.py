"""The verl trainer: verl's own loop as a child process, with our loss, data and records.

A coefficient that changes at a step is run as consecutive phases: verl stops at the step with a
checkpoint and is started again from it, with the new value. The history is one.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from cegppo_lab.config import RunConfig
from cegppo_lab.errors import LabError
from cegppo_lab.store import EvalRecord, StepRecord
from cegppo_lab.tasks import Task
from cegppo_lab.trainers.verl.compose import compose_job, words
from cegppo_lab.trainers.verl.cpu import ENVIRONMENT
from cegppo_lab.trainers.verl.data import write_prompts
from cegppo_lab.trainers.verl.job import Attempt, newest_checkpoint, run_job
from cegppo_lab.trainers.verl.overrides import Places, verl_overrides
from cegppo_lab.trainers.verl.version import require_verl

_VALIDATION = ("val-core/", "val-aux/")
VALIDATION_PATIENCE_S = 60.0
PROMPT_BATCHES = 2
"""Generation batches' worth of prompts that are written per step: filtering uses up more than one
batch. verl starts over when it runs out."""


class VerlTrainer:
    """See :class:`cegppo_lab.trainers.base.Trainer`."""

    def run(self, config: RunConfig, checkpoints: Path) -> Iterator[StepRecord]:
        """Train ``config`` from verl's newest checkpoint on, yielding a record a step."""
        require_verl()
        places = prepare(config, checkpoints)
        done = newest_checkpoint(checkpoints)
        for start, end in phases(config):
            if end > done:
                yield from _phase(config, places, max(start, done), end)


def phases(config: RunConfig) -> list[tuple[int, int]]:
    """(first step, last step] of each stretch in which no coefficient changes, from 0 on."""
    steps = config.trainer.steps
    changes = {step for found in config.algorithm.scheduled_fields().values() for step in found}
    edges = [0, *sorted(step for step in changes if step < steps), steps]
    return list(pairwise(edges))


def prepare(config: RunConfig, checkpoints: Path) -> Places:
    """Write the prompts and the model folder that verl reads, beside ``checkpoints``."""
    from cegppo_lab.trainers.verl.policy import verl_folder

    folder = checkpoints.parent.resolve() / "verl"
    trainer = config.trainer
    prompts = write_prompts(
        config.task,
        folder / "prompts",
        seed=config.seed,
        steps=trainer.steps,
        train_batch_size=trainer.train_batch_size,
        generation_batches=PROMPT_BATCHES if trainer.filter_groups else 1,
    )
    model = verl_folder(config.model.path, config.model.head_scale, folder / "policy")
    return Places(
        prompts=prompts,
        model=str(model),
        checkpoints=checkpoints.resolve(),
        validation=folder / "validation",
        hydra=folder / "hydra",
    )


def job_words(config: RunConfig, places: Places, step: int, last_step: int) -> list[str]:
    """verl's command line for the steps after ``step``, composed and checked before."""
    overrides = verl_overrides(config, places, step, last_step)
    if step:
        overrides["trainer.val_before_train"] = False
    compose_job(overrides)
    return words(overrides | _ray(config))


def _ray(config: RunConfig) -> dict[str, Any]:
    """How verl meets Ray: a cluster of its own on this node, or the running one."""
    runtime = config.runtime
    if runtime.nodes > 1:
        return {"+ray_kwargs.ray_init.address": "auto"}
    gpus = max(1, int(runtime.gpus))
    own = {
        "+ray_kwargs.ray_init.address": "local",
        "+ray_kwargs.ray_init.include_dashboard": False,
    }
    if runtime.device == "cpu":
        # Logical resources: verl's actors ask for a GPU each, and a few processes for a CPU.
        own |= {"+ray_kwargs.ray_init.num_gpus": gpus, "ray_kwargs.ray_init.num_cpus": 4 + 4 * gpus}
    return own


def _phase(config: RunConfig, places: Places, step: int, last_step: int) -> Iterator[StepRecord]:
    environment = {"OMP_NUM_THREADS": str(config.runtime.threads)}
    if config.runtime.device == "cpu":
        environment |= ENVIRONMENT
    hours = config.runtime.time_limit_h
    rows = run_job(
        job_words(config, places, step, last_step),
        Attempt.new(places.hydra.parent / "attempts"),
        environment,
        hours * 3600 if hours else None,
    )
    for row in rows:
        yield _record(config, places, row)


def _record(config: RunConfig, places: Places, row: dict[str, Any]) -> StepRecord:
    """verl's row as ours: numbers under their names, evaluations with every verdict."""
    step, data = row["step"], row["data"]
    evaluated = any(name.startswith(_VALIDATION) for name in data)
    every, last = config.trainer.eval_every, config.trainer.steps
    due = step % every == 0 or step == last  # verl also evaluates at the end of a phase
    evals = [_evaluation(config.task, places.validation, step)] if evaluated and due else []
    metrics = {
        name: float(value)
        for name, value in data.items()
        if isinstance(value, int | float) and not name.startswith(_VALIDATION)
    }
    return StepRecord(step, metrics, evals)


def _evaluation(task: Task, folder: Path, step: int) -> EvalRecord:
    """The verdicts that verl wrote out for ``step``, in the order of problems and samples."""
    rows = _whole_file(folder / f"{step}.jsonl")
    seen: dict[str, int] = {}
    problems, samples, correct = [], [], []
    for row in rows:
        problem = row["problem"]
        samples.append(seen.get(problem, 0))
        seen[problem] = samples[-1] + 1
        problems.append(problem)
        correct.append(float(row["acc"]))
    return EvalRecord(step, task.name, problems, samples, correct)


def _whole_file(path: Path) -> list[dict[str, Any]]:
    """The rows of a file that verl writes in a thread of its own, once it is complete."""
    end = time.monotonic() + VALIDATION_PATIENCE_S
    size = -1
    while time.monotonic() < end:
        now = path.stat().st_size if path.exists() else -1
        if now == size and now > 0:
            return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        size = now
        time.sleep(0.3)
    raise LabError(f"verl evaluated, but did not write {path} in {VALIDATION_PATIENCE_S:g} s")


def gpus_needed(config: RunConfig) -> float:
    """GPUs of a trial over all its nodes; 0 on a CPU."""
    runtime = config.runtime
    return 0.0 if runtime.device == "cpu" else runtime.nodes * math.ceil(runtime.gpus)
