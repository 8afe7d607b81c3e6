"""Padding, empty, extreme and half-precision inputs, for every algorithm."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cegppo_lab.algorithms import LossOutput, algorithm_names, make_algorithm
from tests.conformance.cases import (
    AGGREGATIONS,
    EVERY_TERM,
    all_cases,
    case_id,
    gradient,
    random_inputs,
)

ALGORITHMS = pytest.mark.parametrize("name", algorithm_names())
AGGREGATED = pytest.mark.parametrize("aggregation", AGGREGATIONS)
EXTREME_LOG_PROBS = (0.0, -1e-6, -100.0, -1e4, -1e30)
LOWEST = torch.finfo(torch.float32).min
EXTREME_ADVANTAGES = (0.0, 1e-30, -1e-30, 3.0, -3.0, 1e6, -1e6)


@AGGREGATED
@ALGORITHMS
def test_nothing_to_learn_from_gives_zero(name, aggregation):
    inputs = random_inputs(0)
    entropy = inputs.log_prob.square()
    algorithm = make_algorithm(name, aggregation=aggregation, **EVERY_TERM)
    out = algorithm.loss(
        *replace(inputs, mask=torch.zeros_like(inputs.mask)),
        entropy=entropy,
        old_entropy=entropy.detach(),
        ref_log_prob=inputs.old_log_prob,
    )
    assert out.loss.item() == 0
    assert not gradient(out.loss, inputs.log_prob).any()
    assert not out.weight.any()
    assert all(map(math.isfinite, out.metrics.values()))


@ALGORITHMS
@pytest.mark.parametrize("junk", [math.nan, math.inf, -math.inf, 1e30])
def test_what_is_masked_out_is_never_read(name, junk):
    inputs = random_inputs(0)
    algorithm = make_algorithm(name, **EVERY_TERM)

    def run(fill: float) -> tuple[LossOutput, Tensor]:
        def outside(tensor: Tensor) -> Tensor:
            return tensor.detach().masked_fill(~inputs.mask, fill)

        log_prob = outside(inputs.log_prob).requires_grad_()
        old, advantages = outside(inputs.old_log_prob), outside(inputs.advantages)
        extra = {"entropy": outside(-inputs.log_prob), "ref_log_prob": old}
        extra["old_entropy"] = outside(inputs.entropies["old_entropy"])
        out = algorithm.loss(log_prob, old, advantages, inputs.mask, **extra)
        return out, gradient(out.loss, log_prob)

    (clean, clean_grad), (dirty, dirty_grad) = run(0.0), run(junk)
    assert torch.equal(clean.loss, dirty.loss)
    assert torch.equal(clean_grad, dirty_grad)
    assert torch.equal(clean.weight, dirty.weight)
    assert clean.metrics == dirty.metrics


@pytest.mark.parametrize("shift", [-1.0, 1.0])
def test_ratio_extremes_are_those_of_the_tokens(shift):
    """Padding has no ratio: with all ratios on one side of 1 the extremes lie there too."""
    _, old_log_prob, advantages, mask = random_inputs(0)
    log_ratio = shift * torch.linspace(0.5, 2, mask.numel()).double().view(mask.shape)
    out = make_algorithm("cegppo").loss(old_log_prob + log_ratio, old_log_prob, advantages, mask)
    ratios = log_ratio.exp()[mask]
    assert out.metrics["actor/ratio_max"] == pytest.approx(ratios.max().item())
    assert out.metrics["actor/ratio_min"] == pytest.approx(ratios.min().item())
    assert out.metrics["actor/ratio_mean"] == pytest.approx(ratios.mean().item())


@pytest.mark.parametrize(("name", "options"), all_cases(), ids=case_id)
def test_no_finite_input_gives_nan_or_inf(name, options):
    """Each pair of log-probs with each advantage, alone in its response and all in one.

    At float32's lowest log-prob CISPO's value, which holds log pi itself, cannot be written in
    float32; the gradient still can.
    """
    algorithm = make_algorithm(name, **options)
    for log_probs in (EXTREME_LOG_PROBS, (*EXTREME_LOG_PROBS, LOWEST)):
        values = torch.tensor(log_probs)
        grid = torch.cartesian_prod(values, values, torch.tensor(EXTREME_ADVANTAGES))
        for shape in [(-1, 1), (1, -1), (len(values), -1)]:
            log_prob, old, advantages = (column.reshape(shape) for column in grid.unbind(-1))
            log_prob = log_prob.clone().requires_grad_()
            mask = torch.ones_like(old).bool()
            entropies = {"entropy": old.abs(), "old_entropy": log_prob.detach().abs()}
            out = algorithm.loss(log_prob, old, advantages, mask, **entropies)
            assert gradient(out.loss, log_prob).isfinite().all()
            assert out.weight.isfinite().all()
            if LOWEST not in log_probs or name != "cispo":
                assert out.loss.isfinite()
                assert all(map(math.isfinite, out.metrics.values()))


@ALGORITHMS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(name, dtype):
    inputs = random_inputs(0, dtype)
    algorithm = make_algorithm(name, positive_loss_coef=0.1)
    half = algorithm.loss(*inputs, **inputs.entropies)
    full_log_prob = inputs.log_prob.detach().float().requires_grad_()
    old, advantages = inputs.old_log_prob.float(), inputs.advantages.float()
    entropies = {key: value.float() for key, value in inputs.entropies.items()}
    full = algorithm.loss(full_log_prob, old, advantages, inputs.mask, **entropies)
    assert half.loss.dtype == torch.float32
    assert torch.equal(half.loss, full.loss)
    assert half.metrics == full.metrics
    grad = gradient(half.loss, inputs.log_prob)
    assert torch.equal(grad, gradient(full.loss, full_log_prob).to(dtype))
