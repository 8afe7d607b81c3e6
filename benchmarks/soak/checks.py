"""Whether a sweep that was killed is equal to one that was not: store, mirror, what was left."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cegppo_lab.files import read_lines, sha256_of
from cegppo_lab.housekeeping.verify import verify
from cegppo_lab.metrics import is_volatile
from cegppo_lab.store import DONE, RunStore
from cegppo_lab.tracking.describe import PLANS_TAG, ROWS_TAG, TRIAL_TAG
from cegppo_lab.tracking.files import FILES_TAG, FOLDER, REPORT_TAG, TRIAL_FILES
from cegppo_lab.tracking.mirror import STORE_TAG
from tests.e2e.lab import processes_in

_OF_TIME_OR_PLACE = (ROWS_TAG, FILES_TAG, REPORT_TAG, STORE_TAG, "mlflow.parentRunId")
"""Tags that tell when or where a run was made; what they point to is checked by itself."""


def differences(folder: Path, database: Path, reference: Path) -> Iterator[str]:
    """Everything in which the sweep in ``folder``, mirrored to ``database``, is not as it should.

    ``reference`` is the folder of the undisturbed sweep; its mirror is ``mlflow.db`` in there.
    """
    store, whole = RunStore(folder / "runs"), RunStore(reference / "runs")
    yield from _unequal("trials", store.trial_ids(), whole.trial_ids())
    for trial_id in whole.trial_ids():
        rows = _rows(store, trial_id)
        yield from _unequal(f"numbers of {trial_id}", rows, _rows(whole, trial_id))
        yield from _unequal(f"state of {trial_id}", store.run(trial_id).status().state, DONE)
    yield from _unequal("mirror", _mirrored(database), _mirrored(reference / "mlflow.db"))
    yield from _stale_files(store, database)
    for finding in verify(store):
        yield f"verify: {finding.where}: {finding.told}"
    yield from (f"{trial_id} is locked" for trial_id in _locked(store))
    yield from (f"left behind: {path}" for path in store.root.rglob(".*.tmp"))
    yield from (f"still alive: {each}" for each in processes_in(folder))
    if "Traceback" in (folder / "log").read_text():
        yield f"a traceback in {folder}/log"


def _unequal(what: str, found: Any, expected: Any) -> Iterator[str]:
    # As text: it tells floats apart to the bit, and a NaN equals itself.
    if repr(found) != repr(expected):
        yield f"{what} differ from the undisturbed sweep's"


def _rows(store: RunStore, trial_id: str) -> dict[str, Any]:
    """All that the run measured, row by row in the order of the files; nothing of the machine."""
    run = store.run(trial_id)
    return {
        "steps": [
            (row["step"], sorted((k, v) for k, v in row["metrics"].items() if not is_volatile(k)))
            for row in read_lines(run.path / "steps.jsonl")
        ],
        "names": [sorted(row["metrics"]) for row in read_lines(run.path / "steps.jsonl")],
        "evals": [asdict(row) | {"time": 0} for row in run.evals()],
        "tokens": [asdict(row) for row in run.tokens()],
        "config": run.config(),
    }


def _mirrored(database: Path) -> dict[str, Any]:
    """By trial (and for the sweep itself): values, params, tags and status in the mirror."""
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        runs = {}
        query = "select run_uuid, name, status, lifecycle_stage from runs"
        for run_id, *state in connection.execute(query).fetchall():
            tags = _pairs(connection, "tags", run_id)
            key = tags.get(TRIAL_TAG, "sweep")
            assert key not in runs, f"two MLflow runs of {key}"
            runs[key] = {
                "state": state,
                "tags": sorted(i for i in tags.items() if i[0] not in _OF_TIME_OR_PLACE),
                "plans": tags.get(PLANS_TAG),
                "params": sorted(_pairs(connection, "params", run_id).items()),
                **_metrics(connection, run_id),
            }
    return dict(sorted(runs.items()))


def _pairs(connection: sqlite3.Connection, table: str, run_id: str) -> dict[str, str]:
    query = f"select key, value from {table} where run_uuid = ?"
    return dict(connection.execute(query, [run_id]).fetchall())


def _metrics(connection: sqlite3.Connection, run_id: str) -> dict[str, Any]:
    query = "select key, step, value, is_nan from metrics where run_uuid = ? order by key, step"
    rows = connection.execute(query, [run_id]).fetchall()
    counts = Counter((key, step) for key, step, *_ in rows)
    return {
        "values": [row for row in rows if not is_volatile(row[0])],
        "measured": sorted(counts),
        "repeated": [place for place, count in counts.items() if count > 1],
    }


def _stale_files(store: RunStore, database: Path) -> Iterator[str]:
    """Files of the trials that the mirror does not have as the store has them."""
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        runs = connection.execute("select run_uuid from runs").fetchall()
        tags = {run_id: _pairs(connection, "tags", run_id) for (run_id,) in runs}
    for run_id, told in tags.items():
        if not (trial_id := told.get(TRIAL_TAG)):
            continue
        entries = json.loads(told.get(FILES_TAG, "{}"))
        for name in TRIAL_FILES:
            file = store.run(trial_id).path / name
            if not file.exists():
                continue
            copies = list((database.parent / "mlartifacts").glob(f"**/{run_id}/**/{FOLDER}/{name}"))
            hashes = {sha256_of(path) for path in (file, *copies)} | {entries.get(name, [""])[-1]}
            if len(copies) != 1 or len(hashes) != 1:
                yield f"the mirror has another {name} of {trial_id}"


def _locked(store: RunStore) -> Iterator[str]:
    yield from (each for each in store.trial_ids() if store.run(each).locked())
    try:
        with FileLock(store.root / ".mirror.lock", timeout=0):
            return
    except Timeout:
        yield "the mirror"


def told(check: Callable[[], Iterator[str]]) -> list[str]:
    """What ``check`` finds; its own failure is a finding as well."""
    try:
        return list(check())
    except (AssertionError, OSError, sqlite3.Error) as error:
        return [f"the check itself failed: {error}"]
