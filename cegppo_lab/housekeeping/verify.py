"""Whether a store is whole: every file of every trial read and checked; nothing is changed."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cegppo_lab.errors import LabError
from cegppo_lab.files import read_json
from cegppo_lab.housekeeping.contents import (
    DRAFTS,
    FINAL_ROWS,
    ORIGIN,
    ROWS,
    drafts_below,
    require_store,
)
from cegppo_lab.housekeeping.manifests import manifest_flaw
from cegppo_lab.housekeeping.rows import Rows, read_rows
from cegppo_lab.store import (
    DONE,
    FAILED,
    PENDING,
    RUNNING,
    STOPPED,
    RunDir,
    RunStore,
    Status,
    checkpoints,
)
from cegppo_lab.trial import content_id

_STATES = (DONE, RUNNING, FAILED, STOPPED, PENDING)


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be. ``mend``: what to type.

    ``harmless``: what a kill leaves behind and the next run takes care of.
    """

    where: str
    told: str
    mend: str
    harmless: bool = False


def verify(store: RunStore) -> Iterator[Finding]:
    """Check manifests, trials and leftovers; reads every file of the store once."""
    require_store(store)
    known = set(store.trial_ids())
    yield from _manifest_findings(store, known)
    for trial_id in sorted(known):
        yield from _told(store, trial_id)
    yield from _stray_findings(store, known)


def trial_flaws(run: RunDir, trial_id: str) -> Iterator[tuple[str, bool]]:
    """What is wrong with a trial's files but its checkpoints, and whether it is harmless.

    ``run`` may be a copy under another name. Rows beyond ``status.step`` are in order: a resumed
    run counts up again from its checkpoint. Of a trial in training only what holds at any instant
    is checked.
    """
    busy = run.locked()
    try:
        config, status = run.config(), run.status()
        lists = [run.provenance(), read_json(run.path / ORIGIN, [])]
    except (LabError, TypeError) as error:
        yield f"a file cannot be read: {error}", False
        return
    if flaw := _json_flaw(config, status, lists):
        yield flaw, False
        return
    if content_id(config) != trial_id:
        yield f"config.json is of trial {content_id(config)}", False
    rows = {name: read_rows(run.path / name) for name in ("steps.jsonl", *ROWS, FINAL_ROWS)}
    for found in rows.values():
        if found.flaw:
            yield found.flaw, False
    whole = not any(found.flaw for found in rows.values())
    if whole and (flaw := next(_count_flaws(status, config, rows, busy), None)):
        yield flaw, False
    if busy:
        return
    for name, found in rows.items():
        if found.torn:
            yield f"{name} ends in a torn line, which readers drop and the next run cuts off", True
    if status.state == RUNNING:
        yield f"interrupted at step {status.step} of {status.steps}; its lock is free", True


def _json_flaw(config: Any, status: Status, lists: list[Any]) -> str | None:
    if not isinstance(config, dict):
        return "config.json is no configuration"
    if not all(type(number) is int for number in (status.step, status.steps)):
        return "status.json has steps that are no whole numbers"
    if status.state not in _STATES:
        return f"status.json has the unknown state {status.state!r}"
    if not isinstance(status.rule, dict):
        return "status.json has a stop rule that is no mapping"
    if not all(isinstance(each, list) and all(isinstance(e, dict) for e in each) for each in lists):
        return f"provenance.json or {ORIGIN} is no list of entries"
    return None


