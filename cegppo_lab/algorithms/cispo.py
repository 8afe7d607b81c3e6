"""CISPO: a clipped importance weight on every token."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from cegppo_lab.algorithms.base import Algorithm
from cegppo_lab.algorithms.batch import TokenBatch
from cegppo_lab.algorithms.registry import register


@register
class CISPO(Algorithm):
    """CISPO: F = sg(clip(ratio, 1 - clip_low, 1 + clip_high)), whatever the advantage's sign.

    The paper's reading (appendix A.1), two-sided; other work clips above only.
    Assumption: no token should be without gradient, and none far from on-policy weight.
    Degenerate case: clip_low = clip_high = 0 is the plain policy gradient at any ratio.
    """

    name: ClassVar[str] = "cispo"
    title: ClassVar[str] = "CISPO"
    equation: ClassVar[str] = "sg(clip(d, 1-eps_l, 1+eps_h)) A log pi"
    source: ClassVar[str] = "CE-GPPO appendix A.1; arXiv 2506.13585"

    def weight(self, batch: TokenBatch) -> Tensor:
        """The ratio, clamped into the clip interval."""
        return batch.ratio.clamp(1 - self.clip_low, 1 + self.clip_high)

    def surrogate(self, batch: TokenBatch, weight: Tensor) -> Tensor:
        """F * A * log pi: the objective that CISPO writes."""
        return weight * batch.advantages * batch.log_prob.detach()
