"""What no sweep needs: found, told and, when asked to, deleted."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cegppo_lab.errors import LabError
from cegppo_lab.housekeeping.contents import (
    DRAFTS,
    alone,
    drafts_below,
    held,
    require_store,
    size_of,
)
from cegppo_lab.housekeeping.manifests import manifest_flaw
from cegppo_lab.store import DONE, STOPPED, RunDir, RunStore, checkpoints

DRAFT_AGE_S = 3600.0
"""A younger draft that no lock guards may still be written by somebody."""
UNNAMED = "trial that no sweep names"
OLD = "checkpoint of a finished trial, older than its newest"
LAST = "last checkpoint of a finished trial"
ASIDE = "damaged checkpoint that training set aside"
LEFTOVER = "draft that was never finished"


@dataclass(frozen=True)
class Waste:
    """Something to delete, ``path``, and the bytes that it takes."""

    path: Path
    why: str
    bytes: int


def find_waste(store: RunStore, *, last_checkpoints: bool = False) -> Iterator[Waste]:
    """What ``collect`` would delete now. Reads only. Trials that are in training have none.

    Raises ``LabError`` when a manifest cannot be read: then nobody knows what is needed.
    """
    require_store(store)
    needed = _Needed(store)
    for run in _trials(store):
        if not run.locked():
            yield from _trial_waste(run, needed, last_checkpoints)
    yield from _loose_drafts(store)
    yield from _left_in_drafts(store)


def collect(store: RunStore, *, last_checkpoints: bool = False) -> Iterator[Waste]:
    """Delete what no sweep needs, and yield what was deleted.

    ``last_checkpoints``: finished trials' last ones too. A trial's lock is held meanwhile; one that
    is in training is left alone. A kill leaves the store valid. Raises ``LabError`` as
    ``find_waste`` does, and when another ``gc`` or ``import`` is at work.
    """
    require_store(store)
    needed, left = _Needed(store), _left_in_drafts(store)
    with alone(store) as bin_:  # which empties the folder of drafts
        yield from left
        for run in _trials(store):
            if not any(_trial_waste(run, needed, last_checkpoints)):
                continue
            with held(run) as free:
                # Looked at again: it may have been finished, or named, before it was ours.
                found = list(_trial_waste(run, needed, last_checkpoints)) if free else []
                for waste in found:
                    _discard(waste.path, bin_)
                    yield waste
        for waste in list(_loose_drafts(store)):
            _discard(waste.path, bin_)
            yield waste


def _trials(store: RunStore) -> Iterator[RunDir]:
    for trial_id in store.trial_ids():
        yield store.run(trial_id)


class _Needed:
    """The trials that manifests name; read again when one has changed."""

    def __init__(self, store: RunStore) -> None:
        self._store, self._read_at = store, None
        self._ids: set[str] = set()

    def __contains__(self, trial_id: str) -> bool:
        files = sorted((self._store.root / "_sweeps").rglob("*.json"))
        now = [(path, path.stat().st_mtime_ns, path.stat().st_size) for path in files]
        if now != self._read_at:
            self._ids = set(self._named())
            self._read_at = now
        return trial_id in self._ids

    def _named(self) -> Iterator[str]:
        for name in self._store.manifests():
            manifest = self._store.manifest(name)
            if flaw := manifest_flaw(manifest, name):
                raise LabError(f"sweep {name!r}: {flaw}; type: python -m cegppo_lab verify")
            yield from (row["trial_id"] for row in manifest["trials"])


def _trial_waste(run: RunDir, needed: _Needed, last_checkpoints: bool) -> Iterator[Waste]:
    if run.trial_id not in needed:
        yield Waste(run.path, UNNAMED, size_of(run.path))
        return
    for draft in drafts_below(run.path):
        # All but this one are written by the holder of the trial's lock.
        if not draft.name.startswith(".config.json.") or _is_old(draft):
            yield Waste(draft, LEFTOVER, size_of(draft))
    for damaged in checkpoints.set_aside(run.checkpoints):
        yield Waste(damaged, ASIDE, size_of(damaged))
    if _is_finished(run):
        found = checkpoints.found(run.checkpoints)
        for old in found[:-1]:
            yield Waste(old, OLD, size_of(old))
        if last_checkpoints and found:
            yield Waste(found[-1], LAST, size_of(found[-1]))


def _is_finished(run: RunDir) -> bool:
    try:
        return run.status().state in (DONE, STOPPED)
    except (LabError, TypeError):  # for verify to tell
        return False


def _loose_drafts(store: RunStore) -> Iterator[Waste]:
    """Leftovers outside the trials, old enough to be nobody's."""
    for folder in (store.root / "_sweeps", store.evaluations):
        for draft in drafts_below(folder):
            if _is_old(draft):
                yield Waste(draft, LEFTOVER, size_of(draft))


def _left_in_drafts(store: RunStore) -> list[Waste]:
    folder = store.root / DRAFTS
    left = sorted(folder.iterdir()) if folder.is_dir() else []
    return [Waste(path, LEFTOVER, size_of(path)) for path in left]


def _is_old(draft: Path) -> bool:
    try:
        return time.time() - draft.lstat().st_mtime > DRAFT_AGE_S
    except FileNotFoundError:  # it was finished meanwhile
        return False


def _discard(path: Path, bin_: Path) -> None:
    """Delete ``path``, out of sight first: a kill in between leaves nothing that is half there."""
    doomed = bin_ / f"{path.name.lstrip('.')}.{os.getpid()}"
    if path.is_dir() and not path.is_symlink():
        os.rename(path, doomed)
        shutil.rmtree(doomed)
    else:
        path.unlink(missing_ok=True)