def _count_flaws(
    status: Status, config: dict[str, object], rows: dict[str, Rows], busy: bool
) -> Iterator[str]:
    """Numbers of rows that do not fit; what follows from the first is told as well."""
    count = len(rows["steps.jsonl"].keys)
    if count < status.step:
        yield f"status.json says step {status.step}, but steps.jsonl ends at {count}"
    trainer = config.get("trainer")
    asked = trainer.get("steps", status.steps) if isinstance(trainer, dict) else status.steps
    if status.steps not in (0, asked):
        yield f"status.json says {status.steps} steps, config.json {asked}"
    if status.state == DONE and (status.step != asked or count != asked):
        yield f"is done, but has {count} of {asked} steps"
    elif count > asked:
        yield f"has {count} steps, more than the {asked} asked for"
    # A step's own row is written last, so that the others are at most one step ahead of it.
    for name in ("evals.jsonl", "tokens.jsonl"):
        if not busy and rows[name].last_step > count + 1:
            yield f"{name} has step {rows[name].last_step}, steps.jsonl ends at {count}"


def _told(store: RunStore, trial_id: str) -> Iterator[Finding]:
    run = store.run(trial_id)
    away = _move_away(run.path, "run its sweep again")
    for told, harmless in trial_flaws(run, trial_id):
        mend = "run its sweep again: it goes on from there" if harmless else away
        yield Finding(trial_id, told, mend, harmless)
    for checkpoint in checkpoints.found(run.checkpoints):
        flaw = checkpoints.flaw(checkpoint)
        if flaw and checkpoint.exists():  # a trainer drops its old ones meanwhile
            mend = f"rm -r {shlex.quote(str(checkpoint))}"
            yield Finding(f"{trial_id} {checkpoint.name}", flaw, mend)
    for damaged in checkpoints.set_aside(run.checkpoints):
        told = "was set aside by training, which went on from the one before"
        yield Finding(f"{trial_id} {damaged.name}", told, _gc(store), harmless=True)
    if not run.locked():
        yield from _drafts(store, drafts_below(run.path))


def _drafts(store: RunStore, drafts: list[Path]) -> Iterator[Finding]:
    for draft in drafts:
        where = str(draft.relative_to(store.root))
        yield Finding(where, "was never finished", _gc(store), harmless=True)


def _gc(store: RunStore) -> str:
    return f"python -m cegppo_lab gc --store {shlex.quote(str(store.root))} --yes"


def _move_away(path: Path, then: str) -> str:
    """How to take ``path`` out of the store's sight without losing it."""
    away = path.with_name(f"_broken_{path.name}")
    return f"mv {shlex.quote(str(path))} {shlex.quote(str(away))}; then {then}"


def _manifest_findings(store: RunStore, known: set[str]) -> Iterator[Finding]:
    folder = store.root / "_sweeps"
    for name in store.manifests():
        path = folder / f"{name}.json"
        try:
            manifest = store.manifest(name)
        except LabError:
            manifest = None
        if flaw := manifest_flaw(manifest, name):
            out = shlex.quote(str(path))
            mend = f"mv {out} {shlex.quote(f'{path}.broken')}; then run the sweep again"
            yield Finding(f"sweep {name}", flaw, mend)
            continue
        ids = {row["trial_id"] for row in manifest["trials"]}
        if missing := ids - known:
            told = f"{len(missing)} of {len(ids)} trials have no folder: {sorted(missing)[0]}, ..."
            yield Finding(f"sweep {name}", told, "run the sweep again to train them", True)
    yield from _drafts(store, drafts_below(folder))


def _stray_findings(store: RunStore, known: set[str]) -> Iterator[Finding]:
    for path in sorted(store.root.iterdir()):
        if path.name in known or not path.is_dir() or path.name.startswith((".", "_")):
            continue
        if any((path / name).exists() for name in (*ROWS, "status.json")):
            told = "has rows or a status, but no config.json"
            yield Finding(path.name, told, _move_away(path, "run its sweep again"))
        else:
            mend = f"rm -r {shlex.quote(str(path))}, unless it is yours"
            yield Finding(path.name, "is a folder without a trial in it", mend, harmless=True)
    left = store.root / DRAFTS
    yield from _drafts(store, sorted(left.iterdir()) if left.is_dir() else [])
    yield from _drafts(store, drafts_below(store.evaluations))
