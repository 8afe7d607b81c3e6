"""Sweeps in memory whose numbers are as a test wants them, for the claims ledger."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from analysis.load import SweepData
from analysis.load.assemble import RunView, assemble
from cegppo_lab.errors import LabError
from cegppo_lab.metrics import ENTROPY
from cegppo_lab.store import DONE, STOPPED, EvalRecord, Status, StepRecord

STEPS = 20  # the end window is steps 19 and 20, the middle one 10 and 11
SEEDS = (1, 2, 3, 4, 5)
PROBLEMS = ("p0", "p1", "p2", "p3")
BENCHMARK = "table_walk"


@dataclass(frozen=True)
class ArmRuns:
    """One arm. ``curves``: values at equally spaced points from the first to the last step.

    A seed's curve is the arm's times 1 + ``spread`` x its deviation x progress; the deviations of a
    metric sum to 0 over the seeds, so that its mean at any step is the curve's.
    """

    algorithm: str
    settings: dict[str, Any] = field(default_factory=dict)
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)
    accuracy: float | None = None
    """Correctness at the last step, mean over seeds and problems."""
    model: str = "tiny"
    stopped: Mapping[int, int] = field(default_factory=dict)
    """Seeds that a rule stopped, and at which step."""
    state: str = STOPPED
    """What became of these instead."""
    steps: int = STEPS
    benchmarks: Sequence[str] = (BENCHMARK,)
    problems: Sequence[str] = PROBLEMS
    evaluated: int | None = None
    """The step of the last evaluation, by default the last step."""

    @property
    def name(self) -> str:
        """Algorithm, settings and model."""
        return " ".join([self.algorithm, *map(str, self.settings.values()), self.model])


def arm(algorithm: str, entropy: Sequence[float] = (), **others: Any) -> ArmRuns:
    """An arm with an entropy curve; ``others`` are fields of ``ArmRuns``, or coefficients."""
    fields = {key: others.pop(key) for key in list(others) if key in ArmRuns.__dataclass_fields__}
    curves = {**({ENTROPY: entropy} if entropy else {}), **fields.pop("curves", {})}
    return ArmRuns(algorithm, others, curves, **fields)


def sweep(
    name: str,
    arms: Sequence[ArmRuns],
    *,
    spread: float = 0.02,
    seeds: Sequence[int] = SEEDS,
    scale: str | None = None,
) -> SweepData:
    """The frames of a sweep with these arms, every seed run."""
    manifest = {
        "name": name,
        "plan_id": "p",
        "arms": [
            {
                "name": each.name,
                "algorithm": each.algorithm,
                "differs": {f"algorithm.{key}": value for key, value in each.settings.items()},
            }
            for each in arms
        ],
        "trials": [
            {"trial_id": f"{name}/{each.name}/{seed}", "arm": each.name, "seed": seed}
            for each in arms
            for seed in seeds
        ],
    }
    runs = [_run(name, each, seed, seeds, spread) for each in arms for seed in seeds]
    return assemble(manifest, runs, "memory", scale=scale)


@dataclass
class Memory:
    """A source of sweeps; counts how often each is read."""

    sweeps: dict[str, SweepData]
    where: str = "memory"
    read: list[str] = field(default_factory=list)

    def names(self) -> list[str]:
        """The sweeps' names."""
        return sorted(self.sweeps)

    def sweep(self, name: str) -> SweepData:
        """A sweep; one that is None has no step yet."""
        self.read.append(name)
        if self.sweeps[name] is None:
            raise LabError(f"no trial of sweep {name!r} has a step in memory yet")
        return self.sweeps[name]


def source(*sweeps: SweepData) -> Memory:
    """A source that has these sweeps."""
    return Memory({data.name: data for data in sweeps})


def without(arms: Sequence[ArmRuns], metric: str) -> list[ArmRuns]:
    """The arms with a metric renamed, as if nobody had logged it."""
    return [
        replace(each, curves={k if k != metric else "other": v for k, v in each.curves.items()})
        for each in arms
    ]


def deviations(key: str, seeds: Sequence[int]) -> dict[int, float]:
    """A number a seed, of size 1, that sum to 0; others for another key."""
    draws = np.random.default_rng(zlib.crc32(key.encode())).normal(size=len(seeds))
    return dict(zip(seeds, draws - draws.mean(), strict=True))


def _run(name: str, each: ArmRuns, seed: int, seeds: Sequence[int], spread: float) -> RunView:
    last = each.stopped.get(seed, each.steps)
    logged: list[dict[str, float]] = [{} for _ in range(last)]
    for metric, points in each.curves.items():
        deviation = spread * deviations(f"{each.name} {metric}", seeds)[seed]
        progress = np.linspace(0, 1, each.steps)
        curve = np.interp(progress, np.linspace(0, 1, len(points)), points)
        for step, value in enumerate((curve * (1 + deviation * progress))[:last]):
            logged[step][metric] = float(value)
    return RunView(
        trial_id=f"{name}/{each.name}/{seed}",
        arm=each.name,
        seed=seed,
        config={
            "algorithm": {"name": each.algorithm, **each.settings},
            "model": {"name": each.model},
            "task": {"name": BENCHMARK},
            "trainer": {"name": "embedded", "steps": each.steps},
        },
        provenance=[],
        status=Status(DONE if last == each.steps else each.state, "", last, each.steps),
        steps=[StepRecord(step, metrics) for step, metrics in enumerate(logged, 1)],
        evals=_evals(each, seed, seeds, spread) if last == each.steps else [],
    )


def _evals(each: ArmRuns, seed: int, seeds: Sequence[int], spread: float) -> list[EvalRecord]:
    if each.accuracy is None:
        return []
    deviation = spread * deviations(each.name, seeds)[seed]
    hardness = np.linspace(-0.1, 0.1, len(each.problems)) if len(each.problems) > 1 else np.zeros(1)
    samples = [0] * len(each.problems)
    return [
        EvalRecord(step, benchmark, list(each.problems), samples, (value + hardness).tolist())
        for benchmark in each.benchmarks
        for step, value in ((0, 0.3), (each.evaluated or each.steps, each.accuracy + deviation))
    ]
