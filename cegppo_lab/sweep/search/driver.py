"""The loop of a search: suggest points, run their trials, tell what they measured, again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from cegppo_lab.errors import LabError
from cegppo_lab.store import RUNNING
from cegppo_lab.sweep.plan import Plan, arm_trials, state_of
from cegppo_lab.sweep.search import space
from cegppo_lab.sweep.search.objectives import UnmeasuredError, check_objectives, point_values
from cegppo_lab.sweep.search.settings import SearchSpec
from cegppo_lab.sweep.search.study import REFUSED, RepeatedError, Study
from cegppo_lab.trial import Trial, content_id, hashed_content

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

Run = Callable[[Plan, list[Trial]], bool]
"""Trains those of the trials that are not finished; False when stopped before their end."""
Say = Callable[[str], None]
_CORNERS = 64
"""Corners of the space that are checked before the launch."""


@dataclass(frozen=True)
class Search:
    """A sweep with a search: ``fixed`` is the plan of the arms that the file lists beside it."""

    fixed: Plan
    settings: SearchSpec
    _known: dict[str, list[Trial]] = field(default_factory=dict, compare=False)

    def trials(self, point: space.Point) -> list[Trial]:
        """The runs of a point, one a seed; ``LabError`` for values that a run refuses."""
        name = self.arm(point)
        if name not in self._known:
            values = space.overrides(self.settings.space, point)
            self._known[name] = arm_trials(self.fixed.spec, self.fixed.shared, name, values)
        return self._known[name]

    def arm(self, point: space.Point) -> str:
        """The name of the point's arm."""
        return space.arm_name(self.settings.space, point)

    def plan(self, points: list[space.Point]) -> Plan:
        """An ordinary plan: the fixed arms and an arm for each point, its values declared.

        A point whose runs are those of an arm before it has no arm of its own.
        """
        arms = dict(self.fixed.spec.points())
        trials, seen = list(self.fixed.trials), {trial.trial_id for trial in self.fixed.trials}
        for point in points:
            new = self.trials(point)
            if seen.isdisjoint(trial.trial_id for trial in new):
                trials += new
                seen |= {trial.trial_id for trial in new}
                arms[new[0].arm] = space.overrides(self.settings.space, point)
        spec = self.fixed.spec.model_copy(update={"arms": arms, "grid": {}, "zip": {}})
        return Plan(spec, trials, self.fixed.runtime, self.fixed.overrides, self.fixed.shared)

    def checked(self) -> Plan:
        """The plan of points at the ends of the space, for checks before anything starts.

        Raises ``LabError`` for keys, values and metrics that the runs do not have.
        """
        plan = self.plan(list(islice(space.corners(self.settings.space), _CORNERS)))
        check_objectives(self.settings.objectives, plan.trials[-1].config)
        return plan

    def identity(self) -> dict[str, Any]:
        """All that suggestions and their values depend on, as plain JSON values by name."""
        first = self.trials(next(space.corners(self.settings.space)))[0].config
        content = self.settings.model_dump(
            mode="json", include={"sampler", "seed", "objectives"}
        ) | {
            "space": {k: e.model_dump(mode="json") for k, e in self.settings.space.items()},
            "seeds": self.fixed.spec.seeds,
            "settings of every trial": content_id(hashed_content(first)),
        }
        return json.loads(json.dumps(content))

    @contextmanager
    def study(self) -> Iterator[Study]:
        """The search's study, for this process alone; ``LabError`` when another one has it."""
        name = self.fixed.spec.name
        path = self.fixed.store().root.resolve() / "_searches" / f"{name}.db"
        path.parent.mkdir(parents=True, exist_ok=True)
        url = self.settings.storage or f"sqlite:///{path}"
        try:
            with FileLock(path.with_suffix(".lock"), timeout=0):
                yield Study(self.settings, name, url, self.identity())
        except Timeout:
            raise LabError(
                f"search {name!r} is being run by another process; wait for it or stop it"
            ) from None


def run_search(search: Search, study: Study, run: Run, say: Say) -> bool:
    """Try the points that are missing, a batch at a time; False when stopped before the end.

    A point that was suggested and has no result, because the search was killed, comes first. A
    point whose run fails is told to Optuna as failed, and the search goes on.

    Raises ``LabError`` when another process trains a point's run.
    """
    fixed = search.fixed.trials
    while True:
        _suggest(search, study, say)
        batch = study.open()
        known = [point.params for point in study.points() if REFUSED not in point.user_attrs]
        plan = search.plan(known)
        plan.store().write_manifest(plan.manifest())
        asked = [trial for point in batch for trial in search.trials(point.params)]
        trials = list({trial.trial_id: trial for trial in [*fixed, *asked]}.values())
        if trials and not run(plan, trials):
            return False
        if not batch:
            return True
        fixed = []
        for point in batch:
            _tell(search, study, point, say)


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
        known = study.points()
        if any(point.params == params for point in known):
            raise RepeatedError
        try:
            ids = {trial.trial_id for trial in search.trials(params)}
        except LabError as error:
            return str(error)
        for point in known:
            if REFUSED not in point.user_attrs and ids == _ids(search, point):
                raise RepeatedError
        return None

    return refusal


def _ids(search: Search, point: FrozenTrial) -> set[str]:
    return {trial.trial_id for trial in search.trials(point.params)}


def _tell(search: Search, study: Study, point: FrozenTrial, say: Say) -> None:
    store, trials = search.fixed.store(), search.trials(point.params)
    if busy := [trial for trial in trials if state_of(store, trial) == RUNNING]:
        raise LabError(
            f"trial {busy[0].trial_id} is being trained by another process; when it is done, "
            "the same command goes on from here"
        )
    runs = [store.run(trial.trial_id) for trial in trials]
    try:
        values = point_values(search.settings.objectives, runs)
    except UnmeasuredError as error:
        study.fail(point, str(error))
        say(f"point {point.number + 1} failed: {error}")
        return
    study.tell(point, values)
    titles = [objective.title for objective in search.settings.objectives]
    told = ", ".join(f"{title} {v:.4g}" for title, v in zip(titles, values, strict=True))
    say(f"point {point.number + 1}: {told}")
