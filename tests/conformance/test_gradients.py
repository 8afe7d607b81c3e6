"""Every algorithm's gradient, value and F against autograd through its paper's own formula."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from cegppo_lab.algorithms import algorithm_names, make_algorithm
from tests.conformance.cases import AGGREGATIONS, all_cases, case_id, gradient, random_inputs
from tests.conformance.references import aggregate, objective, responses_of, without_reference

SEEDS = (0, 1)
TOLERANCE = {
    torch.float64: {"rtol": 1e-12, "atol": 1e-14},
    torch.float32: {"rtol": 2e-5, "atol": 1e-7},
}


def test_every_algorithm_has_a_reference():
    missing = without_reference()
    assert not missing, f"tests/conformance/references.py has no formula for {missing}"


@pytest.mark.parametrize("dtype", TOLERANCE, ids=case_id)
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize(("name", "options"), all_cases(), ids=case_id)
def test_equals_autograd_through_the_formula(name, options, aggregation, dtype):
    algorithm = make_algorithm(name, aggregation=aggregation, **options)
    for seed in SEEDS:
        inputs = random_inputs(seed, dtype)
        out = algorithm.loss(*inputs, **inputs.entropies)
        expected = -objective(algorithm, inputs)
        wanted = gradient(expected, inputs.log_prob)
        torch.testing.assert_close(gradient(out.loss, inputs.log_prob), wanted, **TOLERANCE[dtype])
        torch.testing.assert_close(out.loss, expected, **TOLERANCE[dtype])

        # F is what the gradient holds beside A and the aggregation's factor.
        responses = responses_of(algorithm, inputs, inputs.log_prob)
        shares = [response.log_prob for response in responses]
        share = gradient(aggregate(shares, aggregation), inputs.log_prob)
        learns = inputs.mask & (inputs.advantages != 0)
        weight = -wanted[learns] / (inputs.advantages * share)[learns]
        torch.testing.assert_close(out.weight[learns], weight, **TOLERANCE[dtype])
        assert not out.weight.requires_grad
        assert not out.weight[~inputs.mask].any()


@pytest.mark.parametrize(("name", "options"), all_cases(), ids=case_id)
def test_equals_autograd_down_to_the_logits(name, options):
    algorithm = make_algorithm(name, **options)
    inputs = random_inputs(3)
    _, _, advantages, mask = inputs
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(*mask.shape, 13, generator=generator, dtype=torch.float64)
    drift = torch.randn(logits.shape, generator=generator, dtype=torch.float64)
    tokens = torch.randint(13, (*mask.shape, 1), generator=generator)

    def picked(scores: torch.Tensor) -> torch.Tensor:
        return scores.log_softmax(-1).gather(-1, tokens).squeeze(-1)

    inputs = replace(inputs, old_log_prob=picked(logits))
    logits = (logits + 0.6 * drift).requires_grad_()
    log_prob = picked(logits)
    ours = algorithm.loss(log_prob, inputs.old_log_prob, advantages, mask, **inputs.entropies).loss
    expected = -objective(algorithm, inputs, log_prob)
    torch.testing.assert_close(
        gradient(ours, logits), gradient(expected, logits), rtol=1e-12, atol=1e-15
    )


@pytest.mark.parametrize("name", algorithm_names())
def test_the_inputs_reach_every_branch(name):
    """Without this the comparisons above could hold on tokens that are never clipped."""
    widths = {"clip_low": 0.2, "clip_high": 0.28}
    dual = {"dual_clip": 3.0} if "dual_clip" in type(make_algorithm(name)).model_fields else {}
    algorithm = make_algorithm(name, **widths, **dual)
    given = [random_inputs(seed) for seed in SEEDS]
    metrics = [algorithm.loss(*inputs, **inputs.entropies).metrics for inputs in given]
    for key in ("pg_clipfrac_na", "pg_clipfrac_pa", *(["pg_clipfrac_lower"] if dual else [])):
        assert any(found[f"actor/{key}"] > 0 for found in metrics), key
    assert all(found["actor/pg_clipfrac"] < 0.9 for found in metrics)
