"""Losses, gradients and metrics against verl 0.9.1's own registered losses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY, get_policy_loss_fn, kl_penalty
from verl.workers.config import ActorConfig, PolicyLossConfig

from cegppo_lab import metrics as names
from cegppo_lab.algorithms import Algorithm, Totals, algorithm_names, make_algorithm
from cegppo_lab.algorithms.batch import TokenBatch
from tests.conformance.cases import AGGREGATIONS, CLIPS, gradient, random_inputs

PEERS = {
    "grpo": "vanilla",
    "dapo": "vanilla",
    "gspo": "gspo",
    "cispo": "cispo",
    "dr_grpo": "vanilla",
}
BY_COVARIANCE = {"clip_cov": "clip_cov", "kl_cov": "kl_cov"}
BY_RESPONSE = {"sapo": "sapo", "gmpo": "geo_mean"}  # verl averages these over responses only
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
        policy_loss=PolicyLossConfig(
            clip_cov_ratio=getattr(algorithm, "cov_share", None),
            clip_cov_lb=getattr(algorithm, "cov_low", None),
            clip_cov_ub=getattr(algorithm, "cov_high", None),
            kl_cov_ratio=getattr(algorithm, "cov_share", None),
            ppo_kl_coef=getattr(algorithm, "cov_coef", None),
        ),
        tau_pos=getattr(algorithm, "tau_pos", 1.0),
        tau_neg=getattr(algorithm, "tau_neg", 1.05),
    )
    log_prob, old_log_prob, advantages, mask = inputs
    return get_policy_loss_fn((PEERS | BY_RESPONSE | BY_COVARIANCE)[algorithm.name])(
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
    compared = {*PEERS.values(), *BY_RESPONSE, *BY_COVARIANCE}
    assert set(algorithm_names()) & set(POLICY_LOSS_REGISTRY) <= compared


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sapo", {}),
        ("sapo", {"tau_pos": 0.5, "tau_neg": 3.0}),
        ("gmpo", {}),
        ("gmpo", {"clip_low": 0.1, "clip_high": 0.7}),
    ],
    ids=str,
)
def test_loss_and_gradient_by_response(name, options):
    """One advantage a response, and no empty one: verl's geo_mean counts those as well."""
    algorithm = make_algorithm(name, **options)
    for seed in range(3):
        inputs = random_inputs(seed)
        kept = inputs.mask.any(-1)
        log_prob, *others = (tensor.detach()[kept] for tensor in inputs)
        log_prob.requires_grad_()
        ours = algorithm.loss(log_prob, *others)
        theirs, metrics = verl_loss(algorithm, (log_prob, *others))
        torch.testing.assert_close(ours.loss, theirs, rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(
            gradient(ours.loss, log_prob), gradient(theirs, log_prob), rtol=1e-7, atol=1e-9
        )
        assert ours.metrics[names.PPO_KL] == pytest.approx(metrics[names.PPO_KL], rel=1e-6)


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


COV_CASES = [
    ("clip_cov", {"cov_share": 1.0, "cov_low": 0.05, "cov_high": 1.0}),
    ("clip_cov", {"cov_share": 1.0, "cov_low": 0.05, "clip_low": 0.1, "clip_high": 0.3}),
    ("kl_cov", {"cov_share": 0.2, "cov_coef": 0.7}),
    ("kl_cov", {}),
]


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize(("name", "options"), COV_CASES, ids=str)
def test_what_covariance_chooses(name, options, aggregation):
    """The same tokens and gradients as verl's, at a mini-batch's start and far from it.

    With the share 1 verl draws every token in the interval. verl's covariance is that of the
    current policy: ours chooses by it when it is given in the rollout policy's place. verl draws
    no token that PPO clips, whose gradient is 0 in any case.
    """
    algorithm = make_algorithm(name, aggregation=aggregation, **options)
    rtol = PADDED_DENOMINATOR if aggregation == "seq-mean-token-mean" else 1e-12
    for seed in range(3):
        log_prob, old_log_prob, _, mask = random_inputs(seed)
        generator = torch.Generator().manual_seed(seed)
        advantages = torch.randn(mask.shape, generator=generator, dtype=torch.float64)
        now = TokenBatch.of(log_prob.detach(), log_prob.detach(), advantages, mask)
        inputs = (log_prob, old_log_prob, advantages, mask)
        apart = algorithm.set_apart(now)
        if name == "clip_cov":
            low, high = algorithm.outside(TokenBatch.of(*inputs))
            apart &= ~(low | high)
        if options:
            assert 1 < apart.sum() < mask.sum() / 2
        out = algorithm.loss(*inputs, apart=apart)
        theirs, _ = verl_loss(algorithm, inputs)
        torch.testing.assert_close(out.loss, theirs, rtol=rtol, atol=rtol)
        torch.testing.assert_close(
            gradient(out.loss, log_prob), gradient(theirs, log_prob), rtol=rtol, atol=1e-14
        )


def test_on_policy_our_own_choice_is_verls():
    for name, options in COV_CASES:
        algorithm = make_algorithm(name, **options)
        log_prob, _, advantages, mask = with_token_advantages(0)
        inputs = (log_prob, log_prob.detach(), advantages, mask)
        ours, theirs = algorithm.loss(*inputs).loss, verl_loss(algorithm, inputs)[0]
        torch.testing.assert_close(gradient(ours, log_prob), gradient(theirs, log_prob))
