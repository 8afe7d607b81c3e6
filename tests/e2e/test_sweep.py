"""The main job end to end: real processes, real Ray, real MLflow, real kills."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from pathlib import Path

import pytest

from cegppo_lab.store import RunStore
from tests.e2e.lab import (
    TINY,
    lab,
    numbers,
    processes_in,
    start,
    steps_done,
    wait_for,
)

SWEEP = ["sweep", "quickstart", "seeds=[1]", *TINY]
TRIALS = 4


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which the tiny sweep ran undisturbed, and what it printed."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, lab(folder, *SWEEP)


def _query(folder: Path, sql: str) -> list[tuple]:
    with sqlite3.connect(folder / "mlflow.db") as database:
        return database.execute(sql).fetchall()


def test_prints_the_table_the_report_and_how_to_open_mlflow(finished: tuple[Path, str]) -> None:
    folder, printed = finished
    assert "CE-GPPO(0.75, 1)" in printed
    assert "report: report/quickstart/index.html" in printed
    assert "python -m cegppo_lab ui" in printed
    assert (folder / "report/quickstart/index.html").stat().st_size > 10_000


def test_every_trial_is_done_with_a_row_a_step(finished: tuple[Path, str]) -> None:
    store = RunStore(finished[0] / "runs")
    assert len(store.trial_ids()) == TRIALS
    for trial_id in store.trial_ids():
        run = store.run(trial_id)
        assert run.status().state == "done"
        assert [row.step for row in run.steps()] == list(range(1, 7))
        assert [row.step for row in run.evals()] == [0, 3, 6]
        assert not run.locked()


def test_mlflow_has_one_parent_one_child_per_trial_one_value_per_step(
    finished: tuple[Path, str],
) -> None:
    folder = finished[0]
    parents = _query(folder, "select value from tags where key = 'mlflow.parentRunId'")
    assert len(parents) == TRIALS
    assert len(set(parents)) == 1
    assert _query(folder, "select count(*) from runs") == [(TRIALS + 1,)]
    repeated = "select key from metrics group by run_uuid, key, step having count(*) > 1"
    assert _query(folder, repeated) == []
    entropy = _query(folder, "select count(*) from metrics where key = 'actor/entropy'")
    assert entropy == [(TRIALS * 6,)]


def test_a_second_call_trains_nothing(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    before = numbers(folder)
    printed = lab(folder, *SWEEP)
    assert "4 done" in printed
    assert numbers(folder) == before
    assert all(
        len(RunStore(folder / "runs").run(trial_id).provenance()) == 1 for trial_id in before
    )
    assert _query(folder, "select count(*) from runs") == [(TRIALS + 1,)]


def test_plan_knows_what_is_done(finished: tuple[Path, str]) -> None:
    printed = lab(finished[0], "plan", "quickstart", "seeds=[1,2]", *TINY, "--json")
    states = [trial["state"] for trial in json.loads(printed)["trials"]]
    assert states == ["done"] * TRIALS + ["pending"] * TRIALS


def test_workers_are_reused_between_trials(finished: tuple[Path, str]) -> None:
    store = RunStore(finished[0] / "runs")
    pids = {store.run(each).provenance()[0]["pid"] for each in store.trial_ids()}
    assert len(pids) < TRIALS


def test_a_killed_and_an_interrupted_driver_resume_to_the_same_bits(
    finished: tuple[Path, str], tmp_path: Path
) -> None:
    words = [*SWEEP, "--limit", "2"]
    driver = start(tmp_path, *words)
    wait_for(lambda: steps_done(tmp_path) >= 3)
    assert any("raylet" in " ".join(process.cmdline()) for process in processes_in(tmp_path))
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    wait_for(lambda: not processes_in(tmp_path), timeout=60)
    killed_at = steps_done(tmp_path)
    assert 0 < killed_at < 2 * 6

    driver = start(tmp_path, *words)
    wait_for(lambda: steps_done(tmp_path) > killed_at)
    os.kill(driver.pid, signal.SIGINT)
    assert driver.wait(120) == 130
    assert "goes on from here" in (tmp_path / "log").read_text()
    assert "Traceback" not in (tmp_path / "log").read_text()
    wait_for(lambda: not processes_in(tmp_path), timeout=60)
    assert steps_done(tmp_path) < 2 * 6

    lab(tmp_path, *words)
    done, expected = numbers(tmp_path), numbers(finished[0])
    assert len(done) == 2
    assert done == {trial_id: expected[trial_id] for trial_id in done}
    repeated = "select key from metrics group by run_uuid, key, step having count(*) > 1"
    assert _query(tmp_path, repeated) == []
    assert _query(tmp_path, "select count(*) from runs") == [(2 + 1,)]
    wait_for(lambda: not processes_in(tmp_path), timeout=60)


def test_unreachable_mlflow_never_stops_training(
    finished: tuple[Path, str], tmp_path: Path
) -> None:
    printed = lab(tmp_path, *SWEEP, "--limit", "1", "--mlflow", "http://127.0.0.1:9")
    assert "python -m cegppo_lab sync" in printed
    ((trial_id, done),) = numbers(tmp_path).items()
    assert done == numbers(finished[0])[trial_id]
    lab(tmp_path, "sync", "--mlflow", "http://127.0.0.1:9", code=2)
    lab(tmp_path, "sync")
    assert _query(tmp_path, "select count(*) from metrics where key = 'actor/entropy'") == [(6,)]
