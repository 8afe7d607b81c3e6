"""Bringing one MLflow experiment to the state of one sweep in the run store, any number of times.

What is written never depends on what this process remembers. A child run is found again by its
``trial_id`` tag, and carries a tag that says how many rows of each of the trial's files it holds;
the tag is written after its rows. A kill in between makes the next pass write some rows again, with
the time the store has for them, which MLflow's databases take as the same value (their primary key
is key, timestamp, step, run, value, is_nan).
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from cegppo_lab.errors import LabError
from cegppo_lab.store import RunStore
from cegppo_lab.tracking.connection import connect, reason, redact
from cegppo_lab.tracking.describe import (
    PLANS_TAG,
    ROWS_TAG,
    SWEEP_TAG,
    TRIAL_TAG,
    Row,
    Wanted,
    continues,
    describe_sweep,
    describe_trial,
    mirrored_rows,
    streams,
)
from cegppo_lab.tracking.experiment import all_runs, find_experiment
from cegppo_lab.tracking.files import log_manifest, log_report, log_trial_files

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

METRICS_LIMIT, PARAMS_LIMIT = 1000, 100
"""How much MLflow takes in one call."""
LOCK_TIMEOUT_S = 10.0
STORE_TAG = "run_store"


@dataclass(frozen=True)
class MirrorReport:
    """What one pass did to one sweep's experiment.

    ``created``, ``updated``, ``unchanged`` count child runs; ``steps`` counts the training-step
    rows written; ``files`` the files of the store uploaded; ``foreign`` names the trials that
    another run store mirrors into the experiment.
    """

    name: str
    uri: str
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    steps: int = 0
    files: int = 0
    foreign: tuple[str, ...] = ()


def sync(
    store: RunStore, names: Sequence[str] | None, uri: str, *, reports: Path | None = None
) -> list[MirrorReport]:
    """Mirror the named sweeps (None: all of the store). ``reports`` holds a folder per sweep.

    Raises ``LabError`` for an unknown sweep and where MLflow cannot be reached or written to.
    """
    return [
        mirror_sweep(store, name, uri, artifacts=reports / name if reports else None)
        for name in (store.manifests() if names is None else names)
    ]


def mirror_sweep(
    store: RunStore, name: str, uri: str, *, artifacts: Path | None = None
) -> MirrorReport:
    """Make the MLflow experiment ``name`` show what the store holds.

    One parent run for the sweep, one child for each of its trials that has a folder. The manifest
    and the trials' files follow as artifacts (see ``files``), and the files of ``artifacts``, if
    that folder is there, under ``report/`` on the parent; each whenever it has changed.

    Raises ``LabError`` when MLflow cannot be reached or written to, or another process mirrors the
    same store for longer than ``LOCK_TIMEOUT_S``.
    """
    manifest = store.manifest(name)
    try:
        with FileLock(store.root / ".mirror.lock", timeout=LOCK_TIMEOUT_S), connect(uri) as client:
            return _SweepMirror(client, uri, store, manifest).write(artifacts)
    except Timeout:
        raise LabError(
            f"another process is mirroring {store.root}; wait, then type: python -m cegppo_lab sync"
        ) from None


class _SweepMirror:
    """One pass over one sweep."""

    def __init__(
        self, client: MlflowClient, uri: str, store: RunStore, manifest: dict[str, Any]
    ) -> None:
        self._client, self._uri, self._store, self._manifest = client, uri, store, manifest
        self._origin = f"{socket.gethostname()}:{store.root.resolve()}"
        self._experiment = find_experiment(client, uri, manifest)
        self._runs = all_runs(client, self._experiment)

    def write(self, artifacts: Path | None) -> MirrorReport:
        present = set(self._store.trial_ids())
        entries = [entry for entry in self._manifest["trials"] if entry["trial_id"] in present]
        rows = {entry["trial_id"]: streams(self._store.run(entry["trial_id"])) for entry in entries}
        trials = [self._describe(entry, rows[entry["trial_id"]]) for entry in entries]
        parent = self._parent(trials)
        count = {"created": 0, "updated": 0, "unchanged": 0, "steps": 0}
        runs: dict[str, Run] = {}
        for entry, wanted in zip(entries, trials, strict=True):
            trial_id = entry["trial_id"]
            run, created = self._child(trial_id, parent, wanted, rows[trial_id])
            if run is None:
                continue
            runs[trial_id] = run
            changed = self._settle(run, wanted)
            written = self._write_rows(run, rows[trial_id])
            count["steps"] += written["steps"]
            changed = changed or any(written.values())
            count["created" if created else "updated" if changed else "unchanged"] += 1
        return MirrorReport(
            self._manifest["name"],
            redact(self._uri),
            files=self._log_files(parent, runs, artifacts),
            foreign=tuple(entry["trial_id"] for entry in entries if entry["trial_id"] not in runs),
            **count,
        )

    def _log_files(self, parent: Run, runs: dict[str, Run], report: Path | None) -> int:
        """Upload what changed, after all numbers: the place for artifacts may be another one."""
        try:
            uploaded = log_manifest(self._client, parent, self._manifest)
            for trial_id, run in runs.items():
                uploaded += log_trial_files(self._client, run, self._store.run(trial_id))
            if report is not None and report.is_dir():
                log_report(self._client, parent, report)
        except Exception as error:  # whatever the client of a file, http or cloud store raises
            raise LabError(
                f"MLflow at {redact(self._uri)} has the numbers but does not take the files: "
                f"{reason(error)}; the run store is whole; once it takes artifacts, type: "
                "python -m cegppo_lab sync"
            ) from error
        return uploaded

    def _describe(self, entry: dict[str, Any], rows: dict[str, list[Row]]) -> Wanted:
        run = self._store.run(entry["trial_id"])
        return describe_trial(run, entry, self._manifest["plan_id"], rows)

    def _parent(self, trials: list[Wanted]) -> Run:
        found = [run for run in self._runs if SWEEP_TAG in run.data.tags]
        plans = found[0].data.tags.get(PLANS_TAG, "") if found else ""
        wanted = describe_sweep(self._manifest, trials, plans)
        run = self._restored(found[0]) if found else self._create(wanted)
        self._settle(run, wanted)
        return run

    def _child(
        self, trial_id: str, parent: Run, wanted: Wanted, rows: dict[str, list[Row]]
    ) -> tuple[Run | None, bool]:
        """The trial's run and whether it is new; None if the one there is not ours to change."""
        found = [run for run in self._runs if run.data.tags.get(TRIAL_TAG) == trial_id]
        for run in found:
            if continues(rows, mirrored_rows(run)):
                return self._restored(run), False
        for run in found:
            if run.info.lifecycle_stage != "active":
                continue
            if run.data.tags.get(STORE_TAG) != self._origin:
                return None, False
            self._client.delete_run(run.info.run_id)  # its folder was removed and trained anew
        tags = {"mlflow.parentRunId": parent.info.run_id, STORE_TAG: self._origin}
        return self._create(wanted, tags), True

    def _create(self, wanted: Wanted, tags: dict[str, str] | None = None) -> Run:
        return self._client.create_run(
            self._experiment, wanted.start_ms, {**wanted.tags, **(tags or {})}, wanted.name
        )

    def _restored(self, run: Run) -> Run:
        """``run``, brought back if someone deleted it in the UI: there are never two of one."""
        if run.info.lifecycle_stage != "active":
            self._client.restore_run(run.info.run_id)
        return run

    def _settle(self, run: Run, wanted: Wanted) -> bool:
        """Write the params, tags, name, status and end that differ; whether any did."""
        from mlflow.entities import Param, RunTag

        has = run.data
        params = [Param(k, v) for k, v in wanted.params.items() if k not in has.params]
        tags = [RunTag(k, v) for k, v in wanted.tags.items() if has.tags.get(k) != v]
        for some in _pieces(params, PARAMS_LIMIT):
            self._client.log_batch(run.info.run_id, params=some)
        if tags:
            self._client.log_batch(run.info.run_id, tags=tags)
        named = run.info.run_name == wanted.name
        ended = wanted.end_ms is None or run.info.end_time == wanted.end_ms
        settled = named and ended and run.info.status == wanted.status
        if not named:
            self._client.update_run(run.info.run_id, name=wanted.name)
        if wanted.end_ms is not None and not settled:
            self._client.set_terminated(run.info.run_id, wanted.status, wanted.end_ms)
        elif not settled:
            self._client.update_run(run.info.run_id, status=wanted.status)
        return bool(params or tags or not settled)

    def _write_rows(self, run: Run, rows: dict[str, list[Row]]) -> dict[str, int]:
        """Write the rows that the run's tag does not count; how many, by file."""
        from mlflow.entities import Metric, RunTag

        mirrored = mirrored_rows(run)
        written = {}
        for file, all_rows in rows.items():
            start = mirrored.get(file, [0, 0])[0]
            written[file] = len(all_rows) - start
            for end in _row_batches(all_rows, start):
                metrics = [
                    Metric(key, value, row.time_ms, row.step)
                    for row in all_rows[start:end]
                    for key, value in row.values.items()
                ]
                start = end
                mirrored[file] = [end, all_rows[end - 1].time_ms]
                tag = RunTag(ROWS_TAG, json.dumps(mirrored))
                self._client.log_batch(run.info.run_id, metrics=metrics, tags=[tag])
        return written


def _row_batches(rows: list[Row], start: int) -> Iterator[int]:
    """Where each batch of whole rows ends, so that none exceeds ``METRICS_LIMIT`` metrics."""
    size = 0
    for index in range(start, len(rows)):
        if size and size + len(rows[index].values) > METRICS_LIMIT:
            yield index
            size = 0
        size += len(rows[index].values)
    if start < len(rows):
        yield len(rows)


def _pieces(items: list[Any], size: int) -> Iterable[list[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))
