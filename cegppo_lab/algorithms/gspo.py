"""GSPO: PPO's clip on one length-normalised ratio a response."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from cegppo_lab.algorithms.base import Aggregation, Algorithm
from cegppo_lab.algorithms.batch import MAX_LOG_RATIO, TokenBatch
from cegppo_lab.algorithms.registry import register
from cegppo_lab.schedule import Coefficient


@register
class GSPO(Algorithm):
    """GSPO: s = exp(mean over a response's tokens of log d); F = s, and 0 where PPO clips s.

    With the response-level mean (this class's default aggregation) the gradient is
    s * A * mean_t grad log pi_t. A response is clipped whole or not at all, hence the large share
    of clipped tokens (claim C11).
    Assumption: rewards are given to responses, so ratios should be theirs as well.
    Degenerate case: responses of one token each make it GRPO with GSPO's clip widths.
    """

    name: ClassVar[str] = "gspo"
    title: ClassVar[str] = "GSPO"
    equation: ClassVar[str] = "min(s A, clip(s, 1-eps_l, 1+eps_h) A), s = exp(mean_t log d_t)"
    source: ClassVar[str] = "CE-GPPO appendix A.1; arXiv 2507.18071"

    clip_low: Coefficient = 3e-4
    clip_high: Coefficient = 4e-4
    aggregation: Aggregation = "seq-mean-token-mean"

    def ratio(self, batch: TokenBatch) -> Tensor:
        """s, repeated over the response's tokens; its logarithm is clamped like token ratios."""
        difference = batch.log_prob.detach() - batch.old_log_prob
        length = batch.mask.sum(-1, keepdim=True).clamp(min=1)
        # Divided first: a sum of finite log-ratios may overflow, their mean may not.
        mean = (difference / length).sum(-1, keepdim=True)
        return mean.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp().expand_as(difference)

    def weight(self, batch: TokenBatch) -> Tensor:
        """s, and 0 where the clip cuts the gradient."""
        low, high = self.outside(batch)
        return torch.where(low | high, 0.0, self.ratio(batch))

    def surrogate(self, batch: TokenBatch, weight: Tensor) -> Tensor:
        """PPO's min on s: where clipped, the edge of the interval times A."""
        low, high = self.outside(batch)
        clipped = torch.where(low, 1 - self.clip_low, torch.where(high, 1 + self.clip_high, weight))
        return clipped * batch.advantages
