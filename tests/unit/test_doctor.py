"""The doctor's findings: what is there is ok, what is not is missing, with what to type."""

from __future__ import annotations

import json
import platform
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner
from huggingface_hub import constants

from cegppo_lab.cli.doctor import doctor
from cegppo_lab.doctor import MISSING, OK, WARN
from cegppo_lab.doctor.cluster import check_store, ray_session
from cegppo_lab.doctor.places import check_data, check_disk, check_mlflow, check_weights
from cegppo_lab.doctor.software import check_gpus, check_packages, check_verl
from cegppo_lab.tasks import make_task

HUB_MODEL = "somebody/model"


class _Hub(BaseHTTPRequestHandler):
    """A hub that knows one model."""

    def do_GET(self) -> None:
        """Tell about the model that is asked for."""
        self.send_response(200 if HUB_MODEL in self.path else 404)
        self.end_headers()
        self.wfile.write(json.dumps({"id": HUB_MODEL}).encode())

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@contextmanager
def _hub() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Hub) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def _fake_versions(monkeypatch: pytest.MonkeyPatch, **versions: str | None) -> None:
    """Pretend that packages have other versions, or (None) are not installed."""
    real = metadata.version

    def version(name: str) -> str:
        found = versions.get(name, real(name) if name not in versions else None)
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(metadata, "version", version)


def test_this_environment_fits_what_the_package_declares() -> None:
    assert {finding.state for finding in check_packages()} == {OK}


def test_names_the_package_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    _fake_versions(monkeypatch, mlflow="1.0", filelock=None)
    bad = {each.name: each for each in check_packages() if each.state == MISSING}
    assert set(bad) == {"mlflow", "filelock"}
    assert bad["mlflow"].told.startswith("1.0 (needed: >=3")
    assert bad["filelock"].told.startswith("not installed")
    assert bad["mlflow"].mend.startswith('pip install "mlflow>=3')


def test_python_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "python_version", lambda: "3.9.1")
    python = check_packages()[0]
    assert (python.name, python.state) == ("python", MISSING)
    assert "3.9.1 (needed: " in python.told


def test_verl_is_only_missing_where_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "cegppo_lab.trainers.verl.version.version", lambda name: {"verl": "0.8.0"}[name]
    )
    wanted, unwanted = check_verl(wanted=True), check_verl(wanted=False)
    assert (wanted.state, unwanted.state) == (MISSING, WARN)
    assert "not 0.8.0" in wanted.told
    assert wanted.mend.startswith("pip install verl==0.9.1")


def test_gpus_are_counted_with_their_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    card = SimpleNamespace(name="H100", total_memory=80 * 10**9)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
    assert check_gpus(wanted=True).told.startswith("2: H100 80 GB, H100 80 GB; driver ")


def test_a_machine_without_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("PATH", str(tmp_path))  # no nvidia-smi
    assert check_gpus(wanted=False).state == OK
    assert check_gpus(wanted=True).state == WARN
    assert "rehearsals only" in check_gpus(wanted=True).told


def test_a_driver_that_torch_cannot_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 570.86\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    found = check_gpus(wanted=False)
    assert found.state == WARN
    assert "CUDA build of torch for driver 570.86" in found.mend


def test_an_unset_ray_address_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("it started Ray"))
    with ray_session(start=False) as (finding, nodes):
        assert finding.state == OK
        assert nodes == []


def test_a_ray_address_where_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"127.0.0.1:{_free_port()}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    with ray_session(start=False) as (finding, _):
        assert finding.state == MISSING
        assert address in finding.told
        assert "ray status" in finding.mend


def test_the_store_is_written_here_and_read_on_every_node(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with ray_session(start=True) as (finding, nodes):
        assert finding.state == OK
        assert "1 nodes" in finding.told
        here = check_store(str(tmp_path), nodes)
        assert (here.state, here.mend) == (OK, "")
        assert here.told.endswith("read on 1 nodes")
        gone = {**nodes[0], "NodeID": "ab" * 28, "NodeManagerHostname": "elsewhere"}
        there = check_store(str(tmp_path), [*nodes, gone])
    assert there.state == MISSING
    assert "is not seen by elsewhere (" in there.told
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = check_store(str(tmp_path / "file/runs"), [])
    assert found.state == MISSING
    assert "--store DIR" in found.mend


def test_mlflow_that_answers_and_that_does_not(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert "the first sweep makes it" in check_mlflow(uri).told
    assert list(tmp_path.iterdir()) == []
    MlflowClient(uri).search_experiments()
    assert check_mlflow(uri).told == f"{uri} answers (sqlite)"
    refused = check_mlflow(f"http://127.0.0.1:{_free_port()}")
    assert refused.state == MISSING
    assert "start that server" in refused.mend
    assert check_mlflow("./mlruns").state == MISSING


def test_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert check_weights("table_walk").state == OK
    assert check_weights(str(tmp_path)).state == MISSING
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{_free_port()}")
    out_of_reach = check_weights(HUB_MODEL)
    assert out_of_reach.state == MISSING
    assert f"hf download {HUB_MODEL} --local-dir" in out_of_reach.mend
    with _hub() as endpoint:
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        known = check_weights(HUB_MODEL)
        assert (known.state, known.mend) == (WARN, f"hf download {HUB_MODEL}")
        assert check_weights("nobody/mistyped").state == MISSING


def test_data(tmp_path: Path) -> None:
    assert check_data(make_task("table_walk")).state == OK
    lacking = check_data(make_task("math", path=str(tmp_path / "none.jsonl")))
    assert lacking.state == MISSING
    assert "none.jsonl" in lacking.told


@pytest.mark.parametrize(
    ("free_gb", "needed_gb", "state"), [(50, 1, OK), (50, 200, WARN), (0.5, 200, MISSING)]
)
def test_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free_gb: float, needed_gb: float, state: str
) -> None:
    usage = SimpleNamespace(free=free_gb * 1e9)
    monkeypatch.setattr("shutil.disk_usage", lambda path: {tmp_path: usage}[path])
    assert check_disk("disk", str(tmp_path / "not/there/yet"), needed_gb).state == state


def test_the_command_fails_exactly_when_something_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = CliRunner().invoke(doctor, ["--json"])
    assert whole.exit_code == 0, whole.output
    names = [finding["name"] for finding in json.loads(whole.stdout)]
    assert names[0] == "python"
    assert len(names) == len(set(names))
    port = _free_port()
    lacking = CliRunner().invoke(doctor, ["--mlflow", f"http://127.0.0.1:{port}"])
    assert lacking.exit_code == 1
    assert f"missing  mlflow: no mirror at http://127.0.0.1:{port}" in lacking.output
    assert "missing for trainer=embedded: mlflow" in lacking.output
