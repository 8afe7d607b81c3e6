"""The 80/20 rule: only the tokens of highest entropy learn."""

from __future__ import annotations

from typing import ClassVar

from cegppo_lab.algorithms.grpo import DAPO
from cegppo_lab.algorithms.registry import register
from cegppo_lab.schedule import bounded


@register
class HighEntropyTokens(DAPO):
    """DAPO, whose policy gradient comes from the fifth of the tokens with the highest entropy.

    F is DAPO's at the ``entropy_top`` share of a mini-batch's tokens with the highest entropy, and
    0 at the others, which still count in the averages. The same option masks any algorithm of the
    token-ratio family. Entropy is the rollout policy's, known before the update, so that the choice
    is made over the whole mini-batch whatever its micro-batches; the paper takes the policy's that
    is being trained, which is the same at a rollout batch's first mini-batch.
    Assumption: only the tokens at which reasoning forks are worth learning from.
    Degenerate case: entropy_top = 1 is DAPO.
    """

    name: ClassVar[str] = "high_entropy_tokens"
    title: ClassVar[str] = "DAPO, 80/20"
    equation: ClassVar[str] = "1[H_old among the top 20 %] min(d A, clip(d, 1-eps_l, 1+eps_h) A)"
    source: ClassVar[str] = "arXiv 2506.01939"
    neutral: ClassVar[frozenset[str]] = frozenset()

    entropy_top: bounded(gt=0, le=1) | None = 0.2
