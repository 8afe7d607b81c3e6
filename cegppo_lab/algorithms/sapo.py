"""SAPO: a smooth gate on the token ratio instead of a clip."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from cegppo_lab.algorithms.base import Aggregation, Algorithm
from cegppo_lab.algorithms.batch import TokenBatch
from cegppo_lab.algorithms.registry import register
from cegppo_lab.schedule import bounded


@register
class SAPO(Algorithm):
    """SAPO: F = 4 p (1 - p) ratio with p = sigmoid(tau (ratio - 1)).

    tau is ``tau_pos`` where A > 0 and ``tau_neg`` elsewhere; F is 1 at ratio 1 and falls smoothly
    on either side, faster for the larger tau. Term to maximise: 4 / tau * p * A. The clip widths
    do not act: they only say which tokens the clip fractions count.
    Assumption: gradients far off-policy are worth less, never nothing at once, and least where
    A < 0, whose gradient raises many tokens that were not sampled.
    Degenerate case: at ratio 1 everywhere, the plain policy gradient.
    """

    name: ClassVar[str] = "sapo"
    title: ClassVar[str] = "SAPO"
    equation: ClassVar[str] = "4/tau sigmoid(tau (d - 1)) A, tau = tau_pos (A > 0), else tau_neg"
    source: ClassVar[str] = "arXiv 2511.20347; verl 0.9.1 sapo"

    aggregation: Aggregation = "seq-mean-token-mean"
    tau_pos: bounded(gt=0) = 1.0
    tau_neg: bounded(gt=0) = 1.05

    def weight(self, batch: TokenBatch) -> Tensor:
        """The gate's derivative to log pi."""
        gate = torch.sigmoid(self._tau(batch) * (batch.ratio - 1))
        return 4 * gate * (1 - gate) * batch.ratio

    def surrogate(self, batch: TokenBatch, weight: Tensor) -> Tensor:
        """The gate itself times A."""
        tau = self._tau(batch)
        return 4 / tau * torch.sigmoid(tau * (batch.ratio - 1)) * batch.advantages

    def _tau(self, batch: TokenBatch) -> Tensor:
        advantages = batch.advantages
        tau_pos, tau_neg = advantages.new_tensor([self.tau_pos, self.tau_neg])
        return torch.where(advantages > 0, tau_pos, tau_neg)
