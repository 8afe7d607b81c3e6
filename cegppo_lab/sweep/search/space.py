"""The space of a search: what may be varied, and how a point becomes overrides of a run.

A point is Optuna's: parameter name -> number or label. Its overrides are the run's: key -> value.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cegppo_lab.errors import LabError, unknown
from cegppo_lab.validation import validated

if TYPE_CHECKING:
    import optuna

Point = Mapping[str, Any]
Space = Mapping[str, "Entry"]
DIGITS = 4
"""Significant digits of a number without a step: an arm's name says exactly what is run."""


class Entry(BaseModel):
    """One key of the space; ``when``: the choices of earlier keys under which it is in force."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    when: dict[str, list[Any]] = {}

    @field_validator("when", mode="before")
    @classmethod
    def _listed(cls, when: Any) -> Any:
        """A single choice need not be in brackets."""
        if not isinstance(when, Mapping):
            return when
        return {key: item if isinstance(item, list) else [item] for key, item in when.items()}

    def active(self, point: Point) -> bool:
        """Whether the key is in force at ``point``."""
        return all(
            point.get(key) in {str(each) for each in wanted} for key, wanted in self.when.items()
        )

    @abstractmethod
    def suggest(self, trial: optuna.Trial, name: str) -> None:
        """Let Optuna choose the entry's parameters."""

    @abstractmethod
    def value(self, point: Point, name: str) -> Any:
        """What ``point`` gives the key in a run."""

    @abstractmethod
    def ends(self, name: str) -> list[Point]:
        """The entry's parameters at their lowest and highest; every choice."""


class Range(Entry):
    """Numbers: ``{low: 0.0, high: 1.0}``, with ``step``, ``log: true`` or ``int: true``."""

    low: float
    high: float
    step: float | None = Field(default=None, gt=0)
    log: bool = False
    int: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.low >= self.high:
            raise ValueError(f"low {self.low:g} must be below high {self.high:g}")
        if self.log and self.step is not None:
            raise ValueError("log and step exclude each other; drop one")
        if self.log and self.low <= 0:
            raise ValueError(f"low {self.low:g} must be above 0 where log is true")
        whole = (self.low, self.high, self.step or 1.0)
        if self.int and any(number != math.floor(number) for number in whole):
            raise ValueError("low, high and step must be whole numbers where int is true")
        return self

    def suggest(self, trial: optuna.Trial, name: str) -> None:
        """See :meth:`Entry.suggest`."""
        if self.int:
            low, high, step = round(self.low), round(self.high), round(self.step or 1)
            trial.suggest_int(name, low, high, step=step, log=self.log)
        else:
            trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)

    def value(self, point: Point, name: str) -> Any:
        """See :meth:`Entry.value`."""
        return point[name]

    def ends(self, name: str) -> list[Point]:
        """See :meth:`Entry.ends`."""
        numbers = [self.low, self.high]
        return [{name: round(each) if self.int else each} for each in numbers]


class Choices(Entry):
    """One of several values of any kind: ``{choices: [cegppo, grpo]}``. Optuna sees their text."""

    choices: list[Any] = Field(min_length=1)

    @field_validator("choices")
    @classmethod
    def _distinct(cls, choices: list[Any]) -> list[Any]:
        labels = [str(each) for each in choices]
        if twice := {label for label in labels if labels.count(label) > 1}:
            raise ValueError(f"{min(twice)} is listed twice")
        return choices

    @property
    def labels(self) -> dict[str, Any]:
        """The choices by the text that stands for them."""
        return {str(each): each for each in self.choices}

    def suggest(self, trial: optuna.Trial, name: str) -> None:
        """See :meth:`Entry.suggest`."""
        trial.suggest_categorical(name, list(self.labels))

    def value(self, point: Point, name: str) -> Any:
        """See :meth:`Entry.value`."""
        return self.labels[point[name]]

    def ends(self, name: str) -> list[Point]:
        """See :meth:`Entry.ends`."""
        return [{name: label} for label in self.labels]


