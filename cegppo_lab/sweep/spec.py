"""Sweep files: a question, the arms that answer it, and the seeds that say how surely."""

from __future__ import annotations

import itertools
import math
import os.path
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cegppo_lab.compose import config_groups
from cegppo_lab.errors import LabError, unknown
from cegppo_lab.resources import shipped
from cegppo_lab.sentinel import NO_RULES, StopRules
from cegppo_lab.store import SWEEP_NAME
from cegppo_lab.sweep.cluster import ClusterSpec
from cegppo_lab.sweep.search.settings import SearchSpec
from cegppo_lab.validation import validated
from cegppo_lab.yaml_files import read_mapping

DEFAULT_SWEEP = "quickstart"
SINGLE_RUNS = "train"
MAX_TRIALS = 100_000
"""What a plan holds at most: more is a mistake in an axis, and would fill the memory."""


class SweepSpec(BaseModel):
    """A sweep file. Arms x ``grid`` x ``zip`` points are the sweep's arms; each runs every seed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=f"^{SWEEP_NAME}$", max_length=100)
    question: str = Field(min_length=1)
    notes: list[str] = []
    """What a reader of the results must know: scale, deviations, what is known not to hold."""
    base: dict[str, Any] = {}
    """Overrides of every trial, e.g. ``{task: table_walk, trainer.steps: 64}``."""
    arms: dict[str, dict[str, Any]] = {}
    """Named arms: ``{GRPO: {algorithm: grpo}, ...}``. Empty: one arm, ``base`` itself."""
    grid: dict[str, list[Any]] = {}
    """Axes that are crossed: every combination of their values, within every named arm."""
    zip: dict[str, list[Any]] = {}
    """Axes that run in parallel: the i-th values together. All of one length."""
    search: SearchSpec | None = None
    """Points that are suggested from what those before measured, beside the arms, if any."""
    seeds: list[Annotated[int, Field(ge=0)]] = Field(min_length=1)
    stop: StopRules = NO_RULES
    """When a run is ended early; see ``cegppo_lab/sentinel.py``. No part of a trial's id."""
    cluster: ClusterSpec = ClusterSpec()
    """The Ray cluster that it runs on. No part of a trial's id."""
    allow_differences: list[str] = []
    """Keys in which arms may differ though no arm sets them: see ``sweep/confounds.py``."""

    @field_validator("name")
    @classmethod
    def _not_reserved(cls, name: str) -> str:
        if name == SINGLE_RUNS:
            raise ValueError("is the name under which single runs are gathered; choose another")
        return name

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) != len(seeds):
            raise ValueError(f"a seed is listed twice; a run is never repeated, {seeds}")
        return seeds

    @field_validator("grid", "zip")
    @classmethod
    def _no_empty_axis(cls, axes: dict[str, list[Any]]) -> dict[str, list[Any]]:
        for key, values in axes.items():
            if not values:
                raise ValueError(f"axis {key} has no values")
        return axes

    @model_validator(mode="after")
    def _consistent(self) -> SweepSpec:
        lengths = {key: len(values) for key, values in self.zip.items()}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{key} has {length}" for key, length in lengths.items())
            raise ValueError(f"zipped axes differ in length: {told}")
        if both := sorted(set(self.grid) & set(self.zip)):
            raise ValueError(f"{both[0]} is both under grid and under zip")
        arms = max(len(self.arms), 1) * math.prod(map(len, self.grid.values()))
        trials = arms * max(lengths.values(), default=1) * len(self.seeds)
        if trials > MAX_TRIALS:
            raise ValueError(f"{trials} trials are more than {MAX_TRIALS}; shorten an axis")
        names = Counter(name for name, _ in self.points())
        if twins := [name for name, count in names.items() if count > 1]:
            raise ValueError(f"two arms are called {twins[0]!r}; rename one")
        return self

    def points(self) -> list[tuple[str, dict[str, Any]]]:
        """The sweep's arms in order: (name, overrides over ``base``); without a search's points."""
        if self.search and not (self.arms or self.grid or self.zip):
            return []
        crossed = [
            dict(zip(self.grid, values, strict=True))
            for values in itertools.product(*self.grid.values())
        ]
        rows = list(zip(*self.zip.values(), strict=True))
        parallel = [dict(zip(self.zip, row, strict=True)) for row in rows] or [{}]
        return [
            (_arm_name(arm, axes), {**overrides, **axes})
            for arm, overrides in (self.arms or {"": {}}).items()
            for axes in ({**left, **right} for left in crossed for right in parallel)
        ]


def _arm_name(arm: str, axes: Mapping[str, Any]) -> str:
    values = ", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in axes.items())
    return f"{arm} {values}".strip() or "run"


def sweep_files() -> dict[str, Path]:
    """Every sweep by name: those in ``./sweeps`` first, then those that ship with the package."""
    found: dict[str, Path] = {}
    for folder in (Path("sweeps"), shipped("sweeps")):
        for path in sorted(folder.rglob("*.yaml")):
            found.setdefault(str(path.relative_to(folder).with_suffix("")), path)
    return found


def load_spec(name: str, changes: Mapping[str, Any] | None = None) -> SweepSpec:
    """The sweep ``name`` (or the sweep file at that path), with ``changes`` to its own keys.

    A change is ``{"seeds": [5]}`` or ``{"grid.algorithm.beta1": [0.5]}``. Raises ``LabError`` for
    an unknown name, a file that is no YAML mapping, unknown keys and values of a wrong kind.
    """
    by_path = name.endswith((".yaml", ".yml"))
    path = Path(name) if by_path else sweep_files().get(name)
    if path is None or not os.path.isfile(path):
        raise unknown("sweep", name, sweep_files())
    content = read_mapping(path, "question:, arms: and seeds:")
    tree = {"name": path.stem if by_path else name, **content}
    for key, value in (changes or {}).items():
        owner, _, axis = key.partition(".")
        if axis:
            tree[owner] = {**_mapping(key, tree.get(owner)), axis: value}
        else:
            tree[owner] = value
    return validated(SweepSpec, tree, path.name)


def _mapping(key: str, value: Any) -> dict[str, Any]:
    """What ``key`` sets an entry of; an absent group is empty."""
    if value is not None and not isinstance(value, dict):
        raise LabError(f"{key}: {key.partition('.')[0]} has no keys of its own; set it as a whole")
    return value or {}


def split_overrides(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Command-line values as (those of the sweep's own keys, those of every trial)."""
    own = set(SweepSpec.model_fields) - {"base"}
    mine = {key: value for key, value in values.items() if key.partition(".")[0] in own}
    rest = {key: value for key, value in values.items() if key not in mine}
    roots = {"seed", "benchmarks", "runtime", *config_groups()}
    for key in rest:
        if (root := key.partition(".")[0]) not in roots:
            raise unknown("key", root, roots | own)
    if "seed" in rest:
        raise LabError(f"seed={rest['seed']}: a sweep has seeds; say seeds=[{rest['seed']}]")
    return mine, rest
