"""Manifests of sweeps: whether one is whole, and how those of an archive join a store's."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from filelock import FileLock

from cegppo_lab.errors import LabError
from cegppo_lab.store import SWEEP_NAME, RunStore

_ROW = {"trial_id": str, "arm": str, "seed": int}


def manifest_flaw(manifest: Any, name: str) -> str | None:
    """What is wrong with the manifest of sweep ``name``, in a few words; None for a good one."""
    if not isinstance(manifest, dict):
        return "its manifest is not valid JSON"
    if manifest.get("name") != name:
        return f"its manifest is of sweep {manifest.get('name')!r}"
    rows = manifest.get("trials")
    if not isinstance(rows, list) or not all(_is_row(row) for row in rows):
        return "its manifest does not list trials with trial_id, arm and seed"
    if len({row["trial_id"] for row in rows}) < len(rows):
        return "its manifest names a trial twice"
    return None


def _is_row(row: Any) -> bool:
    return isinstance(row, dict) and all(type(row.get(key)) is kind for key, kind in _ROW.items())


def renamed(sweeps: Mapping[str, dict[str, Any]], name: str | None) -> dict[str, dict[str, Any]]:
    """``sweeps``, the one of them under ``name`` if given; ``LabError`` where that cannot be."""
    if name is None:
        return dict(sweeps)
    if not re.fullmatch(SWEEP_NAME, name) or name == _single_runs():
        raise LabError(f"--as {name}: not a sweep's name; use letters, digits, '_', '.' and '-'")
    if len(sweeps) != 1:
        told = ", ".join(sweeps) or "none"
        raise LabError(
            f"--as {name}: the archive has {len(sweeps)} sweeps ({told}); export one alone"
        )
    (manifest,) = sweeps.values()
    return {name: {**manifest, "name": name}}


def new_manifests(
    store: RunStore, sweeps: Mapping[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Those of ``sweeps`` that the store does not have yet, as ``enter_manifests`` takes them.

    Raises ``LabError`` for one that has the name of a sweep with other trials.
    """
    known = store.manifests()
    new = {}
    for name, manifest in sweeps.items():
        mine = _rows(store.manifest(name)) if name in known else None
        if mine == _rows(manifest):
            continue
        if mine is not None and name != _single_runs():
            raise LabError(
                f"sweep {name!r} of the archive has other trials than the one in {store.root}; "
                "import it under another name: --as NAME"
            )
        new[name] = manifest
    return new


def enter_manifests(store: RunStore, sweeps: Mapping[str, dict[str, Any]]) -> None:
    """Write ``sweeps``; single runs join those that are there."""
    for name, manifest in sweeps.items():
        if name == _single_runs():
            _join_single_runs(store, manifest)
        else:
            store.write_manifest(manifest)


def _rows(manifest: Mapping[str, Any]) -> set[tuple[str, str, int]]:
    return {(row["trial_id"], row["arm"], row["seed"]) for row in manifest["trials"]}


def _single_runs() -> str:
    from cegppo_lab.sweep.spec import SINGLE_RUNS  # brings torch

    return SINGLE_RUNS


def _join_single_runs(store: RunStore, incoming: dict[str, Any]) -> None:
    """Rows of both, the store's first; see ``cegppo_lab.sweep.single``."""
    from cegppo_lab.sweep.plan import describe_arms

    name = incoming["name"]
    with FileLock(store.root / f".{name}.lock"):
        known = store.manifest(name) if name in store.manifests() else {**incoming, "trials": []}
        mine = {row["trial_id"] for row in known["trials"]}
        rows = known["trials"] + [r for r in incoming["trials"] if r["trial_id"] not in mine]
        configs = {row["trial_id"]: store.run(row["trial_id"]).config() for row in rows}
        rows = [row for row in rows if configs[row["trial_id"]]]
        arms = describe_arms({row["arm"]: configs[row["trial_id"]] for row in rows})
        created = known.get("created", time.time())
        store.write_manifest({**known, "arms": arms, "trials": rows, "created": created})
