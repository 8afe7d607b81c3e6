"""Searches without training: runs whose numbers are a function of their configuration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from cegppo_lab import metrics as names
from cegppo_lab.execute import is_finished
from cegppo_lab.schedule import value_at
from cegppo_lab.store import DONE, FAILED, STOPPED, EvalRecord, StepRecord
from cegppo_lab.sweep.plan import Plan, make_plan
from cegppo_lab.sweep.search.definition import Search
from cegppo_lab.sweep.search.driver import run_search
from cegppo_lab.trial import Trial

ACCURACY = {"metric": "accuracy", "benchmark": "table_walk", "goal": "maximize"}
STEP_S = 36.0
"""What a training step takes, by what the runs say."""
DRIFT = {"metric": "entropy_drift", "goal": "minimize"}
BETAS = {
    "algorithm.beta1": {"low": 0.0, "high": 1.0},
    "algorithm.beta2": {"low": 0.0, "high": 1.0},
}


def sweep_file(folder: Path, *, arms: dict[str, Any] | None = None, **search: Any) -> str:
    """A sweep file with this search, by default over both betas; its path."""
    settings = {"points": 4, "objectives": [ACCURACY], "space": BETAS, **search}
    tree = {
        "name": "mine",
        "question": "?",
        "base": {"task": "table_walk", "algorithm": "cegppo"},
        "arms": arms or {},
        "search": settings,
        "seeds": [1, 2],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mine.yaml").write_text(yaml.safe_dump(tree))
    return str(folder / "mine.yaml")


def load(folder: Path, *words: str, **search: Any) -> Search:
    """The search of such a file, its store in ``folder``."""
    plan = make_plan(sweep_file(folder, **search), words, {"runtime.store": str(folder / "runs")})
    return Search(plan, plan.spec.search)


def numbers(trial: Trial) -> tuple[float, float]:
    """(accuracy, entropy at the end) of a run: best at beta1 = 0.3, seeds about their mean."""
    algorithm = trial.config.algorithm
    beta1, beta2 = (value_at(getattr(algorithm, key, 0.0), 1_000) for key in ("beta1", "beta2"))
    shift = 0.1 * (trial.seed - 1.5)
    return 0.5 - (beta1 - 0.3) ** 2 + shift, 1.0 - 0.5 * beta2 + shift


class FakeRunner:
    """Runs trials at once; ``failing`` says which fail, ``trained`` is what ran, in order."""

    def __init__(self, failing: Callable[[Trial], bool] = lambda trial: False) -> None:
        self.failing, self.trained = failing, []

    def __call__(self, plan: Plan, trials: list[Trial]) -> bool:
        store = plan.store()
        for trial in trials:
            if is_finished(store, trial.trial_id, plan.spec.stop):
                continue
            self.trained.append(trial)
            accuracy, entropy = numbers(trial)
            with store.writer(trial.trial_id, trial.stored_config()) as run:
                if self.failing(trial):
                    run.set_status(FAILED, reason="RuntimeError: out of luck")
                    continue
                verdicts = EvalRecord(1, "table_walk", ["a"], [0], [accuracy])
                run.add_provenance({})
                run.append(StepRecord(1, {names.ENTROPY: 1.0, names.TIME_STEP: STEP_S}))
                run.append(StepRecord(2, {names.ENTROPY: entropy}, [verdicts]))
                if pause := plan.spec.stop.at_step:
                    rule = {"at_step": {"step": pause.step}}
                    run.set_status(STOPPED, reason="paused", step=pause.step, steps=64, rule=rule)
                    continue
                run.set_status(DONE, step=2, steps=2)
        return True


def history(search: Search) -> list[tuple[dict[str, Any], Any, str]]:
    """(parameters, values, state) of every point, in the order of suggestion."""
    with search.study() as study:
        return [(point.params, point.values, point.state.name) for point in study.points()]


def finish(search: Search, runner: FakeRunner | None = None) -> list[str]:
    """Run the search to its end; what it said."""
    said: list[str] = []
    with search.study() as study:
        assert run_search(search, study, runner or FakeRunner(), said.append)
    return said
