"""A search as its sweep's manifest tells it, and the best of its points."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from analysis.stats import Estimate, mean_estimate

if TYPE_CHECKING:
    import optuna

COMPLETE, PRUNED, FAILED, OPEN = "complete", "pruned", "failed", "open"


@dataclass(frozen=True)
class Objective:
    """What the search wants large or small."""

    title: str
    goal: str

    @property
    def larger(self) -> bool:
        """Whether a larger value is a better one."""
        return self.goal == "maximize"


@dataclass(frozen=True)
class Point:
    """A point, or an arm that was run for comparison (``number`` 0, no parameters).

    ``by_seed``: what each seed's run measured, one number per objective.
    """

    number: int
    state: str
    arm: str
    reason: str
    parameters: dict[str, Any]
    values: list[float] | None
    trials: list[str]
    by_seed: dict[str, list[float]]

    def estimate(self, objective: int) -> Estimate:
        """The mean over seeds of an objective; no interval from one seed."""
        return mean_estimate([values[objective] for values in self.by_seed.values()])


@dataclass(frozen=True)
class Searched:
    """All that a search tried. ``limits``: parameter -> Optuna's distribution as JSON values."""

    sampler: str
    planned: int
    seeds: list[int]
    objectives: list[Objective]
    limits: dict[str, dict[str, Any]]
    points: list[Point]
    fixed: list[Point]

    @property
    def complete(self) -> list[Point]:
        """The points that have all their values."""
        return [point for point in self.points if point.state == COMPLETE]

    def values(self, points: Sequence[Point]) -> NDArray[np.float64]:
        """(points, objectives)."""
        rows = [point.values for point in points]
        return np.array(rows, dtype=float).reshape(len(points), len(self.objectives))

    def numeric(self) -> list[str]:
        """The parameters that are numbers."""
        return [name for name, each in self.limits.items() if "low" in each["attributes"]]

    def labels(self) -> list[str]:
        """The parameters that are one of several labels."""
        return [name for name in self.limits if name not in self.numeric()]

    def best(self) -> list[Point]:
        """The best complete point, or the Pareto front of several objectives (Optuna's)."""
        study = self.optuna(self.complete)
        numbers = {trial.number for trial in study.best_trials} if self.complete else set()
        return [point for place, point in enumerate(self.complete) if place in numbers]

    def optuna(self, points: Sequence[Point], objective: int | None = None) -> optuna.Study:
        """``points`` as a study in memory, with all objectives or one of them alone."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        chosen = range(len(self.objectives)) if objective is None else [objective]
        study = optuna.create_study(directions=[self.objectives[i].goal for i in chosen])
        for point in points:
            limits = {
                name: optuna.distributions.json_to_distribution(json.dumps(self.limits[name]))
                for name in point.parameters
            }
            study.add_trial(
                optuna.trial.create_trial(
                    values=[point.values[i] for i in chosen],
                    params=point.parameters,
                    distributions=limits,
                )
            )
        return study


def read_search(manifest: Mapping[str, Any]) -> Searched | None:
    """The search of a sweep; None for a sweep without one."""
    told = manifest.get("search")
    if told is None:
        return None
    return Searched(
        sampler=told["sampler"],
        planned=told["points"],
        seeds=told["seeds"],
        objectives=[Objective(**each) for each in told["objectives"]],
        limits=told["parameters"],
        points=[Point(**each) for each in told["tried"]],
        fixed=[
            Point(number=0, state="", reason="", parameters={}, values=None, **each)
            for each in told["fixed"]
        ],
    )


def short(names: Sequence[str]) -> dict[str, str]:
    """Names of parameters without ``algorithm.``, where that leaves them different."""
    cut = {name: name.removeprefix("algorithm.") for name in names}
    return cut if len(set(cut.values())) == len(cut) else {name: name for name in names}
