"""How much of an objective's variation over the space each parameter explains."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from analysis.search.study import Point, Searched

LEAST = 8
"""Complete points below which there are no importances."""
FEW = 10
"""Complete points a parameter below which importances say little."""
RESAMPLES, TREES = 40, 16
SHARE = 0.95


@dataclass(frozen=True)
class Importance:
    """Share of an objective's variance; ``low`` to ``high``: central ``SHARE`` of resamples."""

    objective: str
    parameter: str
    value: float
    low: float
    high: float


def importances(searched: Searched) -> list[Importance]:
    """Every objective and parameter, largest first; empty below ``LEAST`` complete points.

    Functional ANOVA over a random forest (Hutter, Hoos and Leyton-Brown 2014; Optuna's). The
    interval is over ``RESAMPLES`` draws of the points with replacement, each with a forest of its
    own. A conditional parameter is not in all points and is not rated.
    """
    points = searched.complete
    if len(points) < LEAST:
        return []
    rated = rated_parameters(searched)
    found: list[Importance] = []
    for place, objective in enumerate(searched.objectives):
        values = searched.values(points)[:, place]
        if not rated or np.ptp(values) == 0:
            continue
        whole = _shares(searched, points, place, seed=0)
        draws = [_resampled(searched, points, place, seed) for seed in range(1, RESAMPLES + 1)]
        edges = (1 - SHARE) / 2, (1 + SHARE) / 2
        own = [
            Importance(
                objective.title, name, whole[name],
                *(float(q) for q in np.quantile([draw[name] for draw in draws], edges)),
            )
            for name in rated
        ]  # fmt: skip
        found += sorted(own, key=lambda one: -one.value)
    return found


def rated_parameters(searched: Searched) -> list[str]:
    """The parameters that every complete point has."""
    count = Counter(name for point in searched.complete for name in point.parameters)
    return [name for name in searched.limits if count[name] == len(searched.complete) > 0]


def _resampled(searched: Searched, points: list[Point], place: int, seed: int) -> dict[str, float]:
    drawn = np.random.default_rng(seed).integers(len(points), size=len(points))
    return _shares(searched, [points[i] for i in drawn], place, seed)


def _shares(searched: Searched, points: list[Point], place: int, seed: int) -> dict[str, float]:
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    rated = rated_parameters(searched)
    if len({point.values[place] for point in points}) == 1:
        return dict.fromkeys(rated, 1 / len(rated))  # a draw of one value has nothing to explain
    evaluator = FanovaImportanceEvaluator(n_trees=TREES, seed=seed)
    study = searched.optuna(points, place)
    return {
        name: float(share)
        for name, share in get_param_importances(study, evaluator=evaluator, params=rated).items()
    }
