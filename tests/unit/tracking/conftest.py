"""A run store with one sweep, and databases to mirror it into."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from mirrored import manifest

from cegppo_lab.store import RunStore


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database as MLflow makes it, once: its migrations take seconds."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_database: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("mirror", "direct"):
        shutil.copy(empty_database, tmp_path / f"{name}.db")


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    store = RunStore(tmp_path / "runs")
    store.write_manifest(manifest("demo"))
    return store
