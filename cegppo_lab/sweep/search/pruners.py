"""Optuna's pruners by name: which points are not worth their next steps.

A point runs up to a *rung* (a training step), all its seeds; their mean there is what the pruner
sees. A point that is pruned stays in figures and tables, marked::

    search:
      pruner: {name: asha, min_steps: 8, reduction_factor: 4}    # rungs 8, 32, ...

Offered are those whose decision follows from the values that are stored, so that a search that was
killed decides the same. Hyperband is not: its brackets belong to a sampler that knows of them.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from cegppo_lab.errors import LabError, unknown
from cegppo_lab.validation import validated

if TYPE_CHECKING:
    from optuna.pruners import BasePruner


class Pruner(BaseModel):
    """A pruner with its options; ``first``, below: its first rung, training steps."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: ClassVar[str]

    min_steps: int | None = Field(default=None, ge=1)
    """The first rung, training steps; null: ``trainer.eval_every``."""

    @abstractmethod
    def steps(self, first: int) -> Iterator[int]:
        """The rungs, without an end."""

    @abstractmethod
    def make(self, first: int) -> BasePruner:
        """Optuna's pruner."""

    def rungs(self, first: int, steps: int) -> list[int]:
        """The rungs of a run of ``steps`` training steps, the last of which is none."""
        return list(itertools.takewhile(lambda step: step < steps, self.steps(first)))

    def content(self) -> dict[str, Any]:
        """Name and options, as plain values."""
        return {"name": self.name, **self.model_dump(mode="json")}


class Asha(Pruner):
    """Asynchronous successive halving (arXiv 1810.05934): the best 1 in ``reduction_factor`` go on.

    Rungs are ``min_steps`` times the powers of ``reduction_factor``. As in Optuna, of the first
    ``reduction_factor`` - 1 points at a rung one goes on if it is the best so far.
    """

    name = "asha"
    reduction_factor: int = Field(default=4, ge=2)
    bootstrap_points: int = Field(default=0, ge=0)
    """Points that a rung must have seen before one goes on."""

    def steps(self, first: int) -> Iterator[int]:
        """See :meth:`Pruner.steps`."""
        return (first * self.reduction_factor**power for power in itertools.count())

    def make(self, first: int) -> BasePruner:
        """See :meth:`Pruner.make`."""
        from optuna.pruners import SuccessiveHalvingPruner

        return SuccessiveHalvingPruner(
            min_resource=first,
            reduction_factor=self.reduction_factor,
            bootstrap_count=self.bootstrap_points,
        )


class Median(Pruner):
    """A point goes on while its best so far is no worse than the median of finished points there.

    Rungs are ``min_steps`` and its multiples.
    """

    name = "median"
    startup_points: int = Field(default=5, ge=0)
    """Points that must have run to their end before one is pruned."""
    min_points: int = Field(default=1, ge=1)
    """Of these, those that must have a value at the rung."""

    @property
    def share(self) -> float:
        """The percentage of points that go on."""
        return 50.0

    def steps(self, first: int) -> Iterator[int]:
        """See :meth:`Pruner.steps`."""
        return itertools.count(first, first)

    def make(self, first: int) -> BasePruner:
        """See :meth:`Pruner.make`."""
        from optuna.pruners import PercentilePruner

        return PercentilePruner(
            self.share, n_startup_trials=self.startup_points, n_min_trials=self.min_points
        )


class Percentile(Median):
    """As ``median``, for the best ``percentile`` percent of the finished points."""

    name = "percentile"
    percentile: float = Field(gt=0, le=100)

    @property
    def share(self) -> float:
        """The percentage of points that go on."""
        return self.percentile


PRUNERS: dict[str, type[Pruner]] = {each.name: each for each in (Asha, Median, Percentile)}
NONE = "none"


def parse_pruner(given: Any, where: str) -> Pruner | None:
    """The pruner that a sweep file names, with options or without; None for ``none`` and null.

    Raises ``LabError`` for the first mistake in it.
    """
    if given is None or isinstance(given, Pruner):
        return given
    if not isinstance(given, str | Mapping) or (isinstance(given, Mapping) and "name" not in given):
        raise LabError(
            f"{where}={given!r}: must be a name or {{name: asha, ...}}; names: "
            + ", ".join([*PRUNERS, NONE])
        )
    options = {"name": given} if isinstance(given, str) else dict(given)
    name = options.pop("name")
    if name not in (*PRUNERS, NONE):
        raise unknown("pruner", str(name), [*PRUNERS, NONE])
    if name == NONE:
        if options:
            raise LabError(f"{where}: none has no option {min(options)}; drop it")
        return None
    return validated(PRUNERS[name], options, where)
