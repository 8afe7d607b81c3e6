"""The confound guard: arms may differ in what their sweep declares, and in nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cegppo_lab.errors import LabError, unknown
from cegppo_lab.sweep.spec import SweepSpec

_TOLD = 6
"""Differences that an error lists; more are counted."""


@dataclass(frozen=True)
class Confound:
    """A key in which arms differ without a word of it in the sweep; ``values``: by arm."""

    key: str
    values: dict[str, Any]

    def text(self) -> str:
        """``key (arm value, arm value)``, one arm for each of the values."""
        shown: dict[str, str] = {}
        for arm, value in self.values.items():
            shown.setdefault(repr(value), f"{arm} {value}")
        return f"{self.key} ({', '.join(shown.values())})"


def confounds(spec: SweepSpec, contents: Mapping[str, Mapping[str, Any]]) -> list[Confound]:
    """What the arms differ in beyond what ``spec`` declares and waives, sorted by key.

    ``contents``: the flattened configuration of each arm. An arm declares a key by setting it, or
    a group (``model``, ``task``, ``trainer``) by choosing its file, and all of the group with it.
    ``algorithm=NAME`` declares the name and what only some of the arms' algorithms have: a clip
    width or an aggregation that a preset brings along has to be said. Arms that do not declare a
    key must have one value of it.

    Raises:
        LabError: ``allow_differences`` names a key that no arm has.
    """
    _check_waivers(spec, contents)
    declared = {arm: _declared({**spec.grid, **spec.zip, **own}) for arm, own in spec.points()}
    found = []
    for key in sorted({key for content in contents.values() for key in content} - {"seed"}):
        if _covered(key, set(spec.allow_differences)):
            continue
        silent = {
            arm: content for arm, content in contents.items() if not _covered(key, declared[arm])
        }
        having = {arm: content[key] for arm, content in silent.items() if key in content}
        lacking = len(having) < len(silent) and not key.startswith("algorithm.")
        if having and (lacking or len(set(map(repr, having.values()))) > 1):
            found.append(Confound(key, having))
    return found


def refuse_confounds(found: list[Confound]) -> None:
    """Raise ``LabError`` when there is a confound, with what to type."""
    if not found:
        return
    told = "; ".join(confound.text() for confound in found[:_TOLD])
    more = f"; and {len(found) - _TOLD} more" if len(found) > _TOLD else ""
    keys = ",".join(confound.key for confound in found)
    raise LabError(
        f"the arms differ in what the sweep does not declare: {told}{more}. Set it in the arms, or "
        f"waive it by name: allow_differences=[{keys}]"
    )


def _declared(values: Mapping[str, Any]) -> set[str]:
    """The keys, and whole groups, that an arm's own values declare."""
    return {"algorithm.name" if key == "algorithm" else key for key in values}


def _covered(key: str, declared: set[str]) -> bool:
    """Whether ``key``, or something that it is part of, is declared."""
    parts = key.split(".")
    return any(".".join(parts[: end + 1]) in declared for end in range(len(parts)))


def _check_waivers(spec: SweepSpec, contents: Mapping[str, Mapping[str, Any]]) -> None:
    known = {key for content in contents.values() for key in content}
    parents = {key.rpartition(".")[0] for key in known} - {""}
    for waived in spec.allow_differences:
        if waived not in known | parents:
            raise unknown("key under allow_differences", waived, known)
