"""Sweep files: a question, the arms that answer it, and the seeds that say how surely."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cegppo_lab.compose import config_groups
from cegppo_lab.errors import LabError, unknown
from cegppo_lab.resources import shipped
from cegppo_lab.store import SWEEP_NAME
from cegppo_lab.validation import validated

DEFAULT_SWEEP = "quickstart"
SINGLE_RUNS = "train"


class SweepSpec(BaseModel):
    """A sweep file. Arms x ``grid`` x ``zip`` points are the sweep's arms; each runs every seed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=f"^{SWEEP_NAME}$")
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
    seeds: list[Annotated[int, Field(ge=0)]] = Field(min_length=1)
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
        return self

    def points(self) -> list[tuple[str, dict[str, Any]]]:
        """The sweep's arms in order: (name, overrides over ``base``)."""
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
    if path is None or not path.is_file():
        raise unknown("sweep", name, sweep_files())
    tree = {"name": path.stem if by_path else name, **_read(path)}
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


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise LabError(f"{path} is not valid YAML{where}: {problem}") from None
    except UnicodeDecodeError:
        raise LabError(f"{path} is not a text file in UTF-8") from None
    if not isinstance(tree, dict):
        raise LabError(f"{path} must be a mapping with question:, arms: and seeds:")
    return tree


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key given twice, instead of dropping the first."""


def _mapping_once(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    own: set[Any] = set()  # Keys that come in through a merge (<<) may be given again.
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str | int | float):
            raise yaml.constructor.ConstructorError(
                None, None, f"key {key!r} is not a word or a number", key_node.start_mark
            )
        if key in own:
            raise yaml.constructor.ConstructorError(
                None, None, f"key {key!r} is given twice", key_node.start_mark
            )
        own.add(key)
    loader.flatten_mapping(node)
    return {
        loader.construct_object(key, deep=True): loader.construct_object(value, deep=True)
        for key, value in node.value
    }


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_once)


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
