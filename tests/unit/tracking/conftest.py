"""A run store with one sweep, and databases to mirror it into."""

from __future__ import annotations

from pathlib import Path

import pytest
from mirrored import manifest

from cegppo_lab.store import RunStore
from tests.unit.mlflow_database import new_database


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("mirror", "direct"):
        new_database(tmp_path / f"{name}.db")


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    store = RunStore(tmp_path / "runs")
    store.write_manifest(manifest("demo"))
    return store
