"""Optimizer steps on one batch of experience, exact whatever the micro-batch size."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from cegppo_lab import metrics as names
from cegppo_lab.algorithms import Algorithm, Totals, merge_metrics
from cegppo_lab.algorithms.batch import TokenBatch
from cegppo_lab.config import RunConfig
from cegppo_lab.diagnostics import TokenLedger
from cegppo_lab.streams import numpy_stream
from cegppo_lab.trainers.base import TrainingStoppedError
from cegppo_lab.trainers.embedded.experience import Experience
from cegppo_lab.trainers.embedded.micro_batches import micro_batches
from cegppo_lab.trainers.embedded.optimizer import MasterAdamW
from cegppo_lab.trainers.embedded.policy import Policy
from cegppo_lab.trainers.embedded.token_sampler import TokenSampler


def make_optimizer(policy: Policy, config: RunConfig) -> MasterAdamW:
    """AdamW over all parameters of the policy, as the released scripts have it."""
    settings = config.trainer
    return MasterAdamW(
        policy.model,
        lr=settings.lr,
        betas=(settings.adam_beta1, settings.adam_beta2),
        weight_decay=settings.weight_decay,
        fused=True,
    )


def learning_rate(config: RunConfig, step: int) -> float:
    """Linear warm-up over the first training steps, then constant. ``step`` counts from 0."""
    warm_up = config.trainer.lr_warmup_steps
    return config.trainer.lr * min(1.0, (step + 1) / warm_up if warm_up else 1.0)


def update(
    policy: Policy,
    reference: Policy | None,
    optimizer: MasterAdamW,
    config: RunConfig,
    experience: Experience,
    step: int,
    sampler: TokenSampler | None = None,
    ledger: TokenLedger | None = None,
) -> dict[str, float]:
    """One optimizer step per mini-batch of groups; metrics are means over the mini-batches.

    The groups are shuffled and split into ``mini_batches`` parts (fewer when there are fewer
    groups). ``reference``: the policy that ``kl_coef`` pulls towards; ``sampler`` and
    ``ledger`` are offered every token as its mini-batch meets it. Raises
    :class:`TrainingStoppedError` when a loss or a gradient is not finite; the policy is then as
    the last good mini-batch left it.
    """
    rate = learning_rate(config, step)
    for group in optimizer.param_groups:
        group["lr"] = rate
    algorithm = config.algorithm.at(step)
    measured = []
    for rows in _mini_batches(config, experience, step):
        optimizer.zero_grad(set_to_none=True)
        parts = accumulate(policy, reference, algorithm, config, experience, rows, sampler, ledger)
        norm = torch.nn.utils.clip_grad_norm_(
            optimizer.masters, config.trainer.grad_clip, foreach=True
        )
        parts[names.GRAD_NORM] = float(norm)
        if not math.isfinite(parts[names.GRAD_NORM] + parts[names.LOSS]):
            raise TrainingStoppedError(
                f"step {step + 1}: loss {parts[names.LOSS]:g} and gradient norm "
                f"{parts[names.GRAD_NORM]:g} are not both finite"
            )
        optimizer.step()
        measured.append(parts)
    return {
        **_mean_over_mini_batches(measured),
        names.LR: rate,
        names.OPTIMIZER_STEPS: float(len(measured)),
        **(ledger.result(rate) if ledger else {}),
    }


def accumulate(
    policy: Policy,
    reference: Policy | None,
    algorithm: Algorithm,
    config: RunConfig,
    experience: Experience,
    rows: Tensor,
    sampler: TokenSampler | None = None,
    ledger: TokenLedger | None = None,
) -> dict[str, float]:
    """Add the gradient of the mini-batch ``rows`` to the policy's parameters; its metrics.

    The loss is aggregated over the whole mini-batch, however many micro-batches it takes.
    """
    correct = experience.rewards[rows] > 0
    totals = Totals.of(experience.rollout.mask[rows], correct)
    if ledger is not None:
        ledger.next_mini_batch()
    apart = _set_apart(algorithm, experience, rows)
    parts = []
    for part in micro_batches(experience.rollout, rows, config.runtime):
        rollout = experience.rollout.select(part).trimmed()
        options = {
            "temperature": config.trainer.temperature,
            "chunk_tokens": config.runtime.chunk_tokens,
        }
        inputs = (rollout.input_ids, rollout.attention_mask, rollout.mask.shape[1])
        wants_entropy = algorithm.entropy_coef > 0
        log_prob, entropy, *pull = policy.log_prob_and_entropy(
            *inputs, **options, entropy_grad=wants_entropy, pull=ledger is not None
        )
        with torch.no_grad():
            anchor = reference and reference.log_prob_and_entropy(*inputs, **options)[0]
        advantages = experience.advantages[part, None].expand_as(log_prob)
        out = algorithm.loss(
            log_prob,
            rollout.log_prob,
            advantages,
            rollout.mask,
            entropy=entropy,
            ref_log_prob=anchor,
            correct=experience.rewards[part] > 0,
            totals=totals,
            old_entropy=rollout.entropy,
            apart=None if apart is None else apart[part, : rollout.mask.shape[1]],
        )
        out.loss.backward()
        if sampler is not None:
            sampler.add(algorithm, rollout, log_prob, experience.advantages[part])
        if ledger is not None:
            told = (log_prob.detach(), rollout.log_prob, advantages, rollout.mask, entropy.detach())
            ledger.add(algorithm, TokenBatch.of(*told), out.weight, totals, *pull, rollout.entropy)
        parts.append(out.metrics)
    return merge_metrics(parts)


def _set_apart(algorithm: Algorithm, experience: Experience, rows: Tensor) -> Tensor | None:
    """The tokens that the algorithm sets apart in the mini-batch ``rows``; as wide as all rows."""
    whole = experience.rollout.select(rows)
    advantages = experience.advantages[rows, None].expand_as(whole.log_prob)
    told = (whole.log_prob, whole.log_prob, advantages, whole.mask)
    chosen = algorithm.set_apart(TokenBatch.of(*told, old_entropy=whole.entropy))
    if chosen is None:
        return None
    apart = torch.zeros_like(experience.rollout.mask)
    apart[rows] = chosen
    return apart


def _mini_batches(config: RunConfig, experience: Experience, step: int) -> Iterator[Tensor]:
    """Row indices of each mini-batch: shuffled groups, whole."""
    size = config.trainer.rollout_n
    order = numpy_stream(config.seed, "order", step).permutation(experience.groups)
    parts = min(config.trainer.mini_batches, experience.groups)
    for groups in np.array_split(order, parts):
        rows = groups[:, None] * size + np.arange(size)
        yield torch.from_numpy(rows.ravel()).to(experience.advantages.device)


def _mean_over_mini_batches(measured: list[dict[str, float]]) -> dict[str, float]:
    extremes = {names.RATIO_MAX: max, names.RATIO_MIN: min}
    return {
        key: extremes.get(key, _mean)([parts[key] for parts in measured]) for key in measured[0]
    }


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
