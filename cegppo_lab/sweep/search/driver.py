"""The loop of a search: suggest points, run their trials, tell what they measured, again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cegppo_lab.errors import LabError
from cegppo_lab.store import RUNNING
from cegppo_lab.sweep.plan import Plan, state_of
from cegppo_lab.sweep.search.definition import Search
from cegppo_lab.sweep.search.objectives import UnmeasuredError, point_values
from cegppo_lab.sweep.search.rungs import prune, until
from cegppo_lab.sweep.search.study import RepeatedError, Study
from cegppo_lab.sweep.search.summary import summarize
from cegppo_lab.trial import Trial

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

Run = Callable[[Plan, list[Trial]], bool]
"""Trains those of the trials that are not finished; False when stopped before their end."""
Say = Callable[[str], None]


def run_search(search: Search, study: Study, run: Run, say: Say, limit: int | None = None) -> bool:
    """Try the points that are missing, a batch at a time; False when stopped before the end.

    A point that was suggested and has no result, because the search was killed, comes first. A
    point whose run fails is told to Optuna as failed, and the search goes on. ``limit``: points
    that are tried in this call at most.

    Raises ``LabError`` when another process trains a point's run.
    """
    fixed, tried = search.fixed.trials, 0
    while limit is None or tried < limit:
        _suggest(search, study, say)
        batch = study.open()[: None if limit is None else limit - tried]
        tried += len(batch)
        if (batch or fixed) and not _try(search, study, run, say, fixed, batch):
            return False
        if not batch:
            break
        fixed = []
    _publish(search, study)
    return True


def _publish(search: Search, study: Study) -> Plan:
    """The plan of the points so far, once the store has it and what they measured."""
    plan = search.plan(study.run_points())
    plan.store().write_manifest({**plan.manifest(), "search": summarize(search, study.points())})
    return plan


def _try(
    search: Search,
    study: Study,
    run: Run,
    say: Say,
    fixed: list[Trial],
    batch: list[FrozenTrial],
) -> bool:
    """Bring ``batch`` from rung to rung, ``fixed`` to their end; False when stopped before."""
    plan, numbers = _publish(search, study), {point.number for point in batch}
    for rung in search.rungs():
        live = [point for point in study.open() if point.number in numbers]
        asked = [point for point in live if rung not in point.intermediate_values]
        trials = [trial for point in asked for trial in search.trials(point.params)]
        trials = trials if rung else [*fixed, *trials]
        trials = list({trial.trial_id: trial for trial in trials}.values())
        if trials and not run(until(plan, rung), trials):
            return False
        for point in asked:
            _tell(search, study, point, rung, say)
        if rung:
            prune(search, study, numbers, rung, say)
    return True


def _suggest(search: Search, study: Study, say: Say) -> None:
    """Fill the batch up to its size; nothing where it was whole before the search was killed."""
    settings = search.settings
    repeated = _repeated(search, study)
    while (count := len(study.points())) < settings.points:
        if study.open() and count % settings.parallel == 0:
            return
        if not study.ask(repeated):
            say(f"the space has no more points: {count} of {settings.points} tried")
            return
        point = study.points()[-1]
        say(f"point {point.number + 1} of {settings.points}: {search.arm(point.params)}")


def _repeated(search: Search, study: Study) -> Callable[[dict[str, Any]], str | None]:
    """Why a suggestion cannot be run, if so; ``RepeatedError`` where the search has its runs."""

    def refusal(params: dict[str, Any]) -> str | None:
        if any(point.params == params for point in study.points()):
            raise RepeatedError
        try:
            ids = {trial.trial_id for trial in search.trials(params)}
        except LabError as error:
            return str(error)
        for other in study.run_points():
            if ids == {trial.trial_id for trial in search.trials(other)}:
                raise RepeatedError
        return None

    return refusal


def _tell(search: Search, study: Study, point: FrozenTrial, rung: int | None, say: Say) -> None:
    """Store what a point measured at ``rung``, or at its end."""
    store, trials = search.fixed.store(), search.trials(point.params)
    if busy := [trial for trial in trials if state_of(store, trial) == RUNNING]:
        raise LabError(
            f"trial {busy[0].trial_id} is being trained by another process; when it is done, "
            "the same command goes on from here"
        )
    runs = [store.run(trial.trial_id) for trial in trials]
    try:
        values = point_values(search.settings.objectives, runs, rung)
    except UnmeasuredError as error:
        study.fail(point, str(error))
        say(f"point {point.number + 1} failed: {error}")
        return
    if rung is not None:
        study.report(point, rung, values[0])
        return
    study.tell(point, values)
    titles = [objective.title for objective in search.settings.objectives]
    told = ", ".join(f"{title} {v:.4g}" for title, v in zip(titles, values, strict=True))
    say(f"point {point.number + 1}: {told}")
