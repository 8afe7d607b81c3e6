"""GMPO: the geometric mean of a response's token ratios, each clipped first."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from cegppo_lab.algorithms.base import Aggregation, Algorithm
from cegppo_lab.algorithms.batch import TokenBatch
from cegppo_lab.algorithms.registry import register
from cegppo_lab.schedule import Coefficient


@register
class GMPO(Algorithm):
    """GMPO: F = g, and 0 where a token's log-ratio is clipped; g is one number a response.

    g = exp(mean over the response's tokens of the clipped log d); log d is clipped at -clip_low
    where A < 0 and at clip_high where A > 0, so that the interval of d is
    (e^-clip_low, e^clip_high); 0.4 is the paper's, as ``cliprange`` in its code. With the
    response-level mean (this class's default aggregation) the gradient is g A mean_t grad log pi_t
    over the tokens inside. A is meant to be one number a response; where it is not, each token is
    clipped by the sign of its own.
    Assumption: an outlier among a response's ratios says little; a geometric mean bears it.
    Degenerate case: responses of one token each make it GRPO with the interval above.
    """

    name: ClassVar[str] = "gmpo"
    title: ClassVar[str] = "GMPO"
    equation: ClassVar[str] = (
        "g A, g = exp(mean_t log d_t), log d clipped: A > 0 eps_h, A < 0 -eps_l"
    )
    source: ClassVar[str] = "arXiv 2507.20673; its code; verl 0.9.1 geo_mean"

    clip_low: Coefficient = 0.4
    clip_high: Coefficient = 0.4
    aggregation: Aggregation = "seq-mean-token-mean"

    def outside(self, batch: TokenBatch) -> tuple[Tensor, Tensor]:
        """The tokens whose log-ratio is clipped: below (A < 0), then above (A > 0)."""
        low = batch.mask & (batch.advantages < 0) & (batch.log_ratio < -self.clip_low)
        high = batch.mask & (batch.advantages > 0) & (batch.log_ratio > self.clip_high)
        return low, high

    def weight(self, batch: TokenBatch) -> Tensor:
        """g, and 0 where the clip cuts the gradient."""
        low, high = self.outside(batch)
        return torch.where(low | high, 0.0, self._mean_ratio(batch))

    def surrogate(self, batch: TokenBatch, weight: Tensor) -> Tensor:
        """g * A at every token of the response."""
        return self._mean_ratio(batch) * batch.advantages

    def _mean_ratio(self, batch: TokenBatch) -> Tensor:
        low, high = self.outside(batch)
        clipped = torch.where(low, -self.clip_low, batch.log_ratio)
        clipped = torch.where(high, self.clip_high, clipped)
        clipped = torch.where(batch.mask, clipped, 0.0)
        length = batch.mask.sum(-1, keepdim=True).clamp(min=1)
        return (clipped.sum(-1, keepdim=True) / length).exp().expand_as(clipped)
