"""Losses, gradients and metrics against verl 0.9.1's own registered losses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY, get_policy_loss_fn, kl_penalty
from verl.workers.config import ActorConfig

from cegppo_lab import metrics as names
from cegppo_lab.algorithms import Algorithm, Totals, algorithm_names, make_algorithm
from cegppo_lab.algorithms.batch import TokenBatch
from tests.conformance.cases import AGGREGATIONS, CLIPS, gradient, random_inputs

PEERS = {"grpo": "vanilla", "dapo": "vanilla", "gspo": "gspo", "cispo": "cispo"}
NEVER = 1e12  # verl has no way to switch the dual clip off.
# verl adds 1e-8 to the denominators of its metrics and of seq-mean-token-mean.
PADDED_DENOMINATOR = 2e-8


def verl_loss(algorithm: Algorithm, inputs: tuple[Tensor, ...], **batch_info: int) -> Any:
    """(loss, metrics) of the peer in verl, under the same coefficients."""
    config = ActorConfig(
        strategy="fsdp",
        rollout_n=1,
        use_dynamic_bsz=True,
        clip_ratio_low=algorithm.clip_low,
        clip_ratio_high=algorithm.clip_high,
        clip_ratio_c=getattr(algorithm, "dual_clip", None) or NEVER,
        global_batch_info=batch_info,
    )
    log_prob, old_log_prob, advantages, mask = inputs
    return get_policy_loss_fn(PEERS[algorithm.name])(
        old_log_prob=old_log_prob,
        log_prob=log_prob,
        advantages=advantages,
        response_mask=mask,
        loss_agg_mode=algorithm.aggregation,
        config=config,
        rollout_is_weights=None,
    )


def with_token_advantages(seed: int) -> tuple[Tensor, ...]:
    """As ``random_inputs``, but each token has its own advantage, some 0 (GSPO's GSPO-token)."""
    log_prob, old_log_prob, advantages, mask = random_inputs(seed)
    generator = torch.Generator().manual_seed(seed)
    advantages = torch.randn(advantages.shape, generator=generator, dtype=advantages.dtype)
    advantages[:, ::3] = 0
    return log_prob, old_log_prob, advantages, mask


def cases() -> list[tuple[str, dict[str, Any]]]:
    """The peers' names with clip widths, and dual clips for PPO's token ratios."""
    found: list[tuple[str, dict[str, Any]]] = []
    for name in PEERS:
        found.append((name, {}))
        found += [(name, {"clip_low": low, "clip_high": high}) for low, high in CLIPS]
        if PEERS[name] == "vanilla":
            found += [(name, {"clip_low": 0.3, "clip_high": 0.1, "dual_clip": c}) for c in (2, 10)]
    return found


def test_no_algorithm_that_verl_has_is_left_out():
    assert set(algorithm_names()) & set(POLICY_LOSS_REGISTRY) <= set(PEERS.values())


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize(("name", "options"), cases(), ids=str)
def test_loss_and_gradient(name, options, aggregation):
    algorithm = make_algorithm(name, aggregation=aggregation, **options)
    rtol = PADDED_DENOMINATOR if aggregation == "seq-mean-token-mean" else 1e-12
    for seed in range(3):
        inputs = with_token_advantages(seed)
        out = algorithm.loss(*inputs)
        theirs, _ = verl_loss(algorithm, inputs)
        torch.testing.assert_close(out.loss, theirs, rtol=rtol, atol=rtol)
        torch.testing.assert_close(
            gradient(out.loss, inputs[0]), gradient(theirs, inputs[0]), rtol=rtol, atol=1e-14
        )


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("name", PEERS)
def test_micro_batches_under_the_global_counts(name, aggregation):
    algorithm = make_algorithm(name, aggregation=aggregation)
    rtol = PADDED_DENOMINATOR if aggregation == "seq-mean-token-mean" else 1e-12
    inputs = with_token_advantages(0)
    mask = inputs[3]
    totals = Totals.of(mask, mask.any(-1))
    counts = {"batch_num_tokens": totals.tokens, "global_batch_size": totals.sequences}
    for rows in torch.arange(len(mask)).split(3):
        part = tuple(tensor[rows].detach() for tensor in inputs)
        log_prob = part[0].requires_grad_()
        ours = algorithm.loss(*part, totals=totals).loss
        theirs, _ = verl_loss(algorithm, part, **counts)
        torch.testing.assert_close(ours, theirs, rtol=rtol, atol=rtol)
        torch.testing.assert_close(
            gradient(ours, log_prob), gradient(theirs, log_prob), rtol=rtol, atol=1e-14
        )


@pytest.mark.parametrize(("name", "options"), cases(), ids=str)
def test_metrics_of_the_same_name(name, options):
    algorithm = make_algorithm(name, **options)
    for seed in range(3):
        inputs = with_token_advantages(seed)
        ours = algorithm.loss(*inputs).metrics
        _, theirs = verl_loss(algorithm, inputs)
        if name == "cispo":
            theirs.pop(names.CLIPFRAC)  # Another quantity: see the next test.
        assert {key: ours[key] for key in theirs} == pytest.approx(theirs, rel=1e-6)


def test_cispo_clip_fraction_differs_from_verls_by_the_side():
    """verl counts each token whose ratio is clamped, ours only those that PPO would cut.

    A token is cut for A or for -A, so that the two counts of ours add up to verl's.
    """
    log_prob, old_log_prob, _, mask = random_inputs(0)
    advantages = torch.ones_like(old_log_prob)
    algorithm = make_algorithm("cispo")
    sides = [
        algorithm.loss(log_prob, old_log_prob, signed, mask).metrics[names.CLIPFRAC]
        for signed in (advantages, -advantages)
    ]
    _, theirs = verl_loss(algorithm, (log_prob, old_log_prob, advantages, mask))
    assert min(sides) > 0
    assert sum(sides) == pytest.approx(theirs[names.CLIPFRAC], rel=1e-6)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_kl_to_the_reference_policy(estimator):
    """Log-ratios up to +-5, where k3's clamp at 10 (verl's) acts on one side."""
    inputs = random_inputs(0)
    log_prob, reference, _, mask = inputs
    ours = TokenBatch.of(*inputs, ref_log_prob=reference).kl(estimator)[mask]
    theirs = kl_penalty(log_prob, reference, estimator)[mask]
    torch.testing.assert_close(ours, theirs, rtol=1e-14, atol=1e-15)
    torch.testing.assert_close(
        gradient(ours.sum(), log_prob), gradient(theirs.sum(), log_prob), rtol=1e-13, atol=1e-15
    )
