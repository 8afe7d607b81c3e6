"""GRPO with Skywork-OR1's adaptive entropy bonus."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

from pydantic import model_validator

from cegppo_lab.algorithms.grpo import GRPO
from cegppo_lab.algorithms.registry import register
from cegppo_lab.schedule import bounded

COEFFICIENT, APPLIES = "entropy_coef", "applies"


@register
class AdaptiveEntropy(GRPO):
    """GRPO with an entropy bonus whose coefficient holds entropy above a target.

    After each step the coefficient grows by ``entropy_coef_step`` where the entropy was below
    ``entropy_target`` and falls by it elsewhere, within 0 and ``entropy_coef_max``; in the next
    step the bonus applies only where the entropy was below the target. This is ``EntController``
    of the authors' code, in its order (a step acts on the entropy of the step before), and the
    defaults are those of its 7B script. The entropy there is the mean over the updates of a step,
    here that of its rollouts. ``entropy_coef`` is the coefficient at the start. The other
    parts of Skywork-OR1 (stages, temperature, rejection sampling) are not part of this class.
    Assumption: a bonus on the entropy of all tokens restores exploration.
    Degenerate case: entropy above the target from the start is GRPO.
    Without a run (explain, its preview too) the bonus is the starting one.
    """

    name: ClassVar[str] = "adaptive_entropy"
    title: ClassVar[str] = "GRPO, adaptive entropy bonus"
    equation: ClassVar[str] = "min(d A, clip(d, 1-eps_l, 1+eps_h) A) + alpha H, alpha +- step"
    source: ClassVar[str] = "arXiv 2505.22312; its code, EntController"
    steered: ClassVar[tuple[str, ...]] = ("entropy_coef", "entropy_target")

    entropy_target: bounded(gt=0) = 0.2
    entropy_coef_step: bounded(gt=0) = 0.0001
    entropy_coef_max: bounded(gt=0) = 0.005

    @model_validator(mode="after")
    def _starts_from_a_number(self) -> Self:
        if isinstance(self.entropy_coef, dict):
            raise ValueError(
                f"entropy_coef={self.entropy_coef} is a schedule, but {self.name} moves it; "
                "give its value at the start"
            )
        return self

    def initial_state(self) -> dict[str, float]:
        """The coefficient at the start, which applies in the first step."""
        return {COEFFICIENT: float(self.entropy_coef), APPLIES: 1.0}

    def controlled(self, state: Mapping[str, float], step: int) -> Self:
        """With the coefficient of ``state``, or 0 where it does not apply."""
        coefficient = state[COEFFICIENT] * state[APPLIES]
        return self.at(step).model_copy(update={"entropy_coef": coefficient})

    def observe(self, state: Mapping[str, float], entropy: float, step: int) -> dict[str, float]:
        """One step up or down, and whether the bonus applies."""
        now = self.at(step)
        below = entropy < now.entropy_target
        moved = state[COEFFICIENT] + (1 if below else -1) * now.entropy_coef_step
        return {
            COEFFICIENT: min(max(moved, 0.0), now.entropy_coef_max),
            APPLIES: float(below),
        }
