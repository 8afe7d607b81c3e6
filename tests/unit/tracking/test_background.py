"""What the user meets where MLflow cannot be reached: one line, and never a wait."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from mirrored import statuses, train, uri, values

from cegppo_lab.errors import LabError
from cegppo_lab.store import DONE, RunStore
from cegppo_lab.tracking import DEFAULT_URI, Mirror, mirror_sweep, sync, ui_command


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_an_unreachable_server_is_one_line_from_the_thread_and_sync_mends_it(
    store: RunStore, tmp_path: Path
) -> None:
    train(store, "t1", range(0, 4), DONE)
    server, told = f"http://127.0.0.1:{closed_port()}", []
    environment = dict(os.environ)
    mirror = Mirror(store, "demo", server, 0.01, say=told.append)
    mirror.start()
    mirror.nudge()
    problems = mirror.stop(60)
    assert len(problems) == len(told) == 1
    assert server in told[0]
    assert "python -m cegppo_lab sync" in told[0]
    assert "Connection refused" in told[0]
    assert len(told[0]) < 200
    with pytest.raises(LabError, match=server):
        sync(store, None, server)
    assert dict(os.environ) == environment

    sync(store, None, uri(tmp_path))
    mirror_sweep(store, "demo", uri(tmp_path, "direct"))
    assert values(uri(tmp_path)) == values(uri(tmp_path, "direct"))


def test_a_server_that_never_answers_holds_nobody(store: RunStore) -> None:
    train(store, "t1", range(0, 2), DONE)
    with socket.create_server(("127.0.0.1", 0)) as mute:  # accepts, and says nothing
        mirror = Mirror(store, "demo", f"http://127.0.0.1:{mute.getsockname()[1]}")
        mirror.start()
        [problem] = mirror.stop(0.1)
    assert "python -m cegppo_lab sync" in problem


def test_any_error_stays_inside_the_thread(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("our own mistake")

    monkeypatch.setattr("cegppo_lab.tracking.background.mirror_sweep", broken)
    mirror = Mirror(store, "demo", DEFAULT_URI, say=lambda _: None)
    mirror.start()
    [problem] = mirror.stop(60)
    assert "ZeroDivisionError: our own mistake" in problem


def test_the_thread_mirrors_what_is_there_when_it_is_stopped(
    store: RunStore, tmp_path: Path
) -> None:
    mirror = Mirror(store, "demo", uri(tmp_path), interval_s=3600)
    mirror.start()
    train(store, "t1", range(0, 9), DONE)
    assert mirror.stop(120) == []
    assert statuses(uri(tmp_path))["GRPO seed 11"] == "FINISHED"
    mirror_sweep(store, "demo", uri(tmp_path, "direct"))
    assert values(uri(tmp_path)) == values(uri(tmp_path, "direct"))


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ("htp://host", "http"),
        ("./mlruns", "sqlite"),
        ("sqlite:////proc/none/mlflow.db", "/proc/none"),
        ("postgresql://me:secret@127.0.0.1:{port}/db", "postgresql://me:"),
    ],
)
def test_a_bad_uri_is_the_users_mistake(store: RunStore, bad: str, told: str) -> None:
    with pytest.raises(LabError, match=told) as caught:
        sync(store, None, bad.format(port=closed_port()))
    assert "secret" not in str(caught.value)


def test_an_unknown_sweep_is_named(store: RunStore, tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"nope.*demo"):
        sync(store, ["nope"], uri(tmp_path))


def test_importing_the_package_does_not_import_mlflow() -> None:
    code = "import sys, cegppo_lab.tracking; sys.exit('mlflow' in sys.modules)"
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, "PYTHONPATH": paths}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


def test_the_ui_command_parses_and_refuses_what_has_no_database(tmp_path: Path) -> None:
    from mlflow.cli import cli

    with pytest.raises(LabError, match="sync"):
        ui_command(DEFAULT_URI)
    with pytest.raises(LabError, match="browser"):
        ui_command("http://127.0.0.1:5000")
    Path("mlflow.db").touch()
    _, module, name, *arguments = ui_command(DEFAULT_URI, port=5001)
    assert (module, name) == ("-m", "mlflow")
    server = cli.commands[arguments[0]]
    parsed = server.make_context(arguments[0], arguments[1:]).params
    assert parsed["backend_store_uri"] == DEFAULT_URI
    assert (parsed["host"], parsed["port"]) == ("127.0.0.1", 5001)
