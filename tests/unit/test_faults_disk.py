"""Disks that take no more, and clocks that jump: one line, nothing torn, and it goes on."""

from __future__ import annotations

import io
import itertools
import os
import resource
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cegppo_lab.compose import resolve
from cegppo_lab.execute import attempt
from cegppo_lab.files import AppendLog, WriteError, read_json, read_lines, write_json
from cegppo_lab.housekeeping.verify import trial_flaws
from cegppo_lab.metrics import is_volatile
from cegppo_lab.store import RunStore, RunWriter, StepRecord
from cegppo_lab.sweep.plan import make_plan
from cegppo_lab.sweep.progress import Progress
from cegppo_lab.tracking import sync
from cegppo_lab.trial import Trial, make_trial
from tests.unit.mlflow_database import new_database

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="limits need a child process")


def _in_child(work: Callable[[], None]) -> int:
    """Run ``work`` in a child process; its exit status, 99 for an exception."""
    child = os.fork()
    if not child:
        status = 99
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@contextmanager
def _files_up_to(size: int) -> Iterator[None]:
    """No file of this process may grow beyond ``size`` bytes: what lies beyond is refused."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _row(number: int) -> dict[str, Any]:
    return {"step": number, "text": "x" * 80}


def test_a_row_that_does_not_fit_leaves_the_rows_before_and_is_written_later(
    tmp_path: Path,
) -> None:
    path = tmp_path / "log.jsonl"

    def work() -> None:
        log = AppendLog(path, lambda row: row["step"])
        with _files_up_to(250):  # two rows and a part of the third
            log.append(_row(1))
            log.append(_row(2))
            for _ in range(2):
                with pytest.raises(WriteError, match=r"cannot write .*log\.jsonl: File too large"):
                    log.append(_row(3))
            assert path.read_bytes().endswith(b"\n")
            assert list(read_lines(path)) == [_row(1), _row(2)]
        log.append(_row(3))
        log.close()

    assert _in_child(work) == 0
    assert list(read_lines(path)) == [_row(1), _row(2), _row(3)]


def test_a_file_that_does_not_fit_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    write_json(path, {"a": 1})

    def work() -> None:
        with _files_up_to(20), pytest.raises(WriteError, match="what is stored is whole"):
            write_json(path, {"a": "x" * 100})

    assert _in_child(work) == 0
    assert read_json(path) == {"a": 1}
    assert [each.name for each in tmp_path.iterdir()] == ["value.json"]


def test_a_lock_that_cannot_be_made_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("filelock.FileLock.acquire", refused)
    with (
        pytest.raises(WriteError, match=r"cannot write .*lock: Read-only file system"),
        RunWriter(tmp_path),
    ):
        pass


def _finish(store: RunStore, trial: Trial) -> None:
    for _ in attempt(store, trial):
        pass


def _numbers(store: RunStore, trial: Trial) -> list[Any]:
    run = store.run(trial.trial_id)
    assert run.status().state == "done"
    return [
        (row.step, {k: v for k, v in row.metrics.items() if not is_volatile(k)})
        for row in run.steps()
    ]


@pytest.fixture(scope="module")
def trial(tiny: dict[str, Any]) -> Trial:
    return make_trial(resolve({**tiny, "seed": 3}))


@pytest.fixture(scope="module")
def undisturbed(trial: Trial, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    store = RunStore(tmp_path_factory.mktemp("undisturbed"))
    _finish(store, trial)
    return _numbers(store, trial)


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(2_000, id="rows"),
        pytest.param(400_000, id="weights"),
        pytest.param(700_000, id="moments"),
    ],
)
def test_a_run_on_a_full_disk_loses_nothing_and_goes_on_when_there_is_room(
    trial: Trial, undisturbed: list[Any], tmp_path: Path, size: int
) -> None:
    store = RunStore(tmp_path)

    def work() -> None:
        with _files_up_to(size), pytest.raises(WriteError, match="mend that and run the same"):
            _finish(store, trial)

    assert _in_child(work) == 0
    run = store.run(trial.trial_id)
    assert not run.locked()
    assert [told for told, harmless in trial_flaws(run, trial.trial_id) if not harmless] == []
    assert not list(tmp_path.rglob("*.tmp"))
    _finish(store, trial)
    assert _numbers(store, trial) == undisturbed


def _backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes back by a minute whenever it is asked."""
    ticks = itertools.count()
    monkeypatch.setattr("time.time", lambda: 1e9 - 60 * next(ticks))
    # Records took hold of the real clock when their class was made.
    monkeypatch.setattr(
        "cegppo_lab.trainers.embedded.trainer.StepRecord",
        lambda *values, **named: StepRecord(*values, time=time.time(), **named),
    )


def test_a_clock_that_jumps_back_changes_no_number_and_every_row_reaches_mlflow_once(
    tiny: dict[str, Any],
    undisturbed: list[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = [f"{key}={value}" for key, value in tiny.items()]
    plan = make_plan("quickstart", [*words, "seeds=[3]"], {"runtime.store": str(tmp_path / "runs")})
    store, trial = plan.store(), plan.trials[0]
    uri = new_database(tmp_path / "mlflow.db")
    store.write_manifest(plan.manifest())
    with monkeypatch.context() as patch:
        _backwards(patch)
        records = attempt(store, trial)
        for record in records:
            if record.step == 3:
                break
        records.close()
        sync(store, ["quickstart"], uri)
        _finish(store, trial)
        sync(store, ["quickstart"], uri)
        console = Console(file=io.StringIO())
        with Progress(store, [trial], 1, console) as progress:
            progress.update(trial.trial_id, 0, {})
            progress.update(trial.trial_id, 3, {})
            assert progress.seconds_left() == pytest.approx(0, abs=60)
    times = [row.time for row in store.run(trial.trial_id).steps()]
    assert times == sorted(times, reverse=True)
    assert [told for told, _ in trial_flaws(store.run(trial.trial_id), trial.trial_id)] == []
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        found = database.execute(
            "select step, value from metrics where key = 'actor/entropy' order by step"
        ).fetchall()
    stored = [(row.step, row.metrics["actor/entropy"]) for row in store.run(trial.trial_id).steps()]
    assert found == stored
