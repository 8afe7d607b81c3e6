"""All trials of a place on disk."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock

from cegppo_lab.errors import LabError
from cegppo_lab.files import AppendLog, read_json, write_json
from cegppo_lab.store.records import FinalRecord
from cegppo_lab.store.run import RunDir, RunWriter

SWEEP_NAME = r"\w[\w.-]*(/\w[\w.-]*)?"
"""What a sweep may be called; a slash is a folder below that of the manifests."""


class RunStore:
    """All trials of a place on disk, and the manifests of the sweeps that asked for them."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def run(self, trial_id: str) -> RunDir:
        """The trial's folder for reading; it need not exist yet."""
        return RunDir(self.root / trial_id)

    def writer(self, trial_id: str, config: dict[str, Any]) -> RunWriter:
        """The trial's folder for the one process that trains it."""
        self.enter(trial_id, config)
        return RunWriter(self.root / trial_id)

    def enter(self, trial_id: str, config: dict[str, Any]) -> None:
        """Give the trial a folder with its configuration, unless it has one."""
        path = self.root / trial_id / "config.json"
        if not path.exists():
            write_json(path, config)

    def add_evaluation(self, trial_id: str, record: FinalRecord) -> None:
        """Append a final evaluation to the trial, unless it is there with as many samples."""
        folder = self.root / trial_id
        with FileLock(folder / "evaluations.lock"):  # not the trial's own: it may be in training
            log = AppendLog(
                folder / "evaluations.jsonl",
                lambda row: (row["step"], row["benchmark"], row["evaluation"], len(row["problem"])),
            )
            log.append(asdict(record))
            log.close()

    @property
    def evaluations(self) -> Path:
        """The folder of the final evaluations."""
        return self.root / "_evaluations"

    def trial_ids(self) -> list[str]:
        """The trials that have a folder, sorted."""
        return sorted(path.parent.name for path in self.root.glob("[!_]*/config.json"))

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        """Record what a sweep asks for, under its name (see ``Plan.manifest`` for the keys)."""
        write_json(self._manifest_path(manifest["name"]), manifest)

    def manifest(self, name: str) -> dict[str, Any]:
        """The manifest of a sweep that was started in this store; ``LabError`` if none was."""
        found = read_json(self._manifest_path(name))
        if found is None:
            names = ", ".join(self.manifests()) or "none yet"
            raise LabError(
                f"no sweep {name!r} was run in {self.root} (there: {names}); "
                f"type: python -m cegppo_lab sweep {name}"
            )
        return found

    def _manifest_path(self, name: str) -> Path:
        return self.root / "_sweeps" / f"{name}.json"

    def manifests(self) -> list[str]:
        """The names of the sweeps that were started in this store."""
        folder = self.root / "_sweeps"
        return sorted(str(f.relative_to(folder).with_suffix("")) for f in folder.rglob("*.json"))
