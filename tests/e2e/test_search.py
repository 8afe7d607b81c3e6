"""Searches end to end: real processes, real Ray, drivers killed for real.

The uninterrupted searches run in this process, without Ray: what they arrive at is the same.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cegppo_lab.execute import attempt
from cegppo_lab.sentinel import NO_RULES
from cegppo_lab.store import RunStore
from cegppo_lab.sweep.plan import Plan, make_plan
from cegppo_lab.sweep.search.definition import Search
from cegppo_lab.sweep.search.driver import run_search
from cegppo_lab.trial import Trial
from tests.e2e.lab import lab, numbers, processes_in, start, steps_done, wait_for

pytestmark = pytest.mark.slow

ENTROPY = {"metric": "actor/entropy", "goal": "maximize"}
REWARD = {"metric": "critic/rewards/mean", "goal": "maximize"}
ASHA = {"name": "asha", "min_steps": 2, "reduction_factor": 2}
BASE = {
    "task": "table_walk",
    "model": "table_walk",
    "algorithm": "cegppo",
    "trainer.train_batch_size": 4,
    "trainer.rollout_n": 4,
    "trainer.mini_batches": 2,
    "trainer.eval_every": 4,
    "trainer.eval_samples": 1,
    "trainer.lr_warmup_steps": 0,
    "runtime.checkpoint_every": 1,
}
SPACE = {
    "algorithm.beta1": {"low": 0.0, "high": 1.0},
    "trainer.lr": {"low": 1e-4, "high": 1e-2, "log": True},
}
SWEEP = ["sweep", "mine.yaml"]


def _folder(path: Path, *, steps: int, seeds: list[int], **search: Any) -> Path:
    """A folder with the sweep file ``mine.yaml``, a search over tiny runs."""
    tree = {
        "question": "?",
        "base": {**BASE, "trainer.steps": steps},
        "search": {"objectives": [ENTROPY], "space": SPACE, **search},
        "seeds": seeds,
    }
    path.mkdir()
    (path / "mine.yaml").write_text(yaml.safe_dump(tree))
    return path


def _uninterrupted(folder: Path) -> Search:
    """The search of ``folder``, run here to its end."""
    plan = make_plan(str(folder / "mine.yaml"), (), {"runtime.store": str(folder / "runs")})
    search = Search(plan, plan.spec.search)
    with search.study() as study:
        assert run_search(search, study, _run_here, lambda line: None)
    return search


def _run_here(plan: Plan, trials: list[Trial]) -> bool:
    for trial in trials:
        for _ in attempt(plan.store(), trial, plan.spec.stop):
            pass
    return True


def _points(folder: Path) -> list[tuple[dict[str, Any], Any, str, dict[int, float]]]:
    """(parameters, values, state, values at the rungs) of every point of the stored study."""
    import optuna

    url = f"sqlite:///{folder}/runs/_searches/mine.db"
    study = optuna.load_study(study_name="mine", storage=url)
    return [(p.params, p.values, p.state.name, p.intermediate_values) for p in study.trials]


def _count(folder: Path, state: str) -> int:
    """Points in ``state``, read beside the search."""
    path = folder / "runs/_searches/mine.db"
    if not path.exists():
        return 0
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
            query = "select count(*) from trials where state = ?"
            return database.execute(query, (state,)).fetchone()[0]
    except sqlite3.OperationalError:  # no table yet
        return 0


def _kill(folder: Path, when: Callable[[], bool]) -> None:
    """Start the search, kill its driver at ``when``, and see that all that it started ends."""
    driver = start(folder, *SWEEP)
    wait_for(lambda: when() or driver.poll() is not None)
    assert driver.poll() is None, (folder / "log").read_text()
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    wait_for(lambda: not processes_in(folder), timeout=60)


def _attempts(folder: Path) -> list[int]:
    store = RunStore(folder / "runs")
    return [len(store.run(trial_id).provenance()) for trial_id in store.trial_ids()]


def test_a_search_killed_after_7_of_20_points_goes_on_at_the_8th(tmp_path: Path) -> None:
    settings = {"points": 20, "objectives": [ENTROPY, REWARD]}
    whole = _folder(tmp_path / "whole", steps=2, seeds=[1], **settings)
    killed = _folder(tmp_path / "killed", steps=2, seeds=[1], **settings)
    _uninterrupted(whole)
    expected = _points(whole)
    assert len({tuple(values) for _, values, _, _ in expected}) > 15, "the sampler has to learn"

    _kill(killed, lambda: _count(killed, "COMPLETE") >= 7)
    before = _points(killed)
    assert [state for _, _, state, _ in before[:7]] == ["COMPLETE"] * 7
    assert before[:7] == expected[:7]
    assert [state for _, _, state, _ in before[7:]] in ([], ["RUNNING"])
    told = lab(killed, "plan", "mine.yaml")
    assert (
        f"7 complete, {20 - len(before)} not suggested yet".replace(
            ", ", ", 1 open, " if before[7:] else ", "
        )
        in told
    )
    printed = lab(killed, *SWEEP, timeout=600)
    assert "point 7 of 20" not in printed
    assert "point 9 of 20" in printed
    assert _points(killed) == expected
    assert numbers(killed) == numbers(whole)
    assert sorted(_attempts(killed))[:19] == [1] * 19, "no finished point ran again"

    assert "Pareto front" in printed
    assert "python -m cegppo_lab ui" in printed
    with open(killed / "report/mine/search.csv") as file:
        assert [row["state"] for row in csv.DictReader(file)] == ["complete"] * 20
    assert json.loads((killed / "report/mine/search.json").read_text())["points"] == 20
    lab(killed, "sync", "mine")
    lab(killed, "verify")
    assert not processes_in(killed)


def test_no_point_of_several_at_a_time_is_lost_or_repeated(tmp_path: Path) -> None:
    settings = {"points": 5, "parallel": 3}
    whole = _folder(tmp_path / "whole", steps=2, seeds=[1, 2], **settings)
    killed = _folder(tmp_path / "killed", steps=2, seeds=[1, 2], **settings)
    _uninterrupted(whole)
    _kill(killed, lambda: steps_done(killed) >= 5)  # in the first three points
    assert _count(killed, "RUNNING") == 3
    _kill(killed, lambda: steps_done(killed) >= 14)  # in the last two
    lab(killed, *SWEEP)
    expected = _points(whole)
    assert [state for _, _, state, _ in expected] == ["COMPLETE"] * 5
    assert _points(killed) == expected
    assert numbers(killed) == numbers(whole)
    assert len(_attempts(killed)) == 10
    lab(killed, "verify")
    assert not processes_in(killed)


def test_a_killed_search_gives_up_the_same_points_and_rungs_change_no_number(
    tmp_path: Path,
) -> None:
    settings = {"points": 4, "parallel": 2, "pruner": ASHA}
    whole = _folder(tmp_path / "whole", steps=5, seeds=[1], **settings)
    killed = _folder(tmp_path / "killed", steps=5, seeds=[1], **settings)
    search = _uninterrupted(whole)
    expected = _points(whole)
    assert {state for _, _, state, _ in expected} == {"COMPLETE", "PRUNED"}
    assert {step for *_, rungs in expected for step in rungs} == {2, 4}
    _kill(killed, lambda: steps_done(killed) >= 3)  # before the first rung
    _kill(killed, lambda: _count(killed, "PRUNED") >= 1)  # its last runs are to go on
    lab(killed, *SWEEP)
    assert _points(killed) == expected
    assert numbers(killed) == numbers(whole)
    (best, *_) = [params for params, _, state, _ in expected if state == "COMPLETE"]
    (trial,) = search.trials(best)
    for _ in attempt(RunStore(tmp_path / "plain/runs"), trial, NO_RULES):
        pass
    assert numbers(tmp_path / "plain")[trial.trial_id] == numbers(killed)[trial.trial_id]
    lab(killed, "verify")
    assert not processes_in(killed)
