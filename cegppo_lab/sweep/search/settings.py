"""The section ``search:`` of a sweep file."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, InstanceOf, field_validator, model_validator

from cegppo_lab.errors import LabError, unknown
from cegppo_lab.sweep.search.pruners import Pruner, parse_pruner
from cegppo_lab.sweep.search.samplers import SAMPLERS
from cegppo_lab.sweep.search.space import Entry, parse_space


class Objective(BaseModel):
    """What a search wants large or small: one number a run, averaged over the seeds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str
    """``accuracy``, ``entropy_drift``, or a step metric's name; see ``objectives.py``."""
    benchmark: str | None = None
    """Of ``accuracy``: the problems; by default all that the run is evaluated on, if one."""
    at: Literal["end", "mean", "min", "max"] = "end"
    """The last value of the run, or a summary of all its values."""
    goal: Literal["maximize", "minimize"]

    @property
    def title(self) -> str:
        """What tables call it, e.g. ``accuracy(table_walk) at end``."""
        where = f"({self.benchmark})" if self.benchmark else ""
        return (
            f"{self.metric}{where} at {self.at}"
            if self.at == "end"
            else (f"{self.at} {self.metric}{where}")
        )


class SearchSpec(BaseModel):
    """A search: ``points`` suggested one after the other, or ``parallel`` at a time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sampler: str = "tpe"
    """One of ``samplers.py``."""
    pruner: InstanceOf[Pruner] | None = None
    """Which points are given up early; a name, or ``{name: asha, ...}``: see ``pruners.py``."""
    points: int = Field(default=20, ge=1)
    """How many points are tried in all; a larger number goes on from a search that ended."""
    parallel: int = Field(default=1, ge=1)
    """Points that are suggested together and run together, before the next are suggested."""
    seed: int = Field(default=0, ge=0)
    """Of the suggestions; the runs have the sweep's own seeds."""
    objectives: list[Objective] = Field(min_length=1)
    space: dict[str, InstanceOf[Entry]] = Field(min_length=1)
    storage: str | None = None
    """An Optuna storage URL; null: an SQLite file in the store, ``_searches/NAME.db``."""

    @field_validator("sampler")
    @classmethod
    def _known(cls, sampler: str) -> str:
        if sampler not in SAMPLERS:
            raise unknown("sampler", sampler, SAMPLERS)
        return sampler

    @field_validator("pruner", mode="before")
    @classmethod
    def _named(cls, given: Any) -> Pruner | None:
        return parse_pruner(given, "search.pruner")

    @model_validator(mode="after")
    def _one_goal(self) -> SearchSpec:
        if self.pruner and len(self.objectives) > 1:
            raise LabError(
                f"search.pruner={self.pruner.name}: a pruner needs one objective, there are "
                f"{len(self.objectives)}; keep one of them, or drop the pruner"
            )
        return self

    @field_validator("space", mode="before")
    @classmethod
    def _parsed(cls, entries: Any) -> dict[str, Entry]:
        if not isinstance(entries, dict):
            raise LabError(f"search.space={entries!r}: must be a mapping of keys to ranges")
        return parse_space(entries, "search.space")

    @field_validator("objectives")
    @classmethod
    def _distinct(cls, objectives: list[Objective]) -> list[Objective]:
        titles = [objective.title for objective in objectives]
        if len(set(titles)) != len(titles):
            raise ValueError("an objective is listed twice")
        return objectives
