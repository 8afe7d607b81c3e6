"""ERC: no gradient where the update has moved a token's entropy too far."""

from __future__ import annotations

from typing import ClassVar, Self

import torch
from pydantic import model_validator
from torch import Tensor

from cegppo_lab.algorithms.batch import TokenBatch
from cegppo_lab.algorithms.grpo import DAPO
from cegppo_lab.algorithms.interval import check_order
from cegppo_lab.algorithms.registry import register
from cegppo_lab.schedule import Coefficient

_EPSILON = 1e-8
"""The authors'."""


@register
class ERC(DAPO):
    """ERC, entropy ratio clipping, on DAPO: F = 0 where the entropy ratio leaves an interval.

    F is DAPO's where entropy_low < rho < entropy_high and 0 elsewhere, with
    rho = (H + 1e-8) / (H_old + 1e-8), the entropy of the policy at the token's position over the
    rollout policy's. As in the authors' code the loss keeps the value of a token that is cut. The
    bounds .95 and 1.05 are those of its DAPO and GPPO recipes (``*_erc_1_05.sh``), the clip widths
    those of the former.
    Assumption: the ratio of a sampled token says too little of how the other tokens have moved.
    Degenerate case: entropy_low = 0 and a large entropy_high give DAPO.
    """

    name: ClassVar[str] = "erc"
    title: ClassVar[str] = "ERC"
    equation: ClassVar[str] = "min(d A, clip(d, 1-eps_l, 1+eps_h) A), sg unless l < H/H_old < h"
    source: ClassVar[str] = "arXiv 2512.05591; its code, grpo_erc"

    entropy_low: Coefficient = 0.95
    entropy_high: Coefficient = 1.05

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        check_order(self, "entropy_low", "entropy_high")
        return self

    @property
    def needs(self) -> frozenset[str]:
        """The entropies of both policies."""
        return frozenset({"entropy", "old_entropy"})

    def weight(self, batch: TokenBatch) -> Tensor:
        """DAPO's, and 0 where the entropy ratio is out of bounds."""
        now = batch.require("entropy", self.name).detach()
        ratio = (now + _EPSILON) / (batch.require("old_entropy", self.name) + _EPSILON)
        inside = (ratio > self.entropy_low) & (ratio < self.entropy_high)
        return torch.where(inside, super().weight(batch), 0.0)

    def surrogate(self, batch: TokenBatch, weight: Tensor) -> Tensor:
        """DAPO's, wherever the entropy ratio lies."""
        return super().surrogate(batch, super().weight(batch))
