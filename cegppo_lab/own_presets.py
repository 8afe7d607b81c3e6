"""Algorithms that are not among the shipped presets: ``./conf/algorithm``, or a class's place."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cegppo_lab.algorithms import make_algorithm
from cegppo_lab.algorithms.check import weighed
from cegppo_lab.algorithms.outside import entry_points, is_reference
from cegppo_lab.errors import LabError
from cegppo_lab.resources import shipped
from cegppo_lab.yaml_files import read_mapping

FOLDER = Path("conf") / "algorithm"
"""Where presets of the user's own are, below the folder in which a command is typed."""


def own_names() -> list[str]:
    """The presets in :data:`FOLDER` and the entry points, sorted."""
    files = (path for path in FOLDER.glob("*.yaml") if not _is_copy(path))
    return sorted({*(path.stem for path in files), *entry_points()})


def own_algorithm(option: object) -> dict[str, Any] | None:
    """The section ``algorithm`` that ``algorithm=OPTION`` stands for; None where it is shipped.

    ``option``: a preset of :data:`FOLDER`, whose ``name`` may be any algorithm's and whose other
    keys are over its defaults; ``module:Class``; or an entry point. Raises ``LabError`` for a
    preset that cannot be read or has a shipped one's name, for what ``make_algorithm`` refuses, and
    for an F that cannot be computed (a few random tokens are tried).
    """
    if not isinstance(option, str):
        return None
    path = FOLDER / f"{option}.yaml"
    if path.parent == FOLDER and os.path.isfile(path) and not _is_copy(path):
        return _of_file(path)
    if is_reference(option) or (option in entry_points() and not _shipped(option).is_file()):
        return _section(option, {})
    return None


def _is_copy(path: Path) -> bool:
    """Whether it is a shipped preset, e.g. in a checkout."""
    ours = _shipped(path.stem)
    return ours.is_file() and ours.read_bytes() == path.read_bytes()


def _shipped(name: str) -> Path:
    return shipped("conf") / "algorithm" / f"{name}.yaml"


def _of_file(path: Path) -> dict[str, Any]:
    if _shipped(path.stem).is_file():
        raise LabError(f"{path}: {path.stem!r} is a shipped preset; give yours a name of its own")
    values = read_mapping(path, "name: and an algorithm's options")
    name = values.pop("name", None)
    if not isinstance(name, str):
        raise LabError(f"{path}: name is missing; say name: MODULE:CLASS, or an algorithm's name")
    try:
        return _section(name, values)
    except LabError as error:
        raise LabError(f"{path}: {error}") from None


def _section(name: str, values: dict[Any, Any]) -> dict[str, Any]:
    algorithm = make_algorithm(name, **{str(key): value for key, value in values.items()})
    weighed(algorithm.at(0))
    return {"name": algorithm.name, **algorithm.model_dump(mode="json")}
