"""The mapping file: which arm and which seed the runs of a foreign MLflow experiment are."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from cegppo_lab.errors import LabError, nearest
from cegppo_lab.validation import validated

if TYPE_CHECKING:
    from mlflow.entities import Run

SHAPE = "its shape: {scale: GPU, runs: [{run: 'grpo-*', arm: GRPO, seed: 1}]}"
"""The smallest mapping, for messages."""


_ID_GLOB = re.compile("[0-9a-f]{6}")
"""How a glob for run ids begins: ``a*`` is about names, whatever letter some random id has."""


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SeedRule(_Closed):
    """Where a run's seed is: a number, a param, a tag, or one group of a pattern on its name."""

    value: int | None = None
    param: str | None = None
    tag: str | None = None
    regex: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _number(cls, given: Any) -> Any:
        return given if isinstance(given, dict) else {"value": given}

    @model_validator(mode="after")
    def _one(self) -> Self:
        if len(self.model_fields_set) != 1:
            raise ValueError("give a number, or one of param, tag and regex")
        if self.regex is not None:
            try:
                groups = re.compile(self.regex).groups
            except re.error as error:
                raise ValueError(f"regex {self.regex!r} is no pattern: {error}") from None
            if groups != 1:
                raise ValueError(f"regex {self.regex!r} needs one group, e.g. seed(\\d+)")
        return self

    def of(self, run: Run) -> int:
        """The run's seed; ``LabError`` when it is not there, or no whole number."""
        if self.value is not None:
            return self.value
        name = run.info.run_name or ""
        if self.regex is not None:
            found = re.search(self.regex, name)
            where, text = f"regex {self.regex!r} on its name", found and found[1]
            have: Iterable[str] = ()
        else:
            kind = "param" if self.param is not None else "tag"
            key, own = self.param or self.tag or "", getattr(run.data, f"{kind}s")
            where, text, have = f"{kind} {key!r}", own.get(key), own
        if text is None:
            close = nearest(self.param or self.tag or "", have)
            hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
            raise LabError(f"run {name!r} has no seed: no {where}{hint}")
        try:
            return int(text)
        except ValueError:
            raise LabError(f"run {name!r}: {where} gives {text!r}, no whole number") from None


class RunRule(_Closed):
    """What the runs are whose name matches the glob ``run``, or whose id does (6 digits at least).

    ``algorithm`` and ``settings``, by this suite's names, let figures and claims find the arm.
    ``steps``: the training steps that were planned; a run that ended before is marked.
    """

    run: str
    arm: str
    seed: SeedRule
    algorithm: str = ""
    settings: dict[str, Any] = {}
    model: str = ""
    steps: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _known_algorithm(self) -> Self:
        if self.settings and not self.algorithm:
            raise ValueError("settings are an algorithm's: give algorithm too")
        if self.algorithm:
            from cegppo_lab.algorithms import make_algorithm  # imports torch

            try:
                make_algorithm(self.algorithm, **self.settings)
            except LabError as error:
                raise ValueError(str(error)) from None
        return self

    def matches(self, run: Run) -> bool:
        """Whether the rule's glob is about the run."""
        return _any([self.run], run)


class RunMapping(_Closed):
    """A mapping file. ``scale``: what the runs are evidence at; of ``runs``, the first rule counts.

    ``ignore``: globs of runs to leave out.
    """

    scale: Literal["embedded", "GPU", "paper"]
    question: str = ""
    runs: list[RunRule] = Field(min_length=1)
    ignore: list[str] = []

    @model_validator(mode="after")
    def _one_meaning(self) -> Self:
        seen: dict[str, RunRule] = {}
        for rule in self.runs:
            first = seen.setdefault(rule.arm, rule)
            for key in ("algorithm", "settings", "model"):
                if getattr(rule, key) != getattr(first, key):
                    raise ValueError(f"arm {rule.arm!r} has two values of {key}; name two arms")
        return self

    def assign(self, runs: Iterable[Run]) -> tuple[list[Assigned], list[str]]:
        """The runs that a rule matches, in the order of the rules, and sentences on the others.

        Raises ``LabError`` for a run whose seed is not where its rule says.
        """
        found: dict[int, list[Assigned]] = {place: [] for place in range(len(self.runs))}
        ignored, unmatched = [], []
        for run in runs:
            if _any(self.ignore, run):
                ignored.append(run)
                continue
            place = next((i for i, rule in enumerate(self.runs) if rule.matches(run)), None)
            if place is None:
                unmatched.append(run)
            else:
                rule = self.runs[place]
                found[place].append(Assigned(run, rule, rule.seed.of(run)))
        told = [f"No run is left for the mapping's rule {self.runs[place].run!r}."
                for place, own in found.items() if not own]  # fmt: skip
        told += _listed("left out by the mapping's ignore", ignored)
        told += _listed("matched by no rule of the mapping and left out", unmatched)
        return [one for own in found.values() for one in own], told


class Assigned(NamedTuple):
    """A run and what the mapping says that it is."""

    run: Run
    rule: RunRule
    seed: int


def load_mapping(path: str | Path) -> RunMapping:
    """The mapping in a YAML file; ``LabError`` naming the file for every mistake in it."""
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise LabError(f"cannot read the mapping {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise LabError(f"{path} is not YAML: {' '.join(str(error).split())[:300]}") from None
    if not isinstance(values, dict):
        raise LabError(f"{path} is no mapping of runs to arms; {SHAPE}")
    try:
        return validated(RunMapping, values, "mapping")
    except LabError as error:
        missing, found, _ = str(error).partition(" is missing;")
        told = f"{missing}{found} {SHAPE}" if found else str(error)
        raise LabError(f"{path}: {told}") from None


def _any(globs: Iterable[str], run: Run) -> bool:
    return any(
        fnmatchcase(run.info.run_name or "", glob)
        or (bool(_ID_GLOB.match(glob)) and fnmatchcase(run.info.run_id, glob))
        for glob in globs
    )


def _listed(what: str, runs: list[Run]) -> list[str]:
    names = ", ".join(run.info.run_name or run.info.run_id for run in runs)
    counted = "1 run is" if len(runs) == 1 else f"{len(runs)} runs are"
    return [f"{counted} {what}: {names}."] if runs else []
