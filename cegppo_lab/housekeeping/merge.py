"""A trial that comes in, laid over the one that is there: completed, or left as it is.

Rows are only ever appended, in the order in which training writes them, and the status comes last:
a kill at any instant leaves a trial that is merely interrupted, and the same merge completes it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from cegppo_lab.files import read_json, write_json
from cegppo_lab.housekeeping.contents import FINAL_ROWS, ORIGIN, ROWS, held, whole_lines
from cegppo_lab.store import DONE, STOPPED, RunDir, RunStore

NEW, COMPLETED, SAME, BEHIND, REFUSED = "new", "completed", "same", "behind", "refused"
"""``behind``: the archive has less than the store."""
_END = 1 << 62
"""Beyond every step."""
_OURS, _BOTH, _THEIRS, _NEITHER = "ours", "both", "theirs", "neither"


@dataclass(frozen=True)
class Arrival:
    """How one trial of an archive fared. ``told``: why, where it is not obvious."""

    trial_id: str
    outcome: str
    told: str = ""


def merge(store: RunStore, copy: RunDir, origin: dict[str, Any], bin_: Path) -> Arrival:
    """Complete the store's trial from ``copy``, which is moved from; or say why not.

    Raises ``LabError`` or ``TypeError`` where the store's own status cannot be read.
    ``origin``: the entry of ``origin.json``; ``bin_``: an empty folder for what is replaced.
    """
    trial_id = copy.trial_id
    store.enter(trial_id, copy.config())
    run = store.run(trial_id)
    with held(run) as free:
        if not free:
            told = "is in training here; wait or stop it, and import again"
            return Arrival(trial_id, REFUSED, told)
        longer = _longer(run.path, copy.path)
        if longer == _NEITHER:
            told = f"was trained otherwise here; to have theirs: mv {run.path} {_aside(run.path)}"
            return Arrival(trial_id, REFUSED, told)
        before = _count(run)
        changed = _add_final_rows(store, run, copy)
        if longer != _OURS:
            changed |= _take(run, copy, longer == _THEIRS, bin_)
        if changed:
            add_origins(run, [*origins(copy), origin])
    if not changed:
        return Arrival(trial_id, BEHIND if longer == _OURS else SAME)
    return Arrival(trial_id, COMPLETED, f"steps {before} to {_count(run)}")


def _count(run: RunDir) -> int:
    return whole_lines(run.path / "steps.jsonl").count(b"\n")


def origins(run: RunDir) -> list[dict[str, Any]]:
    """Where the trial's files came from: one entry an import, oldest first."""
    return read_json(run.path / ORIGIN, [])


def add_origins(run: RunDir, entries: list[dict[str, Any]]) -> None:
    """Record more places that the trial's files came from, each once."""
    known = origins(run)
    write_json(run.path / ORIGIN, [*known, *(each for each in entries if each not in known)])


def _aside(path: Path) -> Path:
    return path.with_name(f"_ours_{path.name}")


def _longer(ours: Path, theirs: Path) -> str:
    """Whose rows go on from the other's: one word for all files, which must agree."""
    found = {_longer_file(whole_lines(ours / n), whole_lines(theirs / n)) for n in ROWS} - {_BOTH}
    if len(found) > 1:
        return _NEITHER
    return found.pop() if found else _BOTH


def _longer_file(ours: bytes, theirs: bytes) -> str:
    if ours == theirs:
        return _BOTH
    if theirs.startswith(ours):
        return _THEIRS
    return _OURS if ours.startswith(theirs) else _NEITHER


def _add_final_rows(store: RunStore, run: RunDir, copy: RunDir) -> bool:
    """Verdicts of final evaluations belong to no order: those that are not there are added."""
    before = whole_lines(run.path / FINAL_ROWS)
    for record in copy.evaluations():
        store.add_evaluation(run.trial_id, record)
    return whole_lines(run.path / FINAL_ROWS) != before


def _take(run: RunDir, copy: RunDir, rows: bool, bin_: Path) -> bool:
    """Rows, checkpoints, then what tells of them; whether anything was missing."""
    if rows:
        _append(run, copy)
    status, theirs = run.status(), copy.status()
    finishes = theirs.state in (DONE, STOPPED) and status.state not in (DONE, STOPPED)
    changed = _take_checkpoints(run, copy, bin_) | rows | finishes
    known = {*ROWS, FINAL_ROWS, ORIGIN, "config.json", "status.json", "provenance.json"}
    for path in sorted(copy.path.iterdir()):
        if path.is_file() and path.name not in known and not (run.path / path.name).exists():
            os.rename(path, run.path / path.name)
            changed = True
    if rows or finishes:
        attempts = _united(run.provenance(), copy.provenance())
        write_json(run.path / "provenance.json", attempts)
        os.replace(copy.path / "status.json", run.path / "status.json")
    return changed


def _append(run: RunDir, copy: RunDir) -> None:
    """Bring the run's rows to the copy's, step by step as training does; see ``RunWriter.append``.

    Whole lines of the run are the beginning of the copy's.
    """
    missing = {name: _missing(run.path / name, copy.path / name) for name in ROWS}
    *before, (_, steps) = missing.items()
    with ExitStack() as stack:
        files = {name: stack.enter_context(open(run.path / name, "ab")) for name in ROWS}
        for name, file in files.items():
            file.truncate(len(whole_lines(run.path / name)))  # cuts a torn line off
        for step, line in [*steps, (_END, b"")]:
            for name, rows in before:
                while rows and rows[0][0] <= step:
                    _write(files[name], rows.popleft()[1])
            _write(files["steps.jsonl"], line)
        for file in files.values():
            os.fsync(file.fileno())


def _missing(ours: Path, theirs: Path) -> deque[tuple[int, bytes]]:
    """The rows that ``ours`` lacks: (step, line)."""
    lines = whole_lines(theirs)[len(whole_lines(ours)) :].splitlines(keepends=True)
    return deque((json.loads(line)["step"], line) for line in lines)


def _write(file: IO[bytes], line: bytes) -> None:
    file.write(line)
    file.flush()


def _united(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]) -> list[Any]:
    """The attempts of both, each once, oldest first."""
    more = [entry for entry in ours if entry not in theirs]
    return sorted([*theirs, *more], key=lambda entry: entry.get("started", 0.0))


def _take_checkpoints(run: RunDir, copy: RunDir, bin_: Path) -> bool:
    """Move over the checkpoints that are missing, and verl's own files as a whole."""
    changed = False
    if copy.checkpoints.is_dir():
        run.checkpoints.mkdir(exist_ok=True)
        for path in sorted(copy.checkpoints.iterdir(), key=lambda each: each.is_file()):
            there = run.checkpoints / path.name
            if path.is_file() or not there.exists():  # verl's pointer follows the folders
                changed |= not there.exists() or there.read_bytes() != path.read_bytes()
                os.replace(path, there)
    if changed and (copy.path / "verl").is_dir():
        if (run.path / "verl").exists():
            os.rename(run.path / "verl", bin_ / f"{run.trial_id}.verl")
        os.rename(copy.path / "verl", run.path / "verl")
        shutil.rmtree(bin_ / f"{run.trial_id}.verl", ignore_errors=True)
    return changed
