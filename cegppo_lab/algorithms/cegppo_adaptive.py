"""CE-GPPO whose betas a controller moves to hold an entropy: this suite's, not the paper's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

from pydantic import model_validator

from cegppo_lab.algorithms.cegppo import CEGPPO
from cegppo_lab.algorithms.controller import PI, between
from cegppo_lab.algorithms.registry import register
from cegppo_lab.schedule import Coefficient, bounded, changes, value_at


@register
class CEGPPOAdaptive(CEGPPO):
    """CE-GPPO, adaptive: beta1 and beta2 move between bounds so that entropy meets a target.

    Ours, not the CE-GPPO paper's. F is CE-GPPO's with the betas in force. After each step the error
    (target - H) / target, H being the entropy of the step's rollouts, goes to a
    proportional-integral controller; its effort u in [-1, 1] sets the next step's betas: at 0 beta1
    and beta2, at 1 beta1_min and beta2_max (entropy rises), at -1 beta1_max and beta2_min (it
    falls), linear between. A beta with equal bounds stays where it is.
    ``entropy_target``, in nats per token, may be a schedule, and so may the betas and their bounds.
    Its default of 0.2 is Skywork-OR1's; the bounds span the betas of the paper.
    Assumption: the betas reach far enough; where no value of them holds the target, they stay at
    their bounds. Degenerate cases: bounds that equal the betas are CE-GPPO; integral_gain = 0 is a
    proportional controller, which stops short of the target.
    Without a run (explain, its preview too) F is that of the starting betas.
    """

    name: ClassVar[str] = "cegppo_adaptive"
    title: ClassVar[str] = "CE-GPPO, adaptive"
    equation: ClassVar[str] = "CE-GPPO's, beta1 and beta2 moved by the error of H to its target"
    source: ClassVar[str] = "this suite, after CE-GPPO Eq. 8"
    steered: ClassVar[tuple[str, ...]] = ("beta1", "beta2", "entropy_target")

    entropy_target: bounded(gt=0) = 0.2
    beta1_min: Coefficient = 0.0
    beta1_max: Coefficient = 1.0
    beta2_min: Coefficient = 0.0
    beta2_max: Coefficient = 1.0
    gain: bounded(gt=0) = 10.0
    """Effort per relative error: with 10, an entropy 10 % off the target moves the betas fully."""
    integral_gain: Coefficient = 0.05
    """Effort per relative error and step."""

    @model_validator(mode="after")
    def _within_bounds(self) -> Self:
        for beta in ("beta1", "beta2"):
            keys = (f"{beta}_min", beta, f"{beta}_max")
            values = [getattr(self, key) for key in keys]
            for step in sorted({0, *(start for value in values for start in changes(value))}):
                now = [value_at(value, step) for value in values]
                if now != sorted(now):
                    told = ", ".join(f"{k}={v:g}" for k, v in zip(keys, now, strict=True))
                    raise ValueError(f"{told} at step {step}: must be in ascending order")
        return self

    def initial_state(self) -> dict[str, float]:
        """The controller's: no effort."""
        return PI.initial()

    def controlled(self, state: Mapping[str, float], step: int) -> Self:
        """With the betas that the controller's effort gives."""
        now = self.at(step)
        effort = now._controller().effort(state)
        beta1 = between(-effort, now.beta1_min, now.beta1, now.beta1_max)
        beta2 = between(effort, now.beta2_min, now.beta2, now.beta2_max)
        return now.model_copy(update={"beta1": beta1, "beta2": beta2})

    def observe(self, state: Mapping[str, float], entropy: float, step: int) -> dict[str, float]:
        """The controller's state after the relative error of ``entropy``."""
        now = self.at(step)
        error = (now.entropy_target - entropy) / now.entropy_target
        return now._controller().observe(state, error)

    def _controller(self) -> PI:
        return PI(self.gain, self.integral_gain)
