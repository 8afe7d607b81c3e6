"""GPPO: gradient-preserving clipping without coefficients."""

from __future__ import annotations

from typing import ClassVar

from cegppo_lab.algorithms.batch import TokenBatch
from cegppo_lab.algorithms.ppo import Edge, TokenRatioPPO
from cegppo_lab.algorithms.registry import register


@register
class GPPO(TokenRatioPPO):
    """GPPO (Klear-Reasoner): clipped tokens keep the gradient of the interval's edge, whole.

    CE-GPPO with beta1 = beta2 = 1.
    Assumption: clipped tokens are as informative as the others.
    Degenerate case: at ratio 1 everywhere, the plain policy gradient.
    """

    name: ClassVar[str] = "gppo"
    title: ClassVar[str] = "GPPO"
    equation: ClassVar[str] = "d A; clipped: (1-eps_l)/sg(d) d A, (1+eps_h)/sg(d) d A"
    source: ClassVar[str] = "arXiv 2508.07629; CE-GPPO section 3"

    def edges(self, batch: TokenBatch) -> tuple[Edge, Edge]:
        """The edges of the clip interval."""
        return 1 - self.clip_low, 1 + self.clip_high
