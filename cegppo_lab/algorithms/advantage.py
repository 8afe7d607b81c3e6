"""Group-relative advantages."""

from __future__ import annotations

from torch import Tensor

STD_EPSILON = 1e-6
"""verl's; it keeps groups of equal rewards at advantage 0."""


def group_advantages(rewards: Tensor, *, by_std: bool = True) -> Tensor:
    """A = (r - mean(r)) / std(r) over the responses of one prompt (section 2).

    ``rewards``: (groups, responses per group); the result has the same shape. The deviation is
    the unbiased one, as in verl. ``by_std=False`` only subtracts the mean (Dr. GRPO).
    """
    centred = rewards - rewards.mean(-1, keepdim=True)
    if not by_std or not len(rewards):  # torch warns of the deviation of no groups
        return centred
    return centred / (rewards.std(-1, keepdim=True) + STD_EPSILON)
