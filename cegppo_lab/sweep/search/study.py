"""The history of a search in an Optuna storage, and the next point that follows from it.

A point is suggested in a copy of the study in memory and stored whole, in one transaction. The
sampler is made anew for it, from the search's seed and the point's number. So a suggestion follows
from the stored points alone: a search that was killed at any instant goes on as if it had not been.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial, TrialState

from cegppo_lab.errors import LabError
from cegppo_lab.streams import seed_of
from cegppo_lab.sweep.search.samplers import make_sampler
from cegppo_lab.sweep.search.settings import SearchSpec
from cegppo_lab.sweep.search.space import rounded, suggest

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

REASON, REFUSED = "reason", "refused"
"""Attributes of a failed point: why; and that it could not even be run."""
_IDENTITY = "cegppo_lab"
_TRIES = 32
"""Suggestions by the sampler, and then at random, before the space counts as exhausted."""


class Study:
    """The points of the search ``name`` so far; ``identity``: what they depend on, by name.

    Raises ``LabError`` when the storage cannot be opened, or holds a search of this name with
    another identity.
    """

    def __init__(
        self, settings: SearchSpec, name: str, url: str, identity: Mapping[str, Any]
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._settings = settings
        self._directions = [objective.goal for objective in settings.objectives]
        self._storage = _open(url)
        self.optuna = optuna.create_study(
            storage=self._storage,
            study_name=name,
            directions=self._directions,
            sampler=optuna.samplers.RandomSampler(0),  # never asked
            load_if_exists=True,
        )
        known = self.optuna.user_attrs.get(_IDENTITY)
        if known is None:
            self.optuna.set_user_attr(_IDENTITY, dict(identity))
        elif known != identity:
            keys = sorted(k for k in {*known, *identity} if known.get(k) != identity.get(k))
            raise LabError(
                f"search {name!r} was started with other {', '.join(keys)}; "
                "give this one a name of its own: name=NEW"
            )

    def points(self) -> list[FrozenTrial]:
        """Every point so far, in the order of suggestion."""
        return self.optuna.get_trials(deepcopy=False)

    def run_points(self) -> list[dict[str, Any]]:
        """The parameters of all points but those that could not even be run."""
        return [point.params for point in self.points() if REFUSED not in point.user_attrs]

    def open(self) -> list[FrozenTrial]:
        """Points that were suggested and have no result yet."""
        return [point for point in self.points() if point.state is TrialState.RUNNING]

    def ask(self, refusal: Callable[[dict[str, Any]], str | None]) -> bool:
        """Store the next point; False when no new one is found any more.

        ``refusal`` says why a point cannot be run: such a point is stored as failed. It raises
        ``RepeatedError`` for one that is a run already known: another is suggested then.
        """
        for attempt in range(2 * _TRIES):
            found = self._suggestion(attempt)
            params = rounded(found.params, found.distributions)
            try:
                reason = refusal(params)
            except RepeatedError:
                continue
            self.optuna.add_trial(
                optuna.trial.create_trial(
                    state=TrialState.RUNNING if reason is None else TrialState.FAIL,
                    params=params,
                    distributions=found.distributions,
                    system_attrs=found.system_attrs,
                    user_attrs={} if reason is None else {REASON: reason, REFUSED: True},
                )
            )
            return True
        return False

    def _suggestion(self, attempt: int) -> FrozenTrial:
        history = self.points()
        name = self._settings.sampler if attempt < _TRIES else "random"
        seed = seed_of("search", self._settings.seed, len(history), attempt)
        copy = optuna.create_study(directions=self._directions, sampler=make_sampler(name, seed))
        copy.add_trials(history)
        suggest(self._settings.space, copy.ask())
        return copy.get_trials()[-1]

    def tell(self, point: FrozenTrial, values: Sequence[float]) -> None:
        """Store what a point measured, a value per objective."""
        self.optuna.tell(point.number, list(values))

    def fail(self, point: FrozenTrial, reason: str) -> None:
        """Store that a point has no value, and why."""
        self._end(point, TrialState.FAIL, reason)

    def report(self, point: FrozenTrial, step: int, value: float) -> None:
        """Store what a point measured at a rung, after ``step`` training steps."""
        self._storage.set_trial_intermediate_value(point._trial_id, step, value)

    def prune(self, point: FrozenTrial, reason: str) -> None:
        """Store that a point was given up, and why; its last rung's value is its value."""
        self._end(point, TrialState.PRUNED, reason)

    def gives_up(self, point: FrozenTrial, step: int, pruner: BasePruner) -> bool:
        """What ``pruner`` says of a point at the rung ``step``, which must have been reported.

        It is asked in a copy of the study, about all rungs before, batch by batch and in each rung
        by rung: its answer follows from the stored values alone, whenever it is asked.
        """
        copy = optuna.create_study(
            direction=self._directions[0],
            sampler=optuna.samplers.RandomSampler(0),  # never asked
            pruner=pruner,
        )
        points, size = self.points(), self._settings.parallel
        for begin in range(0, len(points), size):
            batch = [(each, copy.ask()) for each in points[begin : begin + size]]
            for rung in sorted({rung for each, _ in batch for rung in each.intermediate_values}):
                for each, shadow in batch:
                    if rung in each.intermediate_values:
                        shadow.report(each.intermediate_values[rung], rung)
                        verdict = shadow.should_prune()
                        if (each.number, rung) == (point.number, step):
                            return verdict
            for each, shadow in batch:
                values = each.values if each.state is TrialState.COMPLETE else None
                if each.state.is_finished():
                    copy.tell(shadow, values, state=each.state)
        raise ValueError(f"point {point.number} has no value at step {step}")

    def _end(self, point: FrozenTrial, state: TrialState, reason: str) -> None:
        self._storage.set_trial_user_attr(point._trial_id, REASON, reason)
        self.optuna.tell(point.number, state=state)


class RepeatedError(Exception):
    """A suggested point is a run that the search has already."""


def is_stored(url: str, name: str) -> bool:
    """Whether the storage at ``url`` has a search ``name``; makes nothing there.

    Raises ``LabError`` when the storage cannot be opened.
    """
    from sqlalchemy import create_engine, inspect

    with _opening(url) as parsed:
        if parsed.get_backend_name() == "sqlite" and not Path(parsed.database).exists():
            return False
        engine = create_engine(parsed)
        try:
            there = inspect(engine).has_table("studies")
        finally:
            engine.dispose()
    return there and name in optuna.get_all_study_names(_open(url))


def _open(url: str) -> optuna.storages.BaseStorage:
    with _opening(url):
        return optuna.storages.RDBStorage(url)


@contextmanager
def _opening(url: str) -> Iterator[URL]:
    """``url`` taken apart; what goes wrong with it in one line."""
    from sqlalchemy.engine import make_url

    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
            raise ValueError("a database in memory ends with the process")
        yield parsed
    except Exception as error:  # whatever the database's client raises
        told = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise LabError(
            f"search.storage={_redacted(url)}: cannot be opened ({told}); "
            "say null for a file in the store, or an Optuna storage URL"
        ) from None


def _redacted(url: str) -> str:
    """``url`` without its password."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url).render_as_string(hide_password=True)
    except (ArgumentError, ValueError):
        return "(not a URL)" if "@" in url else url
