"""Runs packed for another machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cegppo_lab.errors import LabError, unknown
from cegppo_lab.files import replaced
from cegppo_lab.housekeeping.archive import SWEEPS, Packer, check_name, packing
from cegppo_lab.housekeeping.contents import files_below, held, is_lock, require_store, whole_lines
from cegppo_lab.housekeeping.verify import trial_flaws
from cegppo_lab.store import RunDir, RunStore

_HEAVY = ("checkpoints", "verl")
_SNAPSHOT = ("status.json", "steps.jsonl")
"""Read first: what else a step writes is there before its row, and the row before the status."""


@dataclass
class Exported:
    """What an archive holds. ``bytes``: of its files; ``left_out``: trial -> why."""

    sweeps: list[str]
    trials: list[str] = field(default_factory=list)
    bytes: int = 0
    left_out: dict[str, str] = field(default_factory=dict)
    in_training: list[str] = field(default_factory=list)
    """Trials that went as they stood, without checkpoints."""


def export(
    store: RunStore, archive: Path, names: Sequence[str] = (), *, checkpoints: bool = False
) -> Exported:
    """Pack the sweeps and trials ``names``, or the whole store, into the new file ``archive``.

    A trial is named by its id or the start of it; a sweep brings its trials. ``checkpoints``: also
    what resuming and evaluating need: checkpoints and verl's own files. Trials that ``verify``
    finds broken stay out. Final evaluations' responses (``_evaluations/``) do not travel, their
    verdicts do. Raises ``LabError`` for unknown names and an archive that cannot be written.
    """
    require_store(store)
    check_name(archive)
    if archive.exists():
        raise LabError(f"{archive} exists; choose another name, or delete it first")
    sweeps, trials = _chosen(store, names)
    done = Exported(sorted(sweeps))
    try:
        with replaced(archive) as draft, packing(draft, archive.name) as packer:
            # Sorted by path: "_sweeps" comes in between the trials' ids.
            for name in sorted([*trials, *([SWEEPS] if sweeps else [])]):
                if name == SWEEPS:
                    _pack_sweeps(store, sweeps, packer)
                elif flaw := _flaw(store.run(name)):
                    done.left_out[name] = flaw
                else:
                    _pack_trial(store.run(name), packer, checkpoints, done)
            done.bytes = packer.finish()
    except OSError as error:
        raise LabError(f"cannot write {archive}: {error.strerror or error}") from None
    return done


def _chosen(store: RunStore, names: Sequence[str]) -> tuple[set[str], set[str]]:
    """The sweeps and the trials that ``names`` stand for; everything for none."""
    manifests, ids = store.manifests(), store.trial_ids()
    if not names:
        return set(manifests), set(ids)
    sweeps = {name for name in names if name in manifests}
    rows = [row for name in sweeps for row in store.manifest(name)["trials"]]
    trials = {row["trial_id"] for row in rows} & set(ids)
    return sweeps, trials.union(*(_trials(name, ids, manifests) for name in set(names) - sweeps))


def _trials(start: str, ids: Sequence[str], manifests: Iterable[str]) -> set[str]:
    found = {trial_id for trial_id in ids if trial_id.startswith(start)}
    if not found:
        raise unknown("sweep, or start of a trial's id,", start, manifests)
    if len(found) > 1:
        raise LabError(f"{len(found)} trials begin with {start!r}; give more of the id")
    return found


def _flaw(run: RunDir) -> str | None:
    return next((told for told, harmless in trial_flaws(run, run.trial_id) if not harmless), None)


def _pack_sweeps(store: RunStore, sweeps: set[str], packer: Packer) -> None:
    paths = {f"{SWEEPS}/{name}.json": store.root / SWEEPS / f"{name}.json" for name in sweeps}
    for name, path in sorted(paths.items()):
        packer.add_file(name, path)


def _pack_trial(run: RunDir, packer: Packer, checkpoints: bool, done: Exported) -> None:
    with held(run) as quiet:
        files = dict(_files(run, checkpoints and quiet))
        light = {name: path for name, path in files.items() if "/" not in name}
        order = [*(name for name in _SNAPSHOT if name in light), *light]
        content = {name: _content(light[name]) for name in dict.fromkeys(order)}
        for name, path in sorted(files.items()):
            if name in content:
                mtime = path.stat().st_mtime
                packer.add_bytes(f"{run.trial_id}/{name}", content[name], mtime)
            else:
                packer.add_file(f"{run.trial_id}/{name}", path)
    done.trials.append(run.trial_id)
    if not quiet:
        done.in_training.append(run.trial_id)


def _content(path: Path) -> bytes:
    return whole_lines(path) if path.suffix == ".jsonl" else path.read_bytes()


def _files(run: RunDir, heavy: bool) -> Iterator[tuple[str, Path]]:
    """The trial's files by name; neither locks nor drafts nor anything hidden."""
    for path, _ in files_below(run.path):
        parts = path.relative_to(run.path).parts
        plain = not any(part.startswith(".") for part in parts) and not is_lock(path.name)
        if plain and (heavy or parts[0] not in _HEAVY):
            yield "/".join(parts), path