class Switch(Entry):
    """A coefficient that changes once: ``{schedule: {from: A, to: B, at: STEP}}``.

    Each part is a number or a range; the run's value is ``{0: from, STEP: to}``.
    """

    schedule: dict[str, float | Range]

    @field_validator("schedule")
    @classmethod
    def _whole(cls, parts: dict[str, float | Range]) -> dict[str, float | Range]:
        if set(parts) != {"from", "to", "at"}:
            raise ValueError("must have from, to and at, e.g. {from: 0.0, to: 0.5, at: 37}")
        at = parts["at"]
        steps = (at.low, at.step or 1.0) if isinstance(at, Range) else (at,)
        if not all(step >= 1 and step == math.floor(step) for step in steps):
            raise ValueError("at must be whole steps, 1 or more")
        if isinstance(at, Range):
            parts = parts | {"at": validated(Range, at.model_dump() | {"int": True}, "at")}
        return parts

    def _searched(self, name: str) -> dict[str, Range]:
        return {f"{name}.{k}": v for k, v in self.schedule.items() if isinstance(v, Range)}

    def suggest(self, trial: optuna.Trial, name: str) -> None:
        """See :meth:`Entry.suggest`."""
        for key, part in self._searched(name).items():
            part.suggest(trial, key)

    def value(self, point: Point, name: str) -> Any:
        """See :meth:`Entry.value`."""
        first, then, at = (
            point.get(f"{name}.{part}", self.schedule[part]) for part in ("from", "to", "at")
        )
        return {0: first, int(at): then}

    def ends(self, name: str) -> list[Point]:
        """See :meth:`Entry.ends`."""
        both: list[dict[str, Any]] = [{}, {}]
        for key, part in self._searched(name).items():
            for end, chosen in zip(part.ends(key), both, strict=True):
                chosen.update(end)
        return both


_KINDS = {"choices": Choices, "schedule": Switch}


def parse_space(entries: Mapping[str, Any], where: str) -> dict[str, Entry]:
    """The space that a sweep file describes; ``LabError`` for the first mistake in it."""
    space: dict[str, Entry] = {}
    for key, entry in entries.items():
        if isinstance(entry, Entry):
            space[key] = entry
            continue
        if not isinstance(entry, Mapping):
            raise LabError(
                f"{where}.{key}={entry!r}: must be {{low: A, high: B}} or {{choices: [..]}}"
            )
        kind = next((_KINDS[word] for word in _KINDS if word in entry), Range)
        space[key] = validated(kind, entry, f"{where}.{key}")
        _check_conditions(space, key, where)
    if "seed" in space:
        raise LabError(f"{where}.seed: every point runs all seeds of the sweep; drop it")
    return space


def _check_conditions(space: Space, key: str, where: str) -> None:
    earlier = {name: entry for name, entry in space.items() if isinstance(entry, Choices)}
    earlier.pop(key, None)
    for parent, wanted in space[key].when.items():
        if parent not in earlier:
            raise unknown(f"key of {where}.{key}.when", parent, earlier)
        for label in wanted:
            if str(label) not in earlier[parent].labels:
                raise unknown(f"choice of {parent}", str(label), earlier[parent].labels)


def suggest(space: Space, trial: optuna.Trial) -> None:
    """Let Optuna choose all that is in force, key by key."""
    for key, entry in space.items():
        if entry.active(trial.params):
            entry.suggest(trial, key)


def rounded(point: Point, distributions: Mapping[str, Any]) -> dict[str, Any]:
    """``point`` with its free numbers to ``DIGITS`` significant digits, within their bounds."""
    result = dict(point)
    for name, number in point.items():
        limits = distributions[name]
        if isinstance(number, float) and limits.step is None:
            result[name] = min(max(float(f"{number:.{DIGITS}g}"), limits.low), limits.high)
    return result


def overrides(space: Space, point: Point) -> dict[str, Any]:
    """The keys of a run that ``point`` sets."""
    return {key: entry.value(point, key) for key, entry in space.items() if entry.active(point)}


def arm_name(space: Space, point: Point) -> str:
    """What the arm of ``point`` is called, e.g. ``beta1=0.31 beta2=0.87``."""
    values = overrides(space, point)
    return " ".join(f"{key.rpartition('.')[2]}={_text(values[key])}" for key in values)


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ">".join(
            f"{_text(number)}" + (f"@{start}" if start else "") for start, number in value.items()
        )
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def corners(space: Space) -> Iterator[dict[str, Any]]:
    """Points at the ends of the space: every combination of choices, all else low, then high."""
    for end in (0, -1):
        points: list[dict[str, Any]] = [{}]
        for key, entry in space.items():
            points = [
                point | chosen for point in points for chosen in _at_end(entry, key, point, end)
            ]
        yield from points


def _at_end(entry: Entry, key: str, point: Point, end: int) -> list[Point]:
    if not entry.active(point):
        return [{}]
    ends = entry.ends(key)
    return ends if isinstance(entry, Choices) else [ends[end]]
