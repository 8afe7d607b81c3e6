"""The speed scripts run and write what they promise; how fast anything is, is not tested."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[2]


def test_the_verifier_script_compares_both_judges_on_the_same_pairs(tmp_path: Path) -> None:
    out = tmp_path / "verifier.csv"
    command = [sys.executable, "-m", "benchmarks.verifier", "--quick", "--out", str(out)]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = out.read_text().splitlines()
    notes = [line for line in lines if line.startswith("# ")]
    assert any("python -m benchmarks.verifier --quick" in note for note in notes)
    assert any("cores: " in note for note in notes)
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    speeds = [row for row in rows if row["pairs_per_s"]]
    for case in ("settled by text", "needs algebra"):
        peer, *ours = [row for row in speeds if row["case"] == case]
        assert (peer["judge"], peer["ratio"]) == ("math-verify in process", "1.00")
        assert [row["workers"] for row in ours] == [str(n + 1) for n in range(len(ours))]
        assert {row["judge"] for row in ours} == {"verify_batch"}
        assert {row["pairs"] for row in ours} == {peer["pairs"]}
        assert {row["wrong"] for row in ours} == {"0"}
        assert all(float(row["pairs_per_s"]) > 0 for row in [peer, *ours])
    endless = [row for row in rows if not row["pairs_per_s"]]
    assert len(endless) == 2
    assert all(float(row["seconds"]) > 0 for row in endless)


def test_the_plan_script_times_every_case_at_every_size(tmp_path: Path) -> None:
    out = tmp_path / "plan.csv"
    command = [sys.executable, "-m", "benchmarks.plan", "--quick", "--out", str(out)]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = out.read_text().splitlines()
    assert any(
        line == "# command: python -m benchmarks.plan --quick --out " + str(out) for line in lines
    )
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    assert [row["trials"] for row in rows] == ["100"] * 5 + ["200"] * 5
    small, large = rows[:5], rows[5:]
    assert [row["case"] for row in small] == [row["case"] for row in large]
    for peer, *ours in (small, large):
        assert peer["case"].startswith("json.loads")
        assert peer["ratio"] == "1.00"
        assert all(float(row["seconds"]) > 0 and float(row["ratio"]) > 0 for row in ours)
