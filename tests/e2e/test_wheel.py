"""The built wheel works in an empty folder: conf, sweeps, policies and templates ship inside."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.lab import TINY, environment

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the unpacked wheel."""
    built, site = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel"]
    subprocess.run([*build, "--directory", str(built)], cwd=ROOT, check=True)
    (wheel,) = built.glob("*.whl")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    subprocess.run([*install, str(site), str(wheel)], check=True)
    return site


def test_plan_train_and_report_from_the_wheel(site: Path, tmp_path: Path) -> None:
    def run(*words: str) -> str:
        return subprocess.run(
            [sys.executable, *words],
            cwd=tmp_path,
            env={**environment(), "PYTHONPATH": str(site)},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout

    used = run("-c", "import cegppo_lab, analysis; print(cegppo_lab.__file__, analysis.__file__)")
    assert all(path.startswith(str(site)) for path in used.split())
    assert "12 trials, 12 to run" in run("-m", "cegppo_lab", "plan")
    assert "done" in run("-m", "cegppo_lab", "train", "algorithm=dapo", *TINY, "trainer.steps=1")
    assert "report/train/index.html" in run("-m", "cegppo_lab", "report", "train")
    assert "claims.json" in run("-m", "analysis", "claims", "--sweep", "train")
    assert sorted(os.listdir(tmp_path)) == ["mlartifacts", "mlflow.db", "report", "runs"]
