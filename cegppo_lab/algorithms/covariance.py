"""The covariance of advantage and log-probability, by which Clip-Cov and KL-Cov choose tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from cegppo_lab.algorithms.batch import TokenBatch

_MIX = (-7046029254386353131, -4658895280553007687, -7723592293110705685)
"""The constants of splitmix64 (Steele, Lea and Flood 2014), as signed numbers."""


def covariances(batch: TokenBatch) -> Tensor:
    """(A - mean A) (log pi_old - mean log pi_old), (batch, tokens); the means are over all tokens.

    -inf where masked out, and where it has no value.
    """
    tokens = batch.mask.sum().clamp(min=1)
    parts = [each - each.sum() / tokens for each in (batch.advantages, batch.old_log_prob)]
    found = torch.where(batch.mask, parts[0] * parts[1], -torch.inf)
    return found.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)


def first(eligible: Tensor, order: Tensor, share: float, tokens: Tensor) -> Tensor:
    """The eligible ones with the lowest ``order``: ``share`` of ``tokens`` in number, or one.

    Fewer when fewer are eligible. ``eligible``: bool, and ``order`` of any shape, as the result.
    """
    places = eligible.flatten().nonzero()[:, 0]
    number = max(int(share * float(tokens)), 1)
    taken = places[order.flatten()[places].argsort(stable=True)[:number]]
    return torch.zeros_like(eligible).flatten().index_fill(0, taken, True).view_as(eligible)


def lots(batch: TokenBatch) -> Tensor:
    """A pseudo-random int64 a token, (batch, tokens), for a draw that can be repeated.

    A hash (splitmix64) of the token's log pi_old and of its number among the batch's tokens, and of
    nothing else: no generator is read, and padding changes nothing.
    """
    bits = batch.old_log_prob.float().contiguous().view(torch.int32).long()
    number = batch.mask.flatten().cumsum(0).view_as(bits)
    golden, *factors = _MIX
    mixed = number * golden + bits
    for shift, factor in zip((30, 27), factors, strict=True):
        mixed = (mixed ^ _shifted(mixed, shift)) * factor
    return mixed ^ _shifted(mixed, 31)


def _shifted(number: Tensor, by: int) -> Tensor:
    """A logical shift to the right, which torch has for unsigned numbers only."""
    return (number >> by) & ((1 << (64 - by)) - 1)
