"""Files of the run store as MLflow artifacts: what params and metrics cannot carry.

A child run has its trial's files under ``store/``, the parent run the sweep's manifest, and its
report under ``report/``. A tag on the run says which files it has and what is in them, and is
written after them: a kill in between makes the next pass upload them again.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cegppo_lab.files import sha256_of
from cegppo_lab.store import RunDir

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

TRIAL_FILES = (
    *("config.json", "provenance.json", "status.json"),
    *("evals.jsonl", "evaluations.jsonl", "tokens.jsonl"),
)
MANIFEST_FILE = "manifest.json"
FOLDER = "store"
"""Where the files lie among a run's artifacts."""
FILES_TAG = "store_files"
"""JSON: by file name ``[bytes, time of change (ns), sha256]``; a manifest's time is 0."""
REPORT_TAG = "report_sha256"


def log_trial_files(client: MlflowClient, run: Run, trial: RunDir) -> int:
    """Upload those of ``TRIAL_FILES`` that the run has not as they are now; how many.

    None while some process trains the trial: it is writing them. A file whose size and time are
    those of the tag is not read.
    """
    known = logged_files(run)
    found = {name: stamp for name in TRIAL_FILES if (stamp := _stamp(trial.path / name))}
    if {name: entry[:2] for name, entry in known.items()} == found or trial.locked():
        return 0
    entries, uploaded = {}, 0
    for name, stamp in found.items():
        entries[name] = [*stamp, sha256_of(trial.path / name)]
        if known.get(name, [0, 0, ""])[2] != entries[name][2]:
            client.log_artifact(run.info.run_id, str(trial.path / name), FOLDER)
            uploaded += 1
    client.set_tag(run.info.run_id, FILES_TAG, json.dumps(entries))
    return uploaded


def log_manifest(client: MlflowClient, parent: Run, manifest: dict[str, Any]) -> int:
    """Upload the sweep's manifest if the parent has another or none; how many files that was."""
    text = json.dumps(manifest, sort_keys=True)
    entry = [len(text), 0, hashlib.sha256(text.encode()).hexdigest()]
    if logged_files(parent).get(MANIFEST_FILE) == entry:
        return 0
    client.log_text(parent.info.run_id, text, f"{FOLDER}/{MANIFEST_FILE}")
    client.set_tag(parent.info.run_id, FILES_TAG, json.dumps({MANIFEST_FILE: entry}))
    return 1


def log_report(client: MlflowClient, parent: Run, folder: Path) -> None:
    """Upload the files of ``folder`` under ``report/`` if any of them has changed."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    if parent.data.tags.get(REPORT_TAG) != digest.hexdigest():
        client.log_artifacts(parent.info.run_id, str(folder), "report")
        client.set_tag(parent.info.run_id, REPORT_TAG, digest.hexdigest())


def logged_files(run: Run) -> dict[str, list[Any]]:
    """The files of the store that an MLflow run has, by name: see ``FILES_TAG``."""
    return json.loads(run.data.tags.get(FILES_TAG, "{}"))


def _stamp(path: Path) -> list[int]:
    """Size and time of last change; empty where there is no such file."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return []
    return [stat.st_size, stat.st_mtime_ns]
