"""The verl trainer: verl's own loop as a child process, with our loss, data and records.

Evaluations during training, those on benchmarks too, are verl's own: it generates with
``trainer.max_response_length`` tokens at most.

A coefficient that changes at a step is run as consecutive phases: verl stops at the step with a
checkpoint and is started again from it, with the new value. The history is one.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from cegppo_lab.config import RunConfig, RuntimeConfig
from cegppo_lab.errors import LabError
from cegppo_lab.evaluation import ProblemSet, evaluated
from cegppo_lab.files import read_lines
from cegppo_lab.models import check_chat_template, check_model
from cegppo_lab.store import EvalRecord, StepRecord
from cegppo_lab.streams import numpy_stream
from cegppo_lab.trainers.base import TrainerError, scheduled_metrics
from cegppo_lab.trainers.verl.compose import compose_job, words
from cegppo_lab.trainers.verl.cpu import ENVIRONMENT
from cegppo_lab.trainers.verl.data import PromptFiles, write_prompts
from cegppo_lab.trainers.verl.job import Attempt, earlier_rows, rewind, run_job
from cegppo_lab.trainers.verl.overrides import Places, verl_overrides
from cegppo_lab.trainers.verl.version import require_verl

_VALIDATION = ("val-core/", "val-aux/")
VALIDATION_PATIENCE_S = 60.0
PROMPT_BATCHES = 2
"""Generation batches' worth of prompts that are written per step: filtering uses up more than one
batch. verl starts over when it runs out."""


class VerlTrainer:
    """See :class:`cegppo_lab.trainers.base.Trainer`."""

    def check(self, config: RunConfig) -> None:
        """Raise ``LabError`` for a config that verl refuses, missing data and a missing model."""
        require_verl(to_train=True)
        if not config.model.chat_template:
            raise LabError(
                "model.chat_template=false: verl always writes prompts in the chat template; say "
                "model.chat_template=true or trainer=embedded"
            )
        resolved_job(config, Path("runs/trial"))
        config.task.heldout()
        evaluated(config)
        config.task.sample(1, numpy_stream("check"))
        check_model(config.model.path)
        check_chat_template(config.model.path)

    def run(self, config: RunConfig, checkpoints: Path) -> Iterator[StepRecord]:
        """Train ``config`` from verl's newest checkpoint on, yielding a record a step."""
        require_verl(to_train=True)
        places = prepare(config, checkpoints)
        done = 0
        for row in earlier_rows(_attempts(places)):
            if _due(config, row) and not _verdicts(config, places, row["step"]):
                break  # verl was killed before it had written them
            yield _record(config, places, row)  # the one before us may not have stored it
            done = row["step"]
        done = rewind(places.checkpoints, done)
        for start, end in phases(config):
            if end > done:
                yield from _phase(config, places, max(start, done), end)


def phases(config: RunConfig) -> list[tuple[int, int]]:
    """(first step, last step] of each stretch in which no coefficient changes, from 0 on."""
    steps = config.trainer.steps
    changes = {step for found in config.algorithm.scheduled_fields().values() for step in found}
    edges = [0, *sorted(step for step in changes if step < steps), steps]
    return list(pairwise(edges))


def planned_places(folder: Path, checkpoints: Path, model: str) -> Places:
    """Where the job of a run reads and writes, below ``folder``; nothing is written."""
    prompts = PromptFiles(folder / "prompts/train.parquet", folder / "prompts/heldout.parquet")
    return Places(prompts, model, checkpoints, folder / "validation", folder / "hydra")


def prepare(config: RunConfig, checkpoints: Path) -> Places:
    """Write the prompts and the model folder that verl reads, beside ``checkpoints``."""
    from transformers.utils.logging import disable_progress_bar

    from cegppo_lab.trainers.verl.policy import verl_folder

    disable_progress_bar()
    folder, trainer = checkpoints.parent.resolve() / "verl", config.trainer
    model = verl_folder(config.model.path, config.model.head_scale, folder / "policy")
    places = planned_places(folder, checkpoints.resolve(), str(model))
    write_prompts(
        config.task,
        evaluated(config),
        places.prompts.train.parent,
        seed=config.seed,
        steps=trainer.steps,
        train_batch_size=trainer.train_batch_size,
        generation_batches=PROMPT_BATCHES if config.filters_groups else 1,
    )
    return places


def resolved_job(config: RunConfig, folder: Path) -> DictConfig:
    """verl's whole config for the first phase of ``config``, run in ``folder``; checked."""
    places = planned_places(folder / "verl", folder / "checkpoints", config.model.path)
    step, last_step = phases(config)[0]
    return compose_job(verl_overrides(config, places, step, last_step))


