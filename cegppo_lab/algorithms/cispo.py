"""CISPO: a clipped importance weight on every token."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import field_validator, model_validator
from torch import Tensor

from cegppo_lab.algorithms.base import Algorithm
from cegppo_lab.algorithms.batch import TokenBatch
from cegppo_lab.algorithms.registry import register
from cegppo_lab.schedule import Schedule, parse


@register
class CISPO(Algorithm):
    """CISPO: F = sg(clip(ratio, 1 - clip_low, 1 + clip_high)), whatever the advantage's sign.

    ``clamp`` chooses among the readings in use: ``two-sided`` is CE-GPPO's appendix A.1 and verl's;
    ``upper`` clamps at 1 + clip_high only; ``cap`` clamps at the number ``cap`` only, which has no
    default. The clip fractions count tokens outside the clip interval in all three.
    Assumption: no token should be without gradient, and none far from on-policy weight.
    Degenerate case: clip_low = clip_high = 0 is the plain policy gradient at any ratio.
    """

    name: ClassVar[str] = "cispo"
    title: ClassVar[str] = "CISPO"
    equation: ClassVar[str] = "sg(clip(d, 1-eps_l, 1+eps_h)) A log pi"
    source: ClassVar[str] = "CE-GPPO appendix A.1; arXiv 2506.13585"
    neutral: ClassVar[frozenset[str]] = frozenset({"clamp", "cap"})

    clamp: Literal["two-sided", "upper", "cap"] = "two-sided"
    cap: Schedule | None = None

    @field_validator("cap", mode="before")
    @classmethod
    def _positive(cls, value: Any) -> Schedule | None:
        if value is None:
            return None
        schedule = parse(value)
        lowest = min(schedule.values()) if isinstance(schedule, dict) else schedule
        if lowest <= 0:
            raise ValueError(f"must be > 0, or null for another clamp, not {lowest:g}")
        return schedule

    @model_validator(mode="after")
    def _cap_with_its_clamp(self) -> Self:
        if (self.clamp == "cap") != (self.cap is not None):
            raise ValueError(
                f"clamp={self.clamp} with cap={'null' if self.cap is None else self.cap}: "
                "a number needs clamp=cap, and clamp=cap needs a number, e.g. cap=5"
            )
        return self

    def weight(self, batch: TokenBatch) -> Tensor:
        """The ratio, clamped as ``clamp`` says."""
        edge = 1 + self.clip_high
        bounds = {
            "two-sided": (1 - self.clip_low, edge),
            "upper": (None, edge),
            "cap": (None, self.cap),
        }
        return batch.ratio.clamp(*bounds[self.clamp])

    def surrogate(self, batch: TokenBatch, weight: Tensor) -> Tensor:
        """F * A * log pi: the objective that CISPO writes."""
        return weight * batch.advantages * batch.log_prob.detach()
