"""Clip-Cov: no gradient at a few tokens whose advantage and log-probability vary together."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import model_validator
from torch import Tensor

from cegppo_lab.algorithms.batch import TokenBatch
from cegppo_lab.algorithms.covariance import covariances, first, lots
from cegppo_lab.algorithms.grpo import GRPO
from cegppo_lab.algorithms.interval import check_order
from cegppo_lab.algorithms.registry import register
from cegppo_lab.schedule import Coefficient, bounded


@register
class ClipCov(GRPO):
    """Clip-Cov: GRPO, and F = 0 at some tokens with a covariance in (cov_low, cov_high).

    The covariance is (A - mean A) (log pi - mean log pi) with means over the mini-batch's tokens.
    Of the tokens in the interval as many are drawn as ``cov_share`` of the mini-batch's tokens, and
    at least one. Two things differ from verl, so that neither the size of micro-batches nor the
    state of a generator matters. pi is the rollout policy's, known before the update, and means and
    draw are over the mini-batch, where verl takes the current policy and the micro-batch and leaves
    out what PPO clips. The draw is by a hash of the tokens, where verl's has no seed. Defaults are
    those of the authors' recipe ``7b_clip_cov.sh``, whose clip widths of 1 clip nothing below.
    Assumption: the tokens of high covariance are few, and it is they that bring entropy down.
    Degenerate case: no token in the interval makes it GRPO.
    """

    name: ClassVar[str] = "clip_cov"
    title: ClassVar[str] = "Clip-Cov"
    equation: ClassVar[str] = "min(d A, clip(d, 1-eps_l, 1+eps_h) A), 0 at a draw of l < cov < h"
    source: ClassVar[str] = "arXiv 2505.22617; verl 0.9.1 clip_cov"

    clip_low: Coefficient = 1.0
    clip_high: Coefficient = 1.0
    cov_share: bounded(gt=0, le=1) = 2e-4
    cov_low: Coefficient = 1.0
    cov_high: Coefficient = 5.0

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        check_order(self, "cov_low", "cov_high")
        return self

    def set_apart(self, batch: TokenBatch) -> Tensor:
        """The drawn tokens, and with ``entropy_top`` those of low entropy."""
        found = covariances(batch)
        eligible = (found > self.cov_low) & (found < self.cov_high)
        drawn = first(eligible, lots(batch), self.cov_share, batch.mask.sum())
        masked = super().set_apart(batch)
        return drawn if masked is None else drawn | masked
