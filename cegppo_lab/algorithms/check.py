"""Whether an algorithm is what its formula says: its loss, held to autograd on random tokens.

An algorithm may write its objective once more, as a paper does, in a method that training does not
use::

    def objective(self, batch: TokenBatch) -> Tensor:
        ratio = (batch.log_prob - batch.old_log_prob).exp()
        return ratio.clamp(max=2) * batch.advantages

It is the term of each token to maximise, (batch, tokens), with grad. Its gradient must be
``F * A``. Its value should be the surrogate's, which is only logged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cegppo_lab.algorithms.base import Algorithm
from cegppo_lab.algorithms.batch import TokenBatch, Totals
from cegppo_lab.algorithms.outside import place_of
from cegppo_lab.errors import LabError

ROWS, TOKENS = 8, 40
_CLOSE = 1e-9
"""Of float64 numbers, to the larger of 1 and theirs."""


@dataclass(frozen=True)
class Finding:
    """One property of an algorithm: whether it holds, or None where that is not asked."""

    holds: bool | None
    text: str


@dataclass(frozen=True)
class Weighed:
    """F on random tokens: the arguments of ``loss``, the batch that they make, and F itself."""

    inputs: dict[str, Tensor]
    batch: TokenBatch
    weight: Tensor


def weighed(algorithm: Algorithm) -> Weighed:
    """F of ``algorithm``, whose coefficients are numbers, at tokens of every kind.

    They have ratios from e^-2 to e^2, advantages of both signs, and responses of different lengths.
    Raises ``LabError`` when F cannot be computed or has another shape than the tokens.
    """
    inputs = _inputs()
    try:
        batch = TokenBatch.of(**inputs, apart=algorithm.set_apart(TokenBatch.of(**inputs)))
        with torch.no_grad():
            weight = algorithm.weight(batch)
    except LabError:
        raise
    except Exception as error:
        raise LabError(f"algorithm {algorithm.name}: {place_of(error)}") from None
    shape = tuple(batch.mask.shape)
    if not isinstance(weight, Tensor) or tuple(weight.shape) != shape:
        given = tuple(weight.shape) if isinstance(weight, Tensor) else type(weight).__name__
        raise LabError(
            f"algorithm {algorithm.name}: weight gives {given} for (batch, tokens) = {shape}; it "
            "must have a number for each token"
        )
    return Weighed(inputs, batch, weight)


def findings(algorithm: Algorithm) -> Iterator[Finding]:
    """What holds of ``algorithm``, whose schedules have their values of step 0.

    Raises ``LabError`` for what :func:`weighed` refuses, and for an objective without grad.
    """
    algorithm = algorithm.at(0)
    found = weighed(algorithm)
    finite = bool(found.weight.isfinite().all())
    yield Finding(finite, "F is a finite number at every token")
    if finite:
        yield _micro_batches(algorithm, found.inputs, found.batch.apart)
        yield from _formula(algorithm, found.batch, found.inputs["log_prob"], found.weight)


def _inputs() -> dict[str, Tensor]:
    """The arguments of ``loss``, (ROWS, TOKENS), float64; ``log_prob`` is a leaf with grad."""
    stream = torch.Generator().manual_seed(0)
    shape = (ROWS, TOKENS)

    def uniform(low: float, high: float, *size: int) -> Tensor:
        drawn = torch.rand(*(size or shape), generator=stream, dtype=torch.float64)
        return low + (high - low) * drawn

    old = uniform(-4, -0.05)
    advantages = uniform(0.2, 2, ROWS, 1) * torch.tensor([1.0, -1.0]).repeat(ROWS // 2)[:, None]
    lengths = torch.linspace(TOKENS / 4, TOKENS, ROWS).long()
    old_entropy = uniform(0.1, 2)
    return {
        "log_prob": (old + uniform(-2, 2)).requires_grad_(),
        "old_log_prob": old,
        "advantages": advantages.expand(shape).contiguous(),
        "mask": torch.arange(TOKENS) < lengths[:, None],
        "entropy": old_entropy * uniform(0.9, 1.1),
        "ref_log_prob": old,
        "old_entropy": old_entropy,
    }


def _micro_batches(
    algorithm: Algorithm, inputs: dict[str, Tensor], apart: Tensor | None
) -> Finding:
    """The gradient over all responses is that of its halves, with the totals of all."""
    leaf, mask = inputs["log_prob"], inputs["mask"]
    totals = Totals.of(mask, (inputs["advantages"] > 0).any(-1))
    halves = (slice(0, ROWS // 2), slice(ROWS // 2, ROWS))
    losses = [
        algorithm.loss(
            **{key: tensor[rows] for key, tensor in inputs.items()},
            apart=None if apart is None else apart[rows],
            totals=totals,
        ).loss
        for rows in halves
    ]
    whole = algorithm.loss(**inputs, apart=apart, totals=totals).loss
    found, wanted = (torch.autograd.grad(loss, leaf)[0] for loss in (sum(losses), whole))
    return Finding(
        not _off(found, wanted).any(),
        "the gradient does not depend on the size of micro-batches",
    )


def _formula(
    algorithm: Algorithm, batch: TokenBatch, leaf: Tensor, weight: Tensor
) -> Iterator[Finding]:
    objective = getattr(algorithm, "objective", None)
    if objective is None:
        yield Finding(None, "nothing to hold F to: write the formula as objective(self, batch)")
        return
    try:
        term = objective(batch)
    except Exception as error:
        raise LabError(f"algorithm {algorithm.name}: {place_of(error)}") from None
    if not isinstance(term, Tensor) or term.shape != weight.shape or not term.requires_grad:
        raise LabError(
            "objective(self, batch) must return (batch, tokens) with grad: write it in terms of "
            "batch.log_prob, e.g. (batch.log_prob - batch.old_log_prob).exp() * batch.advantages"
        )
    (found,) = torch.autograd.grad(term[batch.mask].sum(), leaf)
    with torch.no_grad():
        kept = torch.where(batch.mask, weight, 0.0)
        value = algorithm.surrogate(batch, weight)
    wanted = kept * batch.advantages
    yield _compared("F * A is the gradient of objective", batch, found, wanted)
    if (_off(term.detach(), value) & batch.mask).any():
        told = "the loss has another value than objective; actor/pg_loss alone shows it"
        yield Finding(None, f"{told} (surrogate would give it)")


def _compared(text: str, batch: TokenBatch, formula: Tensor, ours: Tensor) -> Finding:
    """With the token at which the two differ most, where they do."""
    off = _off(formula, ours) & batch.mask
    if not off.any():
        return Finding(True, f"{text} ({int(batch.mask.sum())} tokens)")
    far = torch.where(off, (formula - ours).abs().nan_to_num(torch.inf), -1.0).argmax()
    ratio, advantage, theirs, own = (
        tensor.flatten()[far].item() for tensor in (batch.ratio, batch.advantages, formula, ours)
    )
    return Finding(
        False,
        f"{text}: not at {int(off.sum())} of {int(batch.mask.sum())} tokens, e.g. at ratio "
        f"{ratio:.4g} and A {advantage:.4g}, where the formula gives {theirs:.6g}, not {own:.6g}",
    )


def _off(one: Tensor, other: Tensor) -> Tensor:
    return ~((one - other).abs() <= _CLOSE * torch.maximum(one.abs(), other.abs()).clamp(min=1))
