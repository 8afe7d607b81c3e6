"""What MLflow holds after any number of passes, kills and changes of the run store."""

from __future__ import annotations

import math
import sqlite3
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from mirrored import manifest, query, repeated, statuses, tags_of, train, uri, values

from cegppo_lab.store import DONE, FAILED, STOPPED, RunStore
from cegppo_lab.tracking import DEFAULT_URI, mirror_sweep, sync
from cegppo_lab.tracking import mirror as mirror_module
from cegppo_lab.tracking.describe import PARAM_LIMIT


def test_a_sweep_becomes_a_parent_and_a_child_per_trial_with_every_value(
    store: RunStore, tmp_path: Path
) -> None:
    where = uri(tmp_path)
    train(store, "t1", range(0, 4), DONE)
    train(store, "t2", range(0, 3), STOPPED, "entropy collapsed")
    report = mirror_sweep(store, "demo", where)
    assert (report.created, report.updated, report.unchanged, report.steps) == (2, 0, 0, 5)

    expected = {
        (trial, key, step, value, 1000 * (1_700_000_000 + step))
        for trial, stop in (("t1", 4), ("t2", 3))
        for step in range(stop)
        for key, value, there in (
            ("actor/entropy", 1 / (step + 1), step > 0),
            ("timing_s/step", 0.5, step > 0),
            ("val-core/walk/acc/mean_at_2", 0.5, step % 2 == 0),
        )
        if there
    }
    found = values(where)
    assert len(found) == len(expected)
    assert set(found) == expected

    assert query(where, "select name from experiments where experiment_id > 0") == [("demo",)]
    child, parent = "CE-GPPO(0.5, 1) seed 11", "demo"
    assert statuses(where) == {parent: "FINISHED", "GRPO seed 11": "FINISHED", child: "KILLED"}
    [(parent_id,)] = query(where, "select run_uuid from runs where name = 'demo'")
    tags = tags_of(where, child)
    assert tags["mlflow.parentRunId"] == parent_id
    assert (tags["trial_id"], tags["arm"], tags["seed"]) == ("t2", "CE-GPPO(0.5, 1)", "11")
    assert (tags["status"], tags["reason"]) == (STOPPED, "entropy collapsed")
    assert (tags["algorithm"], tags["git_sha"]) == ("cegppo", "c0ffee")
    tags = tags_of(where, parent)
    assert tags["question"] == "Which arm keeps its entropy?"
    assert (tags["overrides"], tags["plan_ids"]) == ("trainer.steps=20", "p1")


def test_params_are_flat_short_and_cut_visibly(store: RunStore, tmp_path: Path) -> None:
    train(store, "t1", range(0, 2))
    mirror_sweep(store, "demo", uri(tmp_path))
    params = dict(query(uri(tmp_path), "select key, value from params"))
    schedule = '{"0": 0.0, "585": 0.5}'
    assert params["beta1"] == params["algorithm.beta1"] == schedule
    assert (params["algorithm"], params["arm"], params["seed"]) == ("cegppo", "GRPO", "11")
    assert len(params["model.note"]) == PARAM_LIMIT
    assert params["model.note"].endswith("[cut]")


def test_a_second_pass_writes_nothing_and_more_rows_are_added(
    store: RunStore, tmp_path: Path
) -> None:
    where = uri(tmp_path)
    train(store, "t1", range(0, 4))
    mirror_sweep(store, "demo", where)
    before = values(where)
    again = mirror_sweep(store, "demo", where)
    assert (again.created, again.updated, again.unchanged, again.steps) == (0, 0, 1, 0)
    assert values(where) == before

    train(store, "t1", range(2, 7), DONE)  # resumed from step 1: rows 2 and 3 are there already
    train(store, "t2", range(0, 2), DONE)
    more = mirror_sweep(store, "demo", where)
    assert (more.created, more.updated, more.unchanged, more.steps) == (1, 1, 0, 4)
    assert repeated(where) == []
    mirror_sweep(store, "demo", uri(tmp_path, "direct"))
    assert values(where) == values(uri(tmp_path, "direct"))


