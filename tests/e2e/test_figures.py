"""``figures`` end to end: from nothing to the paper's figures, and the same from MLflow alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cegppo_lab.store import RunStore
from tests.e2e.lab import TINY, environment, lab

pytestmark = pytest.mark.slow

FIGURES = ["figures", "seeds=[1,2]", *TINY]
SAME = [f"figure{n}.png" for n in range(1, 7)] + ["claims.json", "table1.csv", "table2.csv"]
TRIALS = 2 * 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("figures")
    (made / "first").write_text(lab(made, *FIGURES))
    return made


def _analysis(folder: Path, *words: str) -> None:
    command = [sys.executable, "-m", "analysis", *words]
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_shared_trial_is_run_once_and_all_is_drawn(folder: Path) -> None:
    assert f"{TRIALS} done" in (folder / "first").read_text()
    assert len(RunStore(folder / "runs").trial_ids()) == TRIALS
    paper = folder / "report/paper"
    assert all((paper / name).stat().st_size > 0 for name in [*SAME, "index.html"])
    ledger = json.loads((paper / "claims.json").read_text())
    assert len({entry["id"] for entry in ledger}) == 13


def test_a_second_call_trains_nothing_and_draws_the_same(folder: Path) -> None:
    before = {name: (folder / "report/paper" / name).read_bytes() for name in SAME}
    steps = {p: p.stat().st_mtime for p in (folder / "runs").glob("*/steps.jsonl")}
    lab(folder, *FIGURES)
    assert {p: p.stat().st_mtime for p in (folder / "runs").glob("*/steps.jsonl")} == steps
    assert {name: (folder / "report/paper" / name).read_bytes() for name in SAME} == before


def test_mlflow_alone_gives_the_same_numbers_with_the_store_away(folder: Path) -> None:
    (folder / "runs").rename(folder / "away")
    try:
        _analysis(folder, "all", "--mlflow", "sqlite:///mlflow.db", "--out", "mirror")
    finally:
        (folder / "away").rename(folder / "runs")
    for name in SAME:
        own, other = folder / "report/paper" / name, folder / "mirror" / name
        assert own.read_bytes() == other.read_bytes(), name
