"""Rollouts of one training step: generate, verify, filter groups, normalise advantages."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cegppo_lab import metrics as names
from cegppo_lab.algorithms.advantage import group_advantages
from cegppo_lab.config import RunConfig
from cegppo_lab.streams import numpy_stream, uniforms
from cegppo_lab.trainers.base import TrainingStoppedError
from cegppo_lab.trainers.embedded.micro_batches import micro_batches
from cegppo_lab.trainers.embedded.policy import Policy, Rollout


@dataclass(frozen=True)
class Experience:
    """What a step trains on: the kept groups' rows, group-major, and what was measured on the way.

    ``rollout``: None when no group was kept. ``advantages`` and ``rewards``: (rows,).
    """

    rollout: Rollout | None
    advantages: Tensor
    rewards: Tensor
    groups: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class _Generated:
    rollout: Rollout
    rewards: Tensor  # (prompts, rollout_n)

    @property
    def mixed(self) -> Tensor:
        """(prompts,) bool: the groups whose rewards differ."""
        return self.rewards.amax(-1) != self.rewards.amin(-1)


def collect(policy: Policy, config: RunConfig, step: int) -> Experience:
    """Generate until a batch of trainable groups is full or the generation batches are used up.

    With group filtering (``trainer.filter_groups``, or an algorithm with dynamic sampling) only
    groups with mixed rewards are kept, at most ``train_batch_size`` of them from at most
    ``max_gen_batches`` generation batches, as the released scripts do. Raises
    :class:`TrainingStoppedError` when the policy's probabilities are not numbers any more.
    """
    settings = config.trainer
    filtering = config.filters_groups
    generated: list[_Generated] = []
    kept: list[Tensor] = []
    missing = settings.train_batch_size
    while missing and len(generated) < (settings.max_gen_batches if filtering else 1):
        generated.append(_generate(policy, config, step, len(generated)))
        groups = torch.arange(settings.train_batch_size)
        if filtering:
            groups = groups[generated[-1].mixed]
        kept.append(groups[:missing])
        missing -= len(kept[-1])
    experience = _assemble(policy, config, generated, kept)
    if not math.isfinite(entropy := experience.metrics[names.ENTROPY]):
        raise TrainingStoppedError(
            f"step {step + 1}: the policy's entropy, {entropy}, is not finite"
        )
    return experience


def _generate(policy: Policy, config: RunConfig, step: int, batch: int) -> _Generated:
    settings, task = config.trainer, config.task
    stream = numpy_stream(config.seed, "prompts", step, batch)
    problems = task.sample(settings.train_batch_size, stream)
    rollout = policy.generate(
        [problem.prompt for problem in problems],
        repeats=settings.rollout_n,
        max_new_tokens=task.max_response_tokens,
        temperature=settings.temperature,
        uniforms=uniforms(
            len(problems) * settings.rollout_n,
            task.max_response_tokens,
            *(config.seed, "rollout", step, batch),
        ),
    )
    rows = [problem for problem in problems for _ in range(settings.rollout_n)]
    rewards = task.rewards(rows, rollout.texts)
    return _Generated(rollout, torch.tensor(rewards).view(-1, settings.rollout_n))


def _assemble(
    policy: Policy, config: RunConfig, generated: list[_Generated], kept: list[Tensor]
) -> Experience:
    size = config.trainer.rollout_n
    rewards = torch.cat([batch.rewards[rows] for batch, rows in zip(generated, kept, strict=True)])
    advantages = group_advantages(rewards, by_std=config.divides_by_std)
    parts = [
        batch.rollout.select((rows[:, None] * size + torch.arange(size)).flatten())
        for batch, rows in zip(generated, kept, strict=True)
        if len(rows)
    ]
    rollout = Rollout.concat(parts, policy.pad_id) if parts else None
    if rollout is not None and policy.model.dtype != torch.float32:
        rollout = _scored_again(policy, config, rollout)
    return Experience(
        rollout=rollout,
        advantages=advantages.flatten().to(policy.device),
        rewards=rewards.flatten().to(policy.device),
        groups=len(rewards),
        metrics=_measure(generated, advantages),
    )


@torch.no_grad()
def _scored_again(policy: Policy, config: RunConfig, rollout: Rollout) -> Rollout:
    """The rollout with log-probabilities from passes like those of the update.

    In bfloat16, decoding token by token rounds otherwise: on SmolLM2-135M by 0.04 nats a token on
    average, which would pass for a change of the policy and be clipped. (verl does the same.)
    """
    log_prob = torch.zeros_like(rollout.log_prob)
    rows = torch.arange(len(log_prob), device=policy.device)
    for part in micro_batches(rollout, rows, config.runtime):
        some = rollout.select(part).trimmed()
        width = some.mask.shape[1]
        log_prob[part, :width], _ = policy.log_prob_and_entropy(
            some.input_ids,
            some.attention_mask,
            width,
            temperature=config.trainer.temperature,
            chunk_tokens=config.runtime.chunk_tokens,
        )
    return replace(rollout, log_prob=log_prob)


def _measure(generated: list[_Generated], advantages: Tensor) -> dict[str, float]:
    """Metrics over all generated responses, before filtering; advantages over the kept ones."""
    masks = [batch.rollout.mask for batch in generated]
    lengths = torch.cat([mask.sum(-1) for mask in masks]).double()
    entropy = sum(float(batch.rollout.entropy.double().sum()) for batch in generated)
    finished = torch.cat([batch.rollout.finished for batch in generated])
    values = {
        names.ENTROPY: entropy / float(lengths.sum()),
        names.REWARD_MEAN: float(torch.cat([b.rewards for b in generated]).double().mean()),
        names.LENGTH_MEAN: float(lengths.mean()),
        names.LENGTH_MAX: float(lengths.max()),
        names.LENGTH_MIN: float(lengths.min()),
        names.LENGTH_CLIPPED: 1.0 - float(finished.double().mean()),
        names.GROUPS_MIXED: float(torch.cat([b.mixed for b in generated]).double().mean()),
        names.GROUPS_TRAINED: float(len(advantages)),
        names.GENERATION_BATCHES: float(len(generated)),
    }
    if len(advantages):
        values |= {
            names.ADVANTAGE_MEAN: float(advantages.double().mean()),
            names.ADVANTAGE_MAX: float(advantages.max()),
            names.ADVANTAGE_MIN: float(advantages.min()),
        }
    return values
