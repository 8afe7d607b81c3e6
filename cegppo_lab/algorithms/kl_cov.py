"""KL-Cov: a pull to the rollout policy where advantage and log-probability vary together."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from cegppo_lab.algorithms.base import Algorithm
from cegppo_lab.algorithms.batch import TokenBatch
from cegppo_lab.algorithms.covariance import covariances, first
from cegppo_lab.algorithms.registry import register
from cegppo_lab.schedule import Coefficient, bounded


@register
class KLCov(Algorithm):
    """KL-Cov: F = ratio without any clip; less cov_coef |log d| at the highest covariances.

    At the ``cov_share`` of the mini-batch's tokens (at least one) with the highest covariance
    (A - mean A) (log pi - mean log pi), the term to maximise is d A - cov_coef |log d|, which is
    F = d - cov_coef sign(log d) / A. A token whose A is 0 is never chosen. As in ``clip_cov``, pi
    is the rollout policy's and the means and the choice are over the mini-batch, where verl takes
    the current policy and the micro-batch. The clip widths do not act: they only say which tokens
    the clip fractions count. Defaults are those of the authors' recipe ``7b_kl_cov.sh``; the share
    of ``32b_kl_cov.sh``, and verl's default, is 2e-4.
    Assumption: the tokens of high covariance are few, and it is they that bring entropy down.
    Degenerate case: cov_coef = 0 is the policy gradient with importance ratios, never clipped.
    """

    name: ClassVar[str] = "kl_cov"
    title: ClassVar[str] = "KL-Cov"
    equation: ClassVar[str] = "d A, less c abs(log d) at the highest cov"
    source: ClassVar[str] = "arXiv 2505.22617; verl 0.9.1 kl_cov"

    cov_share: bounded(gt=0, le=1) = 2e-3
    cov_coef: Coefficient = 1.0

    def set_apart(self, batch: TokenBatch) -> Tensor:
        """The tokens of highest covariance, to be pulled."""
        found, learns = covariances(batch), batch.mask & (batch.advantages != 0)
        return first(learns, -found, self.cov_share, batch.mask.sum())

    def weight(self, batch: TokenBatch) -> Tensor:
        """The ratio, less the pull's gradient over A."""
        if batch.apart is None:
            return batch.ratio
        pulled = batch.apart & (batch.advantages != 0)
        pull = self.cov_coef * batch.log_ratio.sign() / torch.where(pulled, batch.advantages, 1.0)
        return torch.where(pulled, batch.ratio - pull, batch.ratio)

    def surrogate(self, batch: TokenBatch, weight: Tensor) -> Tensor:
        """``d * A``, less the pull's value."""
        value = batch.ratio * batch.advantages
        if batch.apart is None:
            return value
        return torch.where(batch.apart, value - self.cov_coef * batch.log_ratio.abs(), value)
