"""CE-GPPO: the paper's algorithm."""

from __future__ import annotations

from typing import ClassVar

from cegppo_lab.algorithms.batch import TokenBatch
from cegppo_lab.algorithms.ppo import Edge, TokenRatioPPO
from cegppo_lab.algorithms.registry import register
from cegppo_lab.schedule import Coefficient


@register
class CEGPPO(TokenRatioPPO):
    """CE-GPPO: clipped tokens keep a bounded gradient, weighed by beta1 below and beta2 above.

    F = beta1 * (1 - clip_low)   where A < 0 and ratio < 1 - clip_low   (NA&LP: lowers entropy)
        beta2 * (1 + clip_high)  where A > 0 and ratio > 1 + clip_high  (PA&LP: raises entropy)
        ratio                    elsewhere
    (Eq. 8 to 10. Section 3.2's prose swaps the two; the equations, the curves and the code agree
    on this reading.) Defaults are the paper's 7B setting, beta1 = 0.75 and beta2 = 1.
    Assumption: the two clipped sides push entropy in opposite directions, so that their balance
    steers it. Degenerate cases: beta1 = beta2 = 0 is PPO's gradient, 1 and 1 is GPPO.
    Mind: below the lower edge F does not decay with the ratio, while the weight that could restore
    the token is the ratio itself; at large steps a token can ratchet down. ``cegppo_decay`` decays.
    """

    name: ClassVar[str] = "cegppo"
    title: ClassVar[str] = "CE-GPPO"
    equation: ClassVar[str] = "d A; clipped: beta1 (1-eps_l)/sg(d) d A, beta2 (1+eps_h)/sg(d) d A"
    source: ClassVar[str] = "CE-GPPO Eq. 8 to 10; arXiv 2509.20712"

    beta1: Coefficient = 0.75
    beta2: Coefficient = 1.0

    def edges(self, batch: TokenBatch) -> tuple[Edge, Edge]:
        """beta1 * (1 - clip_low) and beta2 * (1 + clip_high), Eq. 10."""
        return self.beta1 * (1 - self.clip_low), self.beta2 * (1 + self.clip_high)
