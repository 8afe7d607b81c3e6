"""An algorithm in a file of the user's own, in Ray's workers, edited and then deleted."""

from __future__ import annotations

from pathlib import Path

import pytest

from cegppo_lab.store import RunStore
from tests.e2e.lab import TINY, lab, numbers

LOSS = """
from cegppo_lab.algorithms import Algorithm
from my_limit import LIMIT

class Mine(Algorithm):
    def weight(self, batch):
        return batch.ratio.clamp(max=LIMIT)
"""
SWEEP = """
question: Does it travel?
base: {task: table_walk, model: table_walk}
arms: {GRPO: {algorithm: grpo}, Mine: {algorithm: "my_losses:Mine"}}
seeds: [1]
"""


@pytest.mark.slow
def test_a_users_loss_is_swept_shipped_edited_and_outlived(tmp_path: Path) -> None:
    (tmp_path / "my_losses.py").write_text(LOSS)
    (tmp_path / "my_limit.py").write_text("LIMIT = 1.0\n")
    (tmp_path / "mine.yaml").write_text(SWEEP)
    sweep = ["sweep", "mine.yaml", *TINY, "trainer.steps=3", "cluster.ship_code=true"]
    lab(tmp_path, *sweep)
    first = numbers(tmp_path)
    assert len(first) == 2

    (tmp_path / "my_limit.py").write_text("LIMIT = 0.25\n")  # a gradient of a quarter at most
    lab(tmp_path, *sweep[:-1])
    second = numbers(tmp_path)
    assert first.items() <= second.items()
    (edited,) = set(second) - set(first)
    store = RunStore(tmp_path / "runs")
    planned = [trial for trial in first if store.run(trial).config()["algorithm"]["name"] != "grpo"]
    (before,) = (store.run(trial).steps()[0].metrics["actor/grad_norm"] for trial in planned)
    after = store.run(edited).steps()[0].metrics["actor/grad_norm"]
    assert 0 < after < before / 2

    for name in ("my_losses.py", "my_limit.py"):
        (tmp_path / name).unlink()
    assert "2 done" in lab(tmp_path, "status")
    assert "whole" in lab(tmp_path, "verify")
    lab(tmp_path, "report", "mine")
    assert "no module 'my_losses'" in lab(tmp_path, *sweep[:-1], code=2)
