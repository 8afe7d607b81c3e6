"""The embedded trainer: GRPO-style training of any Hugging Face causal LM in one process.

A step is: generate and verify (:mod:`.experience`), one optimizer step per mini-batch
(:mod:`.update`), now and then a held-out evaluation and a checkpoint. Runs on the CPU and on one
CUDA GPU. On the CPU a resumed run equals an uninterrupted one to the bit.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers.utils.logging import disable_progress_bar

from cegppo_lab import metrics as names
from cegppo_lab.algorithms import Algorithm
from cegppo_lab.config import RunConfig
from cegppo_lab.diagnostics import TokenLedger
from cegppo_lab.evaluation import evaluate, evaluated
from cegppo_lab.models import check_chat_template, check_model
from cegppo_lab.sentinel import PausedError
from cegppo_lab.store import EvalRecord, StepRecord
from cegppo_lab.trainers.base import scheduled_metrics
from cegppo_lab.trainers.embedded.checkpoint import (
    control_state,
    load_newest,
    save_checkpoint,
)
from cegppo_lab.trainers.embedded.device import device_of
from cegppo_lab.trainers.embedded.experience import collect
from cegppo_lab.trainers.embedded.malloc import keep_freed_memory
from cegppo_lab.trainers.embedded.optimizer import MasterAdamW
from cegppo_lab.trainers.embedded.policy import Policy
from cegppo_lab.trainers.embedded.token_sampler import TokenSampler
from cegppo_lab.trainers.embedded.update import make_optimizer, update


class EmbeddedTrainer:
    """See :class:`cegppo_lab.trainers.base.Trainer`."""

    def check(self, config: RunConfig) -> None:
        """Raise ``LabError`` when the problems or the policy cannot be read."""
        config.task.heldout()
        evaluated(config)
        check_model(config.model.path)
        if config.model.chat_template:
            check_chat_template(config.model.path)

    def run(self, config: RunConfig, checkpoints: Path) -> Iterator[StepRecord]:
        """Train ``config`` from its newest checkpoint on, yielding a record a step."""
        torch.set_num_threads(config.runtime.threads)
        keep_freed_memory()
        disable_progress_bar()
        policy = _load(config)
        reference = _load(config) if _needs_reference(config) else None
        optimizer = make_optimizer(policy, config)
        done = load_newest(checkpoints, policy, optimizer)
        if not done:
            yield StepRecord(0, {}, _evaluate(policy, config, 0))
        settings, runtime = config.trainer, config.runtime
        state = config.algorithm.initial_state() | control_state(checkpoints, done)
        for step in range(done, settings.steps):
            paused = False
            algorithm = config.algorithm.controlled(state, step)
            record = _train_step(policy, reference, optimizer, config, algorithm, step)
            state = config.algorithm.observe(state, record.metrics[names.ENTROPY], step)
            try:
                yield record
            except PausedError:
                paused = True
            last = step + 1 == settings.steps
            if paused or last or (step + 1) % runtime.checkpoint_every == 0:
                keep = 1 if last else runtime.keep_checkpoints
                save_checkpoint(checkpoints, step + 1, policy, optimizer, keep, state)
            if paused:
                return


def _train_step(
    policy: Policy,
    reference: Policy | None,
    optimizer: MasterAdamW,
    config: RunConfig,
    algorithm: Algorithm,
    step: int,
) -> StepRecord:
    """Train step ``step`` (from 0) by ``algorithm``, which is in force at it; counted from 1."""
    clock = _Clock()
    experience = collect(policy, config, step)
    clock.lap(names.TIME_GENERATE)
    trained: dict[str, float] = {}
    size = config.runtime.token_samples
    sampler = TokenSampler(size, config.seed, step) if size and experience.rollout else None
    if experience.rollout is not None:
        ledger = TokenLedger() if config.runtime.ledger else None
        now = config.model_copy(update={"algorithm": algorithm})
        trained = update(policy, reference, optimizer, now, experience, step, sampler, ledger)
    clock.lap(names.TIME_UPDATE)
    evals: list[EvalRecord] = []
    if (step + 1) % config.trainer.eval_every == 0 or step + 1 == config.trainer.steps:
        evals = _evaluate(policy, config, step + 1)
        clock.lap(names.TIME_EVAL)
    tokens = experience.metrics[names.LENGTH_MEAN] * experience.metrics[names.GENERATION_BATCHES]
    tokens *= config.trainer.train_batch_size * config.trainer.rollout_n
    metrics = {**experience.metrics, **trained, **scheduled_metrics(config, step), **clock.laps}
    metrics |= {names.coefficient(key): getattr(algorithm, key) for key in algorithm.steered}
    metrics[names.TIME_STEP] = clock.total()
    metrics[names.THROUGHPUT] = tokens / metrics[names.TIME_STEP]
    tokens = sampler.result() if sampler else None
    return StepRecord(step + 1, metrics, evals, tokens=tokens)


def _load(config: RunConfig) -> Policy:
    model = config.model
    return Policy.load(
        model.path,
        head_scale=model.head_scale,
        device=device_of(config.runtime.device),
        dtype=model.dtype,
        chat_template=model.chat_template,
        gradient_checkpointing=config.runtime.gradient_checkpointing,
        batch_size=config.runtime.generate_batch_size,
    )


def _needs_reference(config: RunConfig) -> bool:
    coefficient = config.algorithm.kl_coef
    return any(coefficient.values()) if isinstance(coefficient, dict) else coefficient > 0


def _evaluate(policy: Policy, config: RunConfig, step: int) -> list[EvalRecord]:
    settings = config.trainer
    return [
        evaluate(
            policy,
            problems,
            step=step,
            seed=config.seed,
            samples=settings.eval_samples,
            temperature=settings.eval_temperature,
        )
        for problems in evaluated(config)
    ]


class _Clock:
    """Wall time between laps, seconds."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name], self._last = now - self._last, now

    def total(self) -> float:
        return time.perf_counter() - self._start