def job_words(
    config: RunConfig, places: Places, step: int, last_step: int, meeting: dict[str, Any]
) -> list[str]:
    """verl's command line for the steps after ``step``, composed and checked before.

    ``meeting``: overrides that say how verl meets Ray.
    """
    overrides = verl_overrides(config, places, step, last_step)
    if step:
        overrides["trainer.val_before_train"] = False
    compose_job(overrides)
    return words(overrides | meeting)


@contextmanager
def _ray(config: RunConfig, environment: dict[str, str]) -> Iterator[dict[str, Any]]:
    """How verl meets Ray: a cluster of its own on this node, or the running one."""
    gpus = max(1, int(config.runtime.gpus))
    if config.runtime.nodes == 1:
        yield _own_cluster(config.runtime, gpus)
        return
    from cegppo_lab.trainers.verl.cluster import shared_cluster

    with shared_cluster(config.runtime.nodes, gpus, environment) as meeting:
        yield meeting


def _own_cluster(runtime: RuntimeConfig, gpus: int) -> dict[str, Any]:
    own = {
        "+ray_kwargs.ray_init.address": "local",
        "+ray_kwargs.ray_init.include_dashboard": False,
    }
    if runtime.device == "cpu":
        # Logical resources: verl's actors ask for a GPU each, and a few processes for a CPU.
        own |= {"+ray_kwargs.ray_init.num_gpus": gpus, "ray_kwargs.ray_init.num_cpus": 4 + 4 * gpus}
    return own


def _phase(config: RunConfig, places: Places, step: int, last_step: int) -> Iterator[StepRecord]:
    attempt = Attempt.new(_attempts(places))
    environment = {"OMP_NUM_THREADS": str(config.runtime.threads), **attempt.environment()}
    if config.runtime.device == "cpu":
        environment |= ENVIRONMENT
    hours = config.runtime.time_limit_h
    limit_s = hours * 3600 if hours else None
    with _ray(config, environment) as meeting:
        job = job_words(config, places, step, last_step, meeting)
        # Closed before the cluster is: what is left on it then, nobody uses.
        with closing(run_job(job, attempt, environment, limit_s)) as rows:
            for row in rows:
                yield _record(config, places, row)


def _attempts(places: Places) -> Path:
    return places.hydra.parent / "attempts"


def _record(config: RunConfig, places: Places, row: dict[str, Any]) -> StepRecord:
    """verl's row as ours: numbers under their names, evaluations with every verdict."""
    step, data = row["step"], row["data"]
    metrics = {
        name: float(value)
        for name, value in data.items()
        if isinstance(value, int | float) and not name.startswith(_VALIDATION)
    }
    if step:  # row k is what the k-th step, counted from 0 by schedules, has done
        metrics |= scheduled_metrics(config, step - 1)
    evals = _evaluations(config, places, step) if _due(config, row) else []
    return StepRecord(step, metrics, evals)


def _due(config: RunConfig, row: dict[str, Any]) -> bool:
    """Whether the row's evaluation is asked for; verl also evaluates at the end of a phase."""
    step, every, last = row["step"], config.trainer.eval_every, config.trainer.steps
    evaluated = any(name.startswith(_VALIDATION) for name in row["data"])
    return evaluated and (step % every == 0 or step == last)


def _evaluations(config: RunConfig, places: Places, step: int) -> list[EvalRecord]:
    """The verdicts that verl wrote out for ``step``: a record for each set of problems."""
    end = time.monotonic() + VALIDATION_PATIENCE_S
    while not (rows := _verdicts(config, places, step)):
        if time.monotonic() > end:
            raise TrainerError(
                f"verl evaluated, but did not write all verdicts of step {step} to "
                f"{places.validation} in {VALIDATION_PATIENCE_S:g} s"
            )
        time.sleep(0.3)
    return [_record_of(each, rows, step) for each in evaluated(config)]


def _record_of(problems: ProblemSet, rows: list[dict[str, Any]], step: int) -> EvalRecord:
    """The rows on these problems; samples are numbered in the order of the rows."""
    own = {problem.id for problem in problems.problems}
    mine = [row for row in rows if row["problem"] in own]
    seen: Counter[str] = Counter()
    samples = []
    for row in mine:
        samples.append(seen[row["problem"]])
        seen[row["problem"]] += 1
    correct = [float(row["acc"]) for row in mine]
    return EvalRecord(step, problems.name, [row["problem"] for row in mine], samples, correct)


def _verdicts(config: RunConfig, places: Places, step: int) -> list[dict[str, Any]]:
    """The rows of the file that verl writes in a thread of its own; none before it is complete."""
    rows = list(read_lines(places.validation / f"{step}.jsonl"))
    problems = sum(len(each.problems) for each in evaluated(config))
    return rows if len(rows) >= problems * config.trainer.eval_samples else []
