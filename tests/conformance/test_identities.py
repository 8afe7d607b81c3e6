"""What must hold between algorithms, terms and batches, whatever the formula of each."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cegppo_lab.algorithms import (
    Algorithm,
    LossOutput,
    TokenBatch,
    Totals,
    algorithm_names,
    make_algorithm,
    merge_metrics,
)
from tests.conformance.cases import AGGREGATIONS, EVERY_TERM, gradient, random_inputs
from tests.conformance.references import aggregate

ALGORITHMS = pytest.mark.parametrize("name", algorithm_names())
AGGREGATED = pytest.mark.parametrize("aggregation", AGGREGATIONS)


def mean_over(values: Tensor, mask: Tensor, aggregation: str) -> Tensor:
    """The aggregation written as means of lists (references.py), of the rows that have tokens."""
    return aggregate([row[m] for row, m in zip(values, mask, strict=True) if m.any()], aggregation)


@AGGREGATED
@pytest.mark.parametrize("clips", [(0.2, 0.2), (0.2, 0.28)], ids=str)
@pytest.mark.parametrize(("betas", "other"), [((0, 0), "grpo"), ((1, 1), "gppo")], ids=str)
@pytest.mark.parametrize("dual_clip", [None, 3.0])
def test_cegppo_ends_at_grpo_and_gppo(betas, other, clips, aggregation, dual_clip):
    shared = {"clip_low": clips[0], "clip_high": clips[1], "aggregation": aggregation}
    shared["dual_clip"] = dual_clip
    cegppo = make_algorithm("cegppo", beta1=betas[0], beta2=betas[1], **shared)
    for seed in range(3):
        inputs = random_inputs(seed)
        ours, theirs = cegppo.loss(*inputs), make_algorithm(other, **shared).loss(*inputs)
        assert torch.equal(ours.weight, theirs.weight)
        mine, wanted = (gradient(out.loss, inputs.log_prob) for out in (ours, theirs))
        assert torch.equal(mine, wanted)


@AGGREGATED
@ALGORITHMS
def test_on_policy_it_is_the_plain_policy_gradient(name, aggregation):
    """Where no token is set apart."""
    log_prob, _, advantages, mask = random_inputs(0)
    same = torch.ones_like(advantages)
    out = make_algorithm(name, aggregation=aggregation).loss(
        *(log_prob, log_prob.detach(), advantages, mask),
        **{"entropy": same, "old_entropy": same, "apart": torch.zeros_like(mask)},
    )
    plain = -mean_over(log_prob * advantages, mask, aggregation)
    torch.testing.assert_close(
        gradient(out.loss, log_prob), gradient(plain, log_prob), rtol=1e-13, atol=0
    )
    assert out.metrics["actor/ppo_kl"] == 0
    assert out.metrics["actor/pg_clipfrac"] == 0
    assert out.metrics["actor/ratio_max"] == out.metrics["actor/ratio_min"] == 1


@AGGREGATED
@ALGORITHMS
def test_optional_terms_add_exactly_themselves(name, aggregation):
    inputs = random_inputs(1)
    log_prob, _, advantages, mask = inputs
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(log_prob.shape, generator=generator, dtype=log_prob.dtype)
    reference = log_prob.detach() + 0.5 * noise
    correct = torch.tensor([True, False] * 4)
    pushed = (reference - log_prob).exp() - (reference - log_prob) - 1  # k3
    entropy = log_prob.square()  # Any function of log_prob: it tests the chain as well.
    entropy_term = -0.01 * mean_over(entropy, mask, aggregation)
    kl_term = 0.02 * mean_over(pushed, mask, aggregation)
    correct_term = -0.1 * mean_over(log_prob, mask & correct[:, None], aggregation)
    rewarded_term = -0.1 * mean_over(log_prob, mask & (advantages > 0), aggregation)

    bare = make_algorithm(name, aggregation=aggregation)
    drift = inputs.entropies["entropy"] / inputs.entropies["old_entropy"]
    entropies = {"entropy": entropy.detach(), "old_entropy": entropy.detach() / drift}
    base = bare.loss(*inputs, **entropies).loss
    for options, tensors, term in [
        ({"entropy_coef": 0.01}, {"entropy": entropy}, entropy_term),
        ({"kl_coef": 0.02}, {"ref_log_prob": reference}, kl_term),
        ({"positive_loss_coef": 0.1}, {"correct": correct}, correct_term),
        ({"positive_loss_coef": 0.1}, {}, rewarded_term),
        (
            EVERY_TERM,
            {"entropy": entropy, "ref_log_prob": reference, "correct": correct},
            entropy_term + kl_term + correct_term,
        ),
    ]:
        algorithm = make_algorithm(name, aggregation=aggregation, **options)
        loss = algorithm.loss(*inputs, **entropies | tensors).loss
        torch.testing.assert_close(loss, base + term, rtol=1e-12, atol=1e-14)
        wanted = gradient(base + term, log_prob)
        torch.testing.assert_close(gradient(loss, log_prob), wanted, rtol=1e-12, atol=1e-14)


class Policy:
    """A linear softmax policy: what the losses of micro-batches accumulate their gradient in."""

    def __init__(self, seed: int) -> None:
        inputs = random_inputs(seed)
        generator = torch.Generator().manual_seed(seed)
        shape, double = inputs.mask.shape, torch.float64
        self.features = torch.randn(*shape, 5, generator=generator, dtype=double)
        self.tokens = torch.randint(9, (*shape, 1), generator=generator)
        self.weights = torch.randn(5, 9, generator=generator, dtype=double).requires_grad_()
        drift = torch.randn(shape, generator=generator, dtype=double)
        self.old = self.log_probs(slice(None))[0].detach() - 0.6 * drift
        self.advantages, self.mask = inputs.advantages, inputs.mask
        self.old_entropy = self.log_probs(slice(None))[1].detach()
        self.old_entropy *= (0.06 * torch.randn(shape, generator=generator, dtype=double)).exp()
        self.correct = inputs.advantages[:, 0] > 0

    def log_probs(self, rows: slice) -> tuple[Tensor, Tensor]:
        table = (self.features[rows] @ self.weights).log_softmax(-1)
        entropy = -(table.exp() * table).sum(-1)
        return table.gather(-1, self.tokens[rows]).squeeze(-1), entropy

    def apart(self, algorithm: Algorithm) -> Tensor:
        told = (self.old, self.old, self.advantages, self.mask)
        chosen = algorithm.set_apart(TokenBatch.of(*told, old_entropy=self.old_entropy))
        return torch.zeros_like(self.mask) if chosen is None else chosen

    def loss(self, algorithm: Algorithm, rows: slice, width: int, totals: Totals) -> LossOutput:
        """The loss of some rows, their padding trimmed to ``width`` tokens."""
        log_prob, entropy = self.log_probs(rows)
        given = (log_prob, self.old[rows], self.advantages[rows], self.mask[rows])
        more = {"entropy": entropy, "ref_log_prob": self.old[rows] + 0.1}
        more |= {"old_entropy": self.old_entropy[rows], "apart": self.apart(algorithm)[rows]}
        return algorithm.loss(
            *(tensor[:, :width] for tensor in given),
            **{key: tensor[:, :width] for key, tensor in more.items()},
            correct=self.correct[rows],
            totals=totals,
        )


@AGGREGATED
@ALGORITHMS
@pytest.mark.parametrize("size", [1, 3])
def test_micro_batches_add_up_to_the_mini_batch(name, aggregation, size):
    algorithm = make_algorithm(name, aggregation=aggregation, **EVERY_TERM)
    policy = Policy(0)
    rows, width = policy.mask.shape
    totals = Totals.of(policy.mask, policy.correct)
    whole = policy.loss(algorithm, slice(None), width, totals)
    wanted = gradient(whole.loss, policy.weights)

    parts = []
    for start in range(0, rows, size):
        taken = slice(start, start + size)
        used = policy.mask[taken].any(0).nonzero().flatten().tolist()
        parts.append(policy.loss(algorithm, taken, max(used, default=0) + 1, totals))
        parts[-1].loss.backward()
    torch.testing.assert_close(policy.weights.grad, wanted, rtol=1e-13, atol=1e-15)
    merged = merge_metrics([part.metrics for part in parts])
    assert merged == pytest.approx(whole.metrics, rel=1e-12, abs=1e-15)


@AGGREGATED
@ALGORITHMS
def test_totals_of_the_batch_itself_change_nothing(name, aggregation):
    inputs = random_inputs(2)
    correct = inputs.advantages[:, 0] > 0
    algorithm = make_algorithm(name, aggregation=aggregation, positive_loss_coef=0.1)
    bare, given = (
        algorithm.loss(*inputs, **inputs.entropies, totals=totals)
        for totals in (None, Totals.of(inputs.mask, correct))
    )
    assert torch.equal(bare.loss, given.loss)
    assert bare.metrics == given.metrics
