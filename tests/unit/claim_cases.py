"""For every claim: numbers that make it hold, that refute each of its parts, that leave it open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from analysis.load import SweepData
from cegppo_lab.metrics import CLIPFRAC, CLIPFRAC_IMPROBABLE, GRAD_NORM, PPO_KL, TIME_UPDATE
from tests.unit.claim_runs import SEEDS, STEPS, ArmRuns, arm, sweep

MEMORY = "actor/perf/max_memory_allocated_gb"
WIDE = 0.3
"""A spread over seeds that leaves everything near a threshold undecided."""


def ours(*entropy: float, beta1: float = 0.75, **others: Any) -> ArmRuns:
    """CE-GPPO(beta1, 1)."""
    return arm("cegppo", entropy, beta1=beta1, beta2=1.0, **others)


def bonus(alpha: float, end: float) -> ArmRuns:
    """GRPO with an entropy bonus."""
    return arm("grpo", (1, end), entropy_coef=alpha)


def clipped(algorithm: str, share: float, **settings: float) -> ArmRuns:
    """An arm of whose clipped tokens that share is improbable."""
    curves = {CLIPFRAC: [0.01], CLIPFRAC_IMPROBABLE: [0.01 * share]}
    return arm(algorithm, curves=curves, **settings)


def spiky(level: float, height: float) -> list[float]:
    """A curve of ``STEPS`` points that is flat but for the last."""
    return [level] * (STEPS - 1) + [level * height]


def grid(axis: str, other: str, levels: list[float], ends: list[float]) -> list[ArmRuns]:
    """CE-GPPO with one beta varied and the other 1."""
    pairs = zip(levels, ends, strict=True)
    return [arm("cegppo", (1, end), **{axis: level, other: 1.0}) for level, end in pairs]


def c3(ce: float = 0.95, grpo: float = 0.3, dapo: float = 1.6) -> list[ArmRuns]:
    return [arm("grpo", (1, grpo)), arm("dapo", (1, dapo)), ours(1, ce)]


def c6(ce: float = 0.8, dapo: float = 0.7, grpo: float = 0.6) -> list[ArmRuns]:
    arms = [arm("grpo", (1, 1), accuracy=grpo), arm("dapo", (1, 1), accuracy=dapo)]
    return [*arms, ours(1, 1, accuracy=ce)]


def c7(kl: float = 1, norm: float = 1, kl_peak: float = 2, norm_peak: float = 2) -> list[ArmRuns]:
    own = {PPO_KL: spiky(kl, kl_peak), GRAD_NORM: spiky(norm, norm_peak)}
    reference = {PPO_KL: spiky(1, kl_peak), GRAD_NORM: spiky(1, norm_peak)}
    return [arm("grpo", curves=reference), ours(curves=own)]


def c10(mid: float = 0.8, end: float = 0.2, ce: float = 0.9) -> list[ArmRuns]:
    return [arm("cispo", (1, mid, end)), ours(1, ce, beta1=0.5)]


def c11(share: float = 0.15, ce: float = 0.8, gspo: float = 0.6) -> list[ArmRuns]:
    other = arm("gspo", curves={CLIPFRAC: [share]}, accuracy=gspo)
    return [other, ours(1, 1, beta1=0.5, accuracy=ce)]


def c12(entropy: float = 0.4, accuracy: float = 0.8) -> list[ArmRuns]:
    switched = ours(1, entropy, beta1={0: 0.0, 12: 0.5}, accuracy=accuracy)
    return [ours(1, 1, beta1=0.0, accuracy=0.7), switched]


def c13(time: float = 1, memory: float = 1) -> list[ArmRuns]:
    reference = arm("grpo", curves={TIME_UPDATE: [3.0], MEMORY: [40.0]})
    return [reference, ours(curves={TIME_UPDATE: [3.0 * time], MEMORY: [40.0 * memory]})]


@dataclass(frozen=True)
class Case:
    """``build(**numbers)`` makes a claim's arms; without numbers the claim holds.

    ``refuting``: numbers that refute each of its parts in turn. ``open``: numbers that, with a wide
    spread, decide nothing.
    """

    sweep: str
    build: Callable[..., list[ArmRuns]]
    refuting: list[dict[str, Any]]
    open: dict[str, Any]

    def data(self, *, seeds: Any = SEEDS, scale: str | None = None, **numbers: Any) -> SweepData:
        """The frames of the sweep with these numbers."""
        return sweep(self.sweep, self.build(**numbers), seeds=seeds, scale=scale)

    def undecided(self) -> SweepData:
        """The frames of the sweep that leaves the claim open."""
        return sweep(self.sweep, self.build(**self.open), spread=WIDE)


FIVE, THREE = [0, 0.25, 0.5, 0.75, 1], [0.5, 0.75, 1]
CASES = {
    "C1": Case(
        "algorithms",
        lambda end=0.2, steps=STEPS: [arm("grpo", (1, end), steps=steps)],
        [{"end": 0.9}],
        {"end": 0.5},
    ),
    "C2": Case(
        "algorithms",
        lambda mid=1.4, end=1.6: [arm("dapo", (1, mid, end))],
        [{"mid": 0.8}, {"end": 0.8}],
        {"mid": 1.2, "end": 1.0},
    ),
    "C3": Case("algorithms", c3, [{"ce": 0.6}, {"grpo": 1.1}, {"dapo": 0.7}], {"ce": 0.75}),
    "C4": Case(
        "beta_grid",
        lambda ends=(1.1, 0.9, 0.7, 0.5, 0.3): grid("beta1", "beta2", FIVE, ends),
        [{"ends": (0.3, 0.5, 0.7, 0.9, 1.1)}, {"ends": (1.1, 0.9, 0.4, 0.7, 0.3)}],
        {"ends": (0.7,) * 5},
    ),
    "C5": Case(
        "beta_grid",
        lambda ends=(0.3, 0.5, 0.7): grid("beta2", "beta1", THREE, ends),
        [{"ends": (0.7, 0.5, 0.3)}, {"ends": (0.3, 0.8, 0.6)}],
        {"ends": (0.5,) * 3},
    ),
    "C6": Case(
        "algorithms", c6, [{"dapo": 0.9}, {"grpo": 0.75}], {"ce": 0.7, "dapo": 0.7, "grpo": 0.7}
    ),
    "C7": Case(
        "algorithms",
        c7,
        [{"kl": 3}, {"kl": 0.3}, {"norm": 3}, {"norm": 0.3}, {"kl_peak": 20}, {"norm_peak": 8}],
        {"kl": 2},
    ),
    "C8": Case(
        "algorithms",
        lambda grpo=0.8, ce=0.8: [
            clipped("grpo", grpo),
            clipped("cegppo", ce, beta1=0.75, beta2=1.0),
        ],
        [{"grpo": 0.2}, {"ce": 0.2}],
        {"grpo": 0.5},
    ),
    "C9": Case(
        "entropy_mitigation",
        lambda small=0.2, large=2.0: [bonus(0.003, 1.0), bonus(0.01, large), bonus(0.001, small)],
        [{"small": 0.9}, {"large": 1.1}],
        {"small": 0.5},
    ),
    "C10": Case(
        "algorithms",
        c10,
        [{"mid": 0.3}, {"end": 0.7}, {"ce": 0.2}],
        {"end": 0.5},
    ),
    "C11": Case("algorithms", c11, [{"share": 0.02}, {"gspo": 0.9}], {"share": 0.1}),
    "C12": Case("beta_switch", c12, [{"entropy": 1.3}, {"accuracy": 0.6}], {"entropy": 1.0}),
    "C13": Case(
        "algorithms",
        c13,
        [{"time": 1.2}, {"time": 0.8}, {"memory": 1.2}, {"memory": 0.8}],
        {"time": 1.05},
    ),
}
