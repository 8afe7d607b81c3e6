"""What a search tried, as plain data in the sweep's manifest: all that its report is drawn from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from cegppo_lab.sweep.search.objectives import UnmeasuredError, point_values
from cegppo_lab.sweep.search.study import REASON, REFUSED
from cegppo_lab.trial import Trial

if TYPE_CHECKING:
    from cegppo_lab.sweep.search.definition import Search

_STATES = {TrialState.RUNNING: "open", TrialState.FAIL: "failed"}


def summarize(search: Search, points: Sequence[FrozenTrial]) -> dict[str, Any]:
    """The manifest's section ``search`` with these points, JSON values.

    ``objectives``: title and goal. ``parameters``: name -> Optuna's distribution as JSON values.
    ``tried``: every point in the order of suggestion, with ``values`` (a mean over seeds per
    objective; null: none) and ``by_seed`` (seed -> the run's values). ``fixed``: the arms that were
    run for comparison, alike.
    """
    settings, spec = search.settings, search.fixed.spec
    known = _known(search)
    fixed: dict[str, list[Trial]] = {}
    for trial in search.fixed.trials:
        fixed.setdefault(trial.arm, []).append(trial)
    distributions = {k: d for point in points for k, d in point.distributions.items()}
    return {
        "sampler": settings.sampler,
        "points": settings.points,
        "seeds": list(spec.seeds),
        "objectives": [{"title": o.title, "goal": o.goal} for o in settings.objectives],
        "parameters": {name: _plain(limits) for name, limits in sorted(distributions.items())},
        "tried": [_tried(search, point, known) for point in points],
        "fixed": [
            {"arm": arm, "trials": _ids(trials), "by_seed": _by_seed(search, trials)}
            for arm, trials in fixed.items()
        ],
    }


def _known(search: Search) -> dict[int, dict[str, Any]]:
    """The points of the manifest that is there, by number: what was told does not change."""
    store, name = search.fixed.store(), search.fixed.spec.name
    manifest = store.manifest(name) if name in store.manifests() else {}
    return {point["number"]: point for point in manifest.get("search", {}).get("tried", [])}


def _tried(search: Search, point: FrozenTrial, known: dict[int, dict[str, Any]]) -> dict[str, Any]:
    told = {
        "number": point.number + 1,
        "state": _STATES.get(point.state, point.state.name.lower()),
        "arm": search.arm(point.params),
        "reason": point.user_attrs.get(REASON, ""),
        "parameters": point.params,
        "values": None if point.state is TrialState.FAIL else point.values,
    }
    before = known.get(point.number + 1, {})
    if point.state.is_finished() and told == {key: before.get(key) for key in told}:
        return before
    trials = [] if REFUSED in point.user_attrs else search.trials(point.params)
    return {**told, "trials": _ids(trials), "by_seed": _by_seed(search, trials)}


def _by_seed(search: Search, trials: Iterable[Trial]) -> dict[str, list[float]]:
    """What each seed's run measured; a run without an objective is left out."""
    store, found = search.fixed.store(), {}
    for trial in trials:
        try:
            values = point_values(search.settings.objectives, [store.run(trial.trial_id)])
        except UnmeasuredError:
            continue
        found[str(trial.seed)] = values
    return found


def _ids(trials: Iterable[Trial]) -> list[str]:
    return [trial.trial_id for trial in trials]


def _plain(limits: optuna.distributions.BaseDistribution) -> dict[str, Any]:
    return json.loads(optuna.distributions.distribution_to_json(limits))
