"""A search end to end: real processes, real Ray, a real kill."""

from __future__ import annotations

import csv
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.lab import lab, numbers, processes_in, start, steps_done, wait_for

TINY = [
    "trainer.steps=2",
    "trainer.train_batch_size=4",
    "trainer.rollout_n=4",
    "trainer.mini_batches=2",
    "trainer.eval_every=2",
    "trainer.eval_samples=2",
    "runtime.checkpoint_every=1",
]
SEARCH = ["sweep", "beta_search", "arms={}", "seeds=[1,2]", "search.points=3", *TINY]


def _points(folder: Path) -> list[tuple[dict[str, Any], Any, str]]:
    """(parameters, values, state) of every point of the stored study."""
    import optuna

    url = f"sqlite:///{folder}/runs/_searches/beta_search.db"
    study = optuna.load_study(study_name="beta_search", storage=url)
    return [(point.params, point.values, point.state.name) for point in study.trials]


@pytest.mark.slow
def test_a_killed_search_ends_as_the_uninterrupted_one(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    printed = lab(whole, *SEARCH)
    assert "Pareto front" in printed
    assert "python -m cegppo_lab ui" in printed
    with open(whole / "report/beta_search/search.csv") as file:
        assert [row["state"] for row in csv.DictReader(file)] == ["complete"] * 3
    assert json.loads((whole / "report/beta_search/search.json").read_text())["points"] == 3

    driver = start(killed, *SEARCH)
    wait_for(lambda: steps_done(killed) >= 5)  # in the second point
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    wait_for(lambda: not processes_in(killed), timeout=60)
    before = _points(killed)
    assert [state for _, _, state in before] == ["COMPLETE", "RUNNING"]
    lab(killed, *SEARCH)
    assert _points(killed)[0] == before[0]
    assert _points(killed)[1][0] == before[1][0]
    assert _points(killed) == _points(whole)
    assert numbers(killed) == numbers(whole)
    lab(killed, "sync", "beta_search")
    lab(killed, "verify")
    assert not processes_in(killed)
