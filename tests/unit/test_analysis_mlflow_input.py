"""Where MLflow holds nothing to read: one clear line at once, and nothing is written."""

from __future__ import annotations

import socket
import sqlite3
import time

import pytest

from analysis.load import MlflowSource
from cegppo_lab.errors import LabError
from cegppo_lab.store import RunStore
from cegppo_lab.tracking import mirror_sweep
from tests.unit.mlflow_database import new_database
from tests.unit.synthetic_sweep import ARMS, manifest


def test_an_experiment_that_holds_no_sweep_is_one_line(tmp_path):
    from mlflow import MlflowClient

    uri = new_database(tmp_path / "mlflow.db")
    client = MlflowClient(uri)
    client.create_experiment("empty")
    client.create_run(client.create_experiment("verl_runs"))
    client.delete_experiment(client.create_experiment("gone"))
    source = MlflowSource(uri)
    for name, words in {
        "verl_run": "unknown experiment.*verl_runs",
        "empty": "'empty' at .* has no run",
        "verl_runs": "--mapping FILE.*scale.*runs.*arm.*seed",
        "gone": "deleted.*mlflow experiments restore",
    }.items():
        with pytest.raises(LabError, match=words) as caught:
            source.sweep(name)
        assert "\n" not in str(caught.value)


def test_a_sweep_without_a_step_is_one_line(tmp_path):
    store, uri = RunStore(tmp_path / "runs"), new_database(tmp_path / "mlflow.db")
    store.write_manifest(manifest("s", ARMS))
    mirror_sweep(store, "s", uri)
    with pytest.raises(LabError, match="python -m cegppo_lab sweep s"):
        MlflowSource(uri).sweep("s")


def test_an_unreachable_server_is_one_line_at_once():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        uri, started = f"http://127.0.0.1:{probe.getsockname()[1]}", time.monotonic()
    with pytest.raises(LabError, match=r"cannot read MLflow at http.*Connection refused") as caught:
        MlflowSource(uri).sweep("s")
    assert time.monotonic() - started < 5
    assert "mirror" not in str(caught.value)


def test_a_database_that_is_not_there_is_not_made(tmp_path):
    for uri in (f"sqlite:///{tmp_path}/none.db", f"sqlite:///{tmp_path}/no/folder/none.db"):
        with pytest.raises(LabError, match=r"none.db: there is no such file"):
            MlflowSource(uri).names()
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_mlflow_would_change_is_left_alone(tmp_path):
    other, old = tmp_path / "other.db", tmp_path / "old.db"
    with sqlite3.connect(other) as database:
        database.execute("create table recipes (name text)")
    new_database(old)
    with sqlite3.connect(old) as database:
        database.execute("drop table logged_model_tags")
    (tmp_path / "text.db").write_text("not a database, whatever its name says " * 9)
    (tmp_path / "empty.db").touch()
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for name, words in {
        "other": "is no MLflow database",
        "empty": "is no MLflow database",
        "old": "older MLflow.*mlflow db upgrade",
        "text": "file is not a database",
    }.items():
        with pytest.raises(LabError, match=words):
            MlflowSource(f"sqlite:///{tmp_path}/{name}.db").sweep("s")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_unknown_scheme_names_the_known_ones():
    with pytest.raises(LabError, match=r"Allowed: .*sqlite"):
        MlflowSource("./mlruns").names()
