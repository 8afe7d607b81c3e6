"""A tabular softmax policy: gradients of token pushes, Adam in parts, and Eq. 7's prediction."""

from __future__ import annotations

import torch
from torch import Tensor


def entropy(logits: Tensor) -> Tensor:
    """Of the softmax over the last dimension, in nats."""
    log_probs = logits.log_softmax(-1)
    return -(log_probs.exp() * log_probs).sum(-1)


def entropy_change(log_probs: Tensor, moves: Tensor) -> Tensor:
    """The change of entropy to first order when the logits move by ``moves`` (..., symbols).

    ``-Cov_{y~pi}(log pi(y), move(y))``: Eq. 7, where the move is lr * pi(y) A(y).
    """
    probs = log_probs.exp()
    mean = (probs * log_probs).sum(-1, keepdim=True)
    return -(probs * (log_probs - mean) * moves).sum(-1)


def logits_gradient(
    pushes: Tensor, kinds: Tensor, at: Tensor, log_probs: Tensor, parts: int
) -> Tensor:
    """Gradient of ``sum(push * log pi(token))`` with respect to the logits, by kind of token.

    ``pushes``, ``kinds`` (below ``parts``) and ``at`` (slot * symbols + symbol): (A, R, rows,
    tokens). ``log_probs``: (A, R, slots, symbols). Returns (A, R, parts, slots, symbols).
    """
    (arms, seeds, slots, symbols), size = log_probs.shape, log_probs[0, 0].numel()
    places = (kinds * size + at).flatten(2)
    sums = log_probs.new_zeros(arms, seeds, parts * size)
    sums = sums.scatter_add(2, places, pushes.flatten(2)).view(arms, seeds, parts, slots, symbols)
    return sums - sums.sum(-1, keepdim=True) * log_probs.exp()[:, :, None]


class Adam:
    """Adam (ascent, no weight decay) whose step is told by the parts that its gradient has.

    A step is linear in the first moment, so the parts of the step sum to it exactly; the second
    moment is of the whole gradient.
    """

    def __init__(self, shape: tuple[int, ...], parts: int, lr: float) -> None:
        arms, seeds, *rest = shape
        self._first = torch.zeros(arms, seeds, parts, *rest)
        self._second, self._lr, self._count = torch.zeros(shape), lr, 0

    def moves(self, gradient: Tensor, betas: tuple[float, float] = (0.9, 0.999)) -> Tensor:
        """The step for ``gradient``, both (A, R, parts, slots, symbols)."""
        self._count += 1
        self._first = betas[0] * self._first + (1 - betas[0]) * gradient
        self._second = betas[1] * self._second + (1 - betas[1]) * gradient.sum(2).square()
        scale = (self._second / (1 - betas[1] ** self._count)).sqrt() + 1e-8
        return self._lr * self._first / (1 - betas[0] ** self._count) / scale[:, :, None]
