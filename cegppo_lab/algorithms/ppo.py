"""The token-ratio PPO family: F is the ratio inside the trust region, a constant at its edges."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import field_validator
from torch import Tensor

from cegppo_lab.algorithms.base import Algorithm
from cegppo_lab.algorithms.batch import TokenBatch
from cegppo_lab.schedule import Schedule, bounded, parse

Edge = float | Tensor


def without_apart(batch: TokenBatch, value: Tensor) -> Tensor:
    """``value``, (batch, tokens), and 0 at the tokens that are set apart."""
    return value if batch.apart is None else torch.where(batch.apart, 0.0, value)


class TokenRatioPPO(Algorithm):
    """F = ratio, except: :meth:`edges` where PPO clips, and 0 where the dual clip cuts.

    ``dual_clip`` (None: off) is dual-clip PPO's c (arXiv 1912.09729): where A < 0 and the ratio
    exceeds c, the loss is the constant -c * A. The released scripts set 10; Eq. 8 has none.
    ``entropy_top`` (None: off) is the share of a mini-batch's tokens, those of the rollout policy's
    highest entropy, that learn; F is 0 at the others (arXiv 2506.01939, :mod:`.high_entropy`).
    """

    neutral: ClassVar[frozenset[str]] = frozenset({"entropy_top"})

    dual_clip: Schedule | None = None
    entropy_top: bounded(gt=0, le=1) | None = None

    @field_validator("dual_clip", mode="before")
    @classmethod
    def _above_one(cls, value: Any) -> Schedule | None:
        if value is None:
            return None
        schedule = parse(value)
        lowest = min(schedule.values()) if isinstance(schedule, dict) else schedule
        if lowest <= 1:
            raise ValueError(f"must be > 1, or null for no dual clip, not {lowest:g}")
        return schedule

    def edges(self, batch: TokenBatch) -> tuple[Edge, Edge]:
        """F below the lower edge (A < 0) and above the upper (A > 0); PPO's gradient has none.

        Each a number, or a tensor (batch, tokens).
        """
        return 0.0, 0.0

    def weight(self, batch: TokenBatch) -> Tensor:
        """F of Eq. 10 with the family's edges."""
        low, high = self.outside(batch)
        at_low, at_high = self.edges(batch)
        weight = torch.where(low, at_low, torch.where(high, at_high, batch.ratio))
        return without_apart(batch, torch.where(self.dual_clipped(batch), 0.0, weight))

    def surrogate(self, batch: TokenBatch, weight: Tensor) -> Tensor:
        """``F * A``, and ``c * A`` where the dual clip cuts."""
        value = weight * batch.advantages
        if self.dual_clip is not None:
            edge = self.dual_clip * batch.advantages
            value = torch.where(self.dual_clipped(batch), edge, value)
        return without_apart(batch, value)

    @property
    def needs(self) -> frozenset[str]:
        """The rollout policy's entropy, with ``entropy_top``."""
        return frozenset() if self.entropy_top is None else frozenset({"old_entropy"})

    def set_apart(self, batch: TokenBatch) -> Tensor | None:
        """The tokens outside the ``entropy_top`` share of highest entropy; ties at its end stay."""
        if self.entropy_top is None:
            return None
        entropy = batch.require("old_entropy", "entropy_top")
        found = entropy[batch.mask]
        kept = min(max(round(self.entropy_top * len(found)), 1), len(found))
        return batch.mask & (entropy < found.topk(kept).values.amin()) if kept else batch.mask

    def dual_clipped(self, batch: TokenBatch) -> Tensor:
        """Bool mask of the tokens with A < 0 and a ratio above ``dual_clip``."""
        if self.dual_clip is None:
            return super().dual_clipped(batch)
        return batch.mask & (batch.advantages < 0) & (batch.ratio > self.dual_clip)
