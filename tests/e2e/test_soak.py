"""The soak script, short: a sweep whose driver and workers are killed ends as the undisturbed."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.lab import environment

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_two_kills_of_each_kind_and_a_lost_mlflow_change_nothing(tmp_path: Path) -> None:
    words = ["--driver-kills", "2", "--worker-kills", "2", "--seeds", "1", "--steps", "8"]
    told = subprocess.run(
        [sys.executable, "-m", "benchmarks.soak", *words, "--out", str(tmp_path)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    with open(tmp_path / "kills.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    assert [row["kind"] for row in rows] == ["driver"] * 2 + ["worker"] * 2
    assert all(float(row["orphans_s"]) < 120 for row in rows[:2])
    assert "differences from the undisturbed sweep: 0" in (tmp_path / "README.md").read_text()
