"""The history of a search in an Optuna storage, and the next point that follows from it.

A point is suggested in a copy of the study in memory and stored whole, in one transaction. The
sampler is made anew for it, from the search's seed and the point's number. So a suggestion follows
from the stored points alone: a search that was killed at any instant goes on as if it had not been.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from cegppo_lab.errors import LabError
from cegppo_lab.streams import seed_of
from cegppo_lab.sweep.search.samplers import make_sampler
from cegppo_lab.sweep.search.settings import SearchSpec
from cegppo_lab.sweep.search.space import rounded, suggest

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
        self._storage.set_trial_user_attr(point._trial_id, REASON, reason)
        self.optuna.tell(point.number, state=TrialState.FAIL)


class RepeatedError(Exception):
    """A suggested point is a run that the search has already."""


def _open(url: str) -> optuna.storages.BaseStorage:
    try:
        return optuna.storages.RDBStorage(url)
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
