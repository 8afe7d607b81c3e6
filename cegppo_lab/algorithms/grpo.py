"""GRPO and DAPO: PPO's clip on token ratios with group-normalised advantages."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from cegppo_lab.algorithms.batch import TokenBatch
from cegppo_lab.algorithms.ppo import TokenRatioPPO, without_apart
from cegppo_lab.algorithms.registry import register
from cegppo_lab.schedule import Coefficient


@register
class GRPO(TokenRatioPPO):
    """GRPO, native: F = ratio, and 0 where PPO's min cuts the gradient.

    Term to maximise: min(d * A, clip(d, 1 - clip_low, 1 + clip_high) * A). Tokens whose ratio has
    left the interval in the direction of their advantage stop learning; these are mostly
    low-probability tokens (Figure 1), which is why entropy collapses.
    Assumption: the gradient beyond the edge is not worth its variance.
    Degenerate case: at ratio 1 everywhere, the plain policy gradient.
    """

    name: ClassVar[str] = "grpo"
    title: ClassVar[str] = "GRPO"
    equation: ClassVar[str] = "min(d A, clip(d, 1-eps_l, 1+eps_h) A)"
    source: ClassVar[str] = "CE-GPPO Eq. 3, appendix A.1; arXiv 2402.03300"

    def surrogate(self, batch: TokenBatch, weight: Tensor) -> Tensor:
        """PPO's min: where clipped, the edge of the interval times A."""
        low, high = self.outside(batch)
        value = super().surrogate(batch, weight)
        value = torch.where(low, (1 - self.clip_low) * batch.advantages, value)
        value = torch.where(high, (1 + self.clip_high) * batch.advantages, value)
        return without_apart(batch, value)


@register
class DAPO(GRPO):
    """DAPO: GRPO with clip-higher, dynamic sampling and the token-level mean.

    The wider upper edge lets low-probability tokens with a positive advantage grow further before
    they are clipped. The paper's "DAPO" arm is clip-higher alone, on top of a trainer that filters
    groups for every arm; DAPO's overlong reward shaping is not part of this class.
    Assumption: exploration is lost at the upper edge only.
    Degenerate case: clip_high = clip_low gives GRPO's loss.
    """

    name: ClassVar[str] = "dapo"
    title: ClassVar[str] = "DAPO"
    equation: ClassVar[str] = "min(d A, clip(d, 1-eps_l, 1+eps_h) A), eps_h > eps_l"
    source: ClassVar[str] = "CE-GPPO appendix A.1; arXiv 2503.14476"

    clip_high: Coefficient = 0.28
    dynamic_sampling: bool = True
