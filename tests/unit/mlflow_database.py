"""MLflow databases for tests: its migrations take seconds, so that they run once a test run."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from cegppo_lab.tracking.connection import connect


@cache
def _empty() -> tuple[Path, TemporaryDirectory[str]]:
    folder = TemporaryDirectory(prefix="mlflow-")
    path = Path(folder.name) / "empty.db"
    with connect(f"sqlite:///{path}") as client:
        client.search_experiments()
    return path, folder


def new_database(path: Path) -> str:
    """The tracking URI of an empty MLflow database made at ``path``."""
    shutil.copy(_empty()[0], path)
    return f"sqlite:///{path}"
