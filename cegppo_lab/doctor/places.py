"""Checks of what runs read from and write to: MLflow, weights, disks."""

from __future__ import annotations

import shutil
from pathlib import Path

from cegppo_lab.doctor.finding import MISSING, OK, WARN, Finding
from cegppo_lab.errors import LabError
from cegppo_lab.models import check_model, is_hub_id, located
from cegppo_lab.sweep.plan import check_writable
from cegppo_lab.tasks import Task
from cegppo_lab.tracking.connection import SERVERS, check_uri, connect, database_file, redact

_GB = 1e9
_FULL_GB = 1.0
"""Below so much free disk nothing runs for long."""


def check_mlflow(uri: str) -> Finding:
    """Whether the tracking URI answers. A database that is not there yet is not made."""
    try:
        scheme = check_uri(uri)
        if (file := database_file(uri)) is not None and not file.exists():
            check_writable(str(file.parent))
            return Finding("mlflow", OK, f"{redact(uri)}: the first sweep makes it")
        with connect(uri) as client:
            client.search_experiments(max_results=1)
    except LabError as error:
        mend = "--mlflow URI, or MLFLOW_TRACKING_URI=URI"
        if uri.startswith(SERVERS):
            mend = f"start that server, or: {mend}"
        return Finding("mlflow", MISSING, str(error).split("; the run store")[0], mend)
    return Finding("mlflow", OK, f"{redact(uri)} answers ({scheme})")


def check_weights(path: str) -> Finding:
    """Whether the model is on this machine, or else known to a hub that answers."""
    try:
        return Finding("model", OK, f"{path} is in {located(path)}")
    except LabError:
        fetch = f"hf download {path}"
    try:
        check_model(path)
    except LabError as error:
        mend = f"where there is a network: {fetch} --local-dir FOLDER; then model.path=FOLDER"
        return Finding("model", MISSING, str(error), mend if is_hub_id(path) else "model.path=...")
    return Finding("model", WARN, f"{path} is on the hub, not yet on this machine", fetch)


def check_data(task: Task) -> Finding:
    """Whether the task's problems can be read; a hub data set is fetched for it."""
    try:
        count = len(task.heldout())
    except LabError as error:
        return Finding("data", MISSING, str(error), "task.path=FILE")
    return Finding("data", OK, f"{task.name}: {count} held-out problems")


def check_disk(name: str, folder: str, needed_gb: float) -> Finding:
    """Free disk where ``folder`` is or will be."""
    there = next(path for path in (Path(folder).absolute() / "x").parents if path.exists())
    free = shutil.disk_usage(there).free / _GB
    told = f"{free:.0f} GB free at {there}"
    if free >= needed_gb:
        return Finding(name, OK, told)
    state = MISSING if free < _FULL_GB else WARN
    return Finding(name, state, f"{told} (needed: {needed_gb:g} GB)", "free some, or name another")
