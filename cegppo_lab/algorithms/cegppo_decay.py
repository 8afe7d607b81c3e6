"""CE-GPPO with a lower weight that decays with the ratio: this suite's, not the paper's."""

from __future__ import annotations

from typing import ClassVar

from cegppo_lab.algorithms.batch import TokenBatch
from cegppo_lab.algorithms.cegppo import CEGPPO
from cegppo_lab.algorithms.ppo import Edge
from cegppo_lab.algorithms.registry import register


@register
class CEGPPODecay(CEGPPO):
    """CE-GPPO, decaying: below the lower edge F = beta1 * ratio instead of beta1 * (1 - clip_low).

    Ours, not the CE-GPPO paper's. F is CE-GPPO's everywhere else, and just below the edge: with
    beta1 = 1 it is continuous there, with a smaller beta1 it steps from 1 - clip_low down to
    beta1 * (1 - clip_low), as CE-GPPO's does.
    Why: CE-GPPO pushes a token with A < 0 down with a weight that stays however small its ratio,
    while the weight that could restore it (A > 0) is the ratio; a token can ratchet down. Here both
    are proportional to the ratio, so that the push down is at most beta1 times the push up at
    equal |A|, and vanishes with the ratio.
    Assumption: a token far below the edge has been pushed down enough within this rollout batch.
    Degenerate cases: beta1 = beta2 = 0 is PPO's gradient; beta1 = 1 has no lower edge at all.
    """

    name: ClassVar[str] = "cegppo_decay"
    title: ClassVar[str] = "CE-GPPO, decaying"
    equation: ClassVar[str] = "d A; clipped: beta1 d A, beta2 (1+eps_h)/sg(d) d A"
    source: ClassVar[str] = "this suite, after CE-GPPO Eq. 8"

    def edges(self, batch: TokenBatch) -> tuple[Edge, Edge]:
        """beta1 * ratio and beta2 * (1 + clip_high)."""
        return self.beta1 * batch.ratio, super().edges(batch)[1]
