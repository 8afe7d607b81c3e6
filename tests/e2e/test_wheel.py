"""The built wheel works in an empty folder: conf, sweeps, policies and templates ship inside."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.lab import TINY, environment

ROOT = Path(__file__).resolve().parents[2]

SESSION = """
import runpy, sys
import analysis, cegppo_lab
from cegppo_lab.cli import cli

print(cegppo_lab.__file__, analysis.__file__)
for words in (["plan"], ["train", "algorithm=dapo", *sys.argv[1:]], ["report", "train"]):
    print("=====", flush=True)
    cli(words, standalone_mode=False)
print("=====", flush=True)
sys.argv[1:] = ["claims", "--sweep", "train"]
runpy.run_module("analysis", run_name="__main__", alter_sys=True)
"""
"""Four commands in one process: what is imported takes longer than all of them."""


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
    printed = subprocess.run(
        [sys.executable, "-c", SESSION, *TINY, "trainer.steps=1"],
        cwd=tmp_path,
        env={**environment(), "PYTHONPATH": str(site)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    used, plan, train, report, claims = printed.split("=====\n")
    assert all(path.startswith(str(site)) for path in used.split())
    assert "12 trials, 12 to run" in plan
    assert "done" in train
    assert "report/train/index.html" in report
    assert "claims.json" in claims
    assert sorted(os.listdir(tmp_path)) == ["mlartifacts", "mlflow.db", "report", "runs"]
