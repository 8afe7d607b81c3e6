"""Runs that come in from an archive: all is checked before anything enters, trial by trial.

A trial is unpacked beside the store's trials and enters by one rename, or completes the one that is
there (see ``merge.py``). What it was, and all hashes of its data, stay: where it came from is told
in a file of its own, ``origin.json``, one entry an import ``{"archive", "archive_sha256", "host",
"imported"}``, since ``provenance.json`` has an entry per attempt at training.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import IO, Any

from cegppo_lab.errors import LabError
from cegppo_lab.files import sha256_of
from cegppo_lab.housekeeping.archive import Listing, check_archive, read_again
from cegppo_lab.housekeeping.contents import ORIGIN, alone
from cegppo_lab.housekeeping.manifests import enter_manifests, new_manifests, renamed
from cegppo_lab.housekeeping.merge import NEW, REFUSED, SAME, Arrival, add_origins, merge
from cegppo_lab.housekeeping.verify import trial_flaws
from cegppo_lab.store import RunDir, RunStore, checkpoints

_Files = Iterable[tuple[str, Path, IO[bytes], float]]


def import_archive(store: RunStore, archive: Path, as_name: str | None = None) -> Iterator[Arrival]:
    """Bring the trials and sweeps of ``archive`` into the store; yields how each trial fared.

    Nothing that is there is overwritten: an equal trial is skipped, one whose rows the archive's
    go on from is completed, any other is refused and left as it is. ``as_name``: the name for the
    archive's sweep. Raises ``LabError`` before anything is written for a bad archive and for a
    sweep whose name is taken by another; and when the store cannot be written. What has entered by
    then is whole, and the same call goes on from there; so it does after a kill.
    """
    listing = check_archive(archive)
    sweeps = new_manifests(store, renamed(listing.sweeps, as_name))
    origin = {
        "archive": archive.name,
        "archive_sha256": listing.sha256,
        "host": listing.host,
        "imported": time.time(),
    }
    with alone(store) as drafts:
        _check_space(store, listing, archive)
        for trial_id, files in groupby(read_again(archive, listing), key=lambda file: file[0]):
            yield _arrive(store, trial_id, files, listing, origin, drafts)
        enter_manifests(store, sweeps)


def _check_space(store: RunStore, listing: Listing, archive: Path) -> None:
    needed, free = 0, shutil.disk_usage(store.root).free
    for name, entry in listing.files.items():
        needed += 0 if (store.root / name).exists() else entry["bytes"]
    if needed > free:
        raise LabError(
            f"{archive} needs {needed:,} bytes, and {store.root} has {free:,} left; make room"
        )


def _arrive(
    store: RunStore,
    trial_id: str,
    files: _Files,
    listing: Listing,
    origin: dict[str, Any],
    drafts: Path,
) -> Arrival:
    if _is_there(store, trial_id, listing):
        return Arrival(trial_id, SAME)
    copy = RunDir(drafts / trial_id)
    try:
        _unpack(files, copy.path)
        if flaw := _flaw(copy, trial_id):
            return Arrival(trial_id, REFUSED, f"is broken in the archive: {flaw}")
        if not store.run(trial_id).path.exists():
            add_origins(copy, [origin])
            if _moved(copy.path, store.run(trial_id).path):
                return Arrival(trial_id, NEW)
        return _merged(store, copy, origin, drafts)
    finally:
        shutil.rmtree(copy.path, ignore_errors=True)


def _merged(store: RunStore, copy: RunDir, origin: dict[str, Any], drafts: Path) -> Arrival:
    try:
        return merge(store, copy, origin, drafts)
    except (LabError, TypeError) as error:  # what is here cannot be read
        return Arrival(copy.trial_id, REFUSED, str(error))


def _is_there(store: RunStore, trial_id: str, listing: Listing) -> bool:
    """Whether the store has every file of the trial as the archive has it."""
    start = f"{trial_id}/"
    mine = {name: entry for name, entry in listing.files.items() if name.startswith(start)}
    return all(
        (store.root / name).is_file() and sha256_of(store.root / name) == entry["sha256"]
        for name, entry in mine.items()
        if name != f"{trial_id}/{ORIGIN}"
    )


def _unpack(files: _Files, folder: Path) -> None:
    """Write the files below ``folder``, durably, with their times of change."""
    for _, inner, content, mtime in files:
        path = folder / inner
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "xb") as file:
            shutil.copyfileobj(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.utime(path, (mtime, mtime))


def _flaw(copy: RunDir, trial_id: str) -> str | None:
    try:
        told = next((told for told, harmless in trial_flaws(copy, trial_id) if not harmless), None)
    except RecursionError:
        told = "a file is nested too deeply"
    if told:
        return told
    for checkpoint in checkpoints.found(copy.checkpoints):
        if told := checkpoints.flaw(checkpoint):
            return f"{checkpoint.name}: {told}"
    return None


def _moved(copy: Path, final: Path) -> bool:
    """Whether ``copy`` became ``final``; False when somebody else made it first."""
    try:
        os.rename(copy, final)
    except OSError:
        if final.exists():
            return False
        raise
    return True