@pytest.mark.parametrize("calls", range(1, 9))
def test_a_kill_after_any_call_to_mlflow_leaves_no_trace(
    store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    """The process dies after ``calls`` writes; with a value of each kind rewritten (NaN, inf)."""
    from mlflow import MlflowClient

    class Killed(BaseException):
        pass

    left = [calls]

    def dying(write: Callable) -> Callable:
        def wrapped(*args: object, **kwargs: object) -> object:
            if not left[0]:
                raise Killed
            left[0] -= 1
            return write(*args, **kwargs)

        return wrapped

    train(store, "t1", range(0, 6), DONE, extra={"nan": math.nan, "inf": -math.inf})
    monkeypatch.setattr(mirror_module, "METRICS_LIMIT", 8)  # two rows a call
    with monkeypatch.context() as patch:
        for name in ("create_run", "log_batch", "set_terminated", "update_run"):
            patch.setattr(MlflowClient, name, dying(getattr(MlflowClient, name)))
        with pytest.raises(Killed):
            mirror_sweep(store, "demo", uri(tmp_path))

    mirror_sweep(store, "demo", uri(tmp_path))
    mirror_sweep(store, "demo", uri(tmp_path, "direct"))
    assert values(uri(tmp_path)) == values(uri(tmp_path, "direct"))
    assert repeated(uri(tmp_path)) == []
    everything = "select key, value from params order by 1, 2"
    assert query(uri(tmp_path), everything) == query(uri(tmp_path, "direct"), everything)
    assert query(uri(tmp_path), "select count(*) from runs") == [(2,)]
    assert statuses(uri(tmp_path)) == statuses(uri(tmp_path, "direct"))


def test_rows_written_again_are_the_same_values(store: RunStore, tmp_path: Path) -> None:
    """A kill between MLflow's writing of metrics and of the tag that counts them."""
    where = uri(tmp_path)
    train(store, "t1", range(0, 4), extra={"nan": math.nan, "inf": math.inf})
    mirror_sweep(store, "demo", where)
    before = values(where)
    with sqlite3.connect(where.removeprefix("sqlite:///")) as database:
        database.execute("delete from tags where key = 'mirrored_rows'")
    assert mirror_sweep(store, "demo", where).steps == 3
    assert values(where) == before
    sql = "select is_nan, value from metrics where key = '{}' and step = 1"
    assert query(where, sql.format("nan")) == [(1, 0.0)]
    assert query(where, sql.format("inf")) == [(0, sys.float_info.max)]


def test_two_mirrors_at_once_write_everything_once(store: RunStore, tmp_path: Path) -> None:
    where = uri(tmp_path)
    train(store, "t1", range(0, 30), DONE)
    train(store, "t2", range(0, 30), DONE)
    created: list[int] = []
    threads = [
        threading.Thread(
            target=lambda: created.append(mirror_sweep(store, "demo", where).created),
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(created) == [0, 0, 2]
    assert query(where, "select count(*) from runs") == [(3,)]
    assert repeated(where) == []


def test_statuses_follow_the_store_back_and_forth(store: RunStore, tmp_path: Path) -> None:
    where, run = uri(tmp_path), "GRPO seed 11"

    def mirrored() -> tuple[str, str]:
        mirror_sweep(store, "demo", where)
        return statuses(where)[run], statuses(where)["demo"]

    train(store, "t1", range(0, 3))
    assert mirrored() == ("KILLED", "SCHEDULED")  # interrupted: nobody holds its lock
    with store.writer("t1", {}):
        assert mirrored() == ("RUNNING", "RUNNING")
    train(store, "t1", range(3, 5), FAILED, "out of memory")
    assert mirrored() == ("FAILED", "FAILED")
    assert tags_of(where, run)["reason"] == "out of memory"
    train(store, "t1", range(5, 7), DONE)
    assert mirrored() == ("FINISHED", "SCHEDULED")  # the other trial was never started
    ended = round(store.run("t1").status().time * 1000)
    assert query(where, f"select end_time from runs where name = '{run}'") == [(ended,)]
    train(store, "t2", range(0, 2), DONE)
    assert mirrored() == ("FINISHED", "FINISHED")


def test_a_trial_trained_anew_replaces_its_mirror(store: RunStore, tmp_path: Path) -> None:
    where = uri(tmp_path)
    train(store, "t1", range(0, 5), DONE)
    mirror_sweep(store, "demo", where)
    (store.root / "t1").rename(tmp_path / "removed")
    train(store, "t1", range(0, 3), begun=1_700_009_000.0)
    mirror_sweep(store, "demo", where)
    live = query(
        where,
        "select max(m.step), min(m.timestamp) from metrics m join runs r using (run_uuid)"
        " where r.lifecycle_stage = 'active'",
    )
    assert live == [(2, 1_700_009_000_000)]
    assert statuses(where).keys() == {"demo", "GRPO seed 11"}


def test_another_stores_runs_are_left_alone(store: RunStore, tmp_path: Path) -> None:
    where = uri(tmp_path)
    train(store, "t1", range(0, 3), DONE)
    mirror_sweep(store, "demo", where)
    before = values(where)
    other = RunStore(tmp_path / "other")
    other.write_manifest(manifest("demo"))
    train(other, "t1", range(0, 5), DONE, begun=1_700_009_000.0)
    assert mirror_sweep(other, "demo", where).foreign == ("t1",)
    assert values(where) == before


def test_what_was_deleted_in_the_ui_comes_back(store: RunStore, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    where = uri(tmp_path)
    train(store, "t1", range(0, 3), DONE)
    mirror_sweep(store, "demo", where)
    client = MlflowClient(where)
    experiment = client.get_experiment_by_name("demo").experiment_id
    [run] = client.search_runs([experiment], "tags.trial_id = 't1'")
    client.delete_run(run.info.run_id)
    mirror_sweep(store, "demo", where)
    client.delete_experiment(experiment)
    mirror_sweep(store, "demo", where)
    assert statuses(where).keys() == {"demo", "GRPO seed 11"}
    assert query(where, "select count(*) from runs") == [(2,)]


def test_accuracy_has_one_value_though_the_trainer_logs_it_too(
    store: RunStore, tmp_path: Path
) -> None:
    train(store, "t1", range(0, 3), extra={"val-core/walk/acc/mean@2": 0.25})
    mirror_sweep(store, "demo", uri(tmp_path))
    found = [row[2:4] for row in values(uri(tmp_path)) if row[1].startswith("val-core")]
    assert found == [(0, 0.5), (2, 0.5)]


def test_the_report_is_logged_on_the_parent_and_again_when_it_changes(
    store: RunStore, tmp_path: Path
) -> None:
    report = tmp_path / "report" / "demo"
    (report / "figures").mkdir(parents=True)
    (report / "figures" / "entropy.png").write_bytes(b"first")
    train(store, "t1", range(0, 2), DONE)
    sync(store, None, DEFAULT_URI, reports=tmp_path / "report")
    [logged] = tmp_path.glob("mlartifacts/demo/*/artifacts/report/figures/entropy.png")
    assert logged.read_bytes() == b"first"
    (report / "figures" / "entropy.png").write_bytes(b"second")
    sync(store, ["demo"], DEFAULT_URI, reports=tmp_path / "report")
    assert logged.read_bytes() == b"second"


def test_plans_of_one_sweep_add_up(store: RunStore, tmp_path: Path) -> None:
    mirror_sweep(store, "demo", uri(tmp_path))
    store.write_manifest(manifest("demo", "p2"))
    mirror_sweep(store, "demo", uri(tmp_path))
    assert tags_of(uri(tmp_path), "demo")["plan_ids"] == "p1 p2"
