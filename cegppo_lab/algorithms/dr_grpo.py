"""Dr. GRPO: GRPO without its two normalisations."""

from __future__ import annotations

from typing import ClassVar

from cegppo_lab.algorithms.base import Aggregation
from cegppo_lab.algorithms.grpo import GRPO
from cegppo_lab.algorithms.registry import register


@register
class DrGRPO(GRPO):
    """Dr. GRPO: GRPO with A = r - mean(r), and sums over tokens instead of means.

    Neither is divided by the standard deviation of a group's rewards (whatever
    ``trainer.norm_adv_by_std`` says) nor by the length of a response, so that groups of medium
    difficulty and long wrong answers are not favoured. The sum is the paper's equation; the
    authors' code divides it by the token budget as well (``masked_sum`` by
    ``generate_max_length``), a constant: mind the sum's size beside ``trainer.grad_clip`` and
    beside the coefficients of other terms.
    Assumption: both normalisations bias the policy gradient, and the bias does harm.
    Degenerate case: responses of equal length and groups of equal deviation make it GRPO, scaled.
    """

    name: ClassVar[str] = "dr_grpo"
    title: ClassVar[str] = "Dr. GRPO"
    equation: ClassVar[str] = (
        "min(d A, clip(d, 1-eps_l, 1+eps_h) A), A = r - mean(r), sum over tokens"
    )
    source: ClassVar[str] = "arXiv 2503.20783; its code, train_zero_math.py"
    divides_by_std: ClassVar[bool] = False

    aggregation: Aggregation = "seq-mean-token-sum"
