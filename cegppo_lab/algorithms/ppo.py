"""The token-ratio PPO family: F is the ratio inside the trust region, a constant at its edges."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import field_validator
from torch import Tensor

from cegppo_lab.algorithms.base import Algorithm
from cegppo_lab.algorithms.batch import TokenBatch
from cegppo_lab.schedule import Schedule, parse


class TokenRatioPPO(Algorithm):
    """F = ratio, except: :meth:`edges` where PPO clips, and 0 where the dual clip cuts.

    ``dual_clip`` (None: off) is dual-clip PPO's c (arXiv 1912.09729): where A < 0 and the ratio
    exceeds c, the loss is the constant -c * A. The released scripts set 10; Eq. 8 has none.
    """

    dual_clip: Schedule | None = None

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

    def edges(self) -> tuple[float, float]:
        """F below the lower edge (A < 0) and above the upper (A > 0); PPO's gradient has none."""
        return 0.0, 0.0

    def weight(self, batch: TokenBatch) -> Tensor:
        """F of Eq. 10 with the family's edges."""
        low, high = self.outside(batch)
        at_low, at_high = self.edges()
        weight = torch.where(low, at_low, torch.where(high, at_high, batch.ratio))
        return torch.where(self.dual_clipped(batch), 0.0, weight)

    def surrogate(self, batch: TokenBatch, weight: Tensor) -> Tensor:
        """``F * A``, and ``c * A`` where the dual clip cuts."""
        value = weight * batch.advantages
        if self.dual_clip is None:
            return value
        return torch.where(self.dual_clipped(batch), self.dual_clip * batch.advantages, value)

    def dual_clipped(self, batch: TokenBatch) -> Tensor:
        """Bool mask of the tokens with A < 0 and a ratio above ``dual_clip``."""
        if self.dual_clip is None:
            return super().dual_clipped(batch)
        return batch.mask & (batch.advantages < 0) & (batch.ratio > self.dual_clip)
