"""Pruners: which points they give up, what that leaves in the store, and what a kill changes."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from cegppo_lab.compose import resolve
from cegppo_lab.errors import LabError
from cegppo_lab.execute import attempt
from cegppo_lab.sentinel import NO_RULES, SEARCH_RULES, PausedError, StopRules, search_rules
from cegppo_lab.store import STOPPED, RunStore, StepRecord
from cegppo_lab.sweep.plan import state_of
from cegppo_lab.sweep.search.driver import run_search
from cegppo_lab.trial import make_trial
from tests.unit.search_runs import ACCURACY, DRIFT, FakeRunner, finish, history, load

ASHA = {"name": "asha", "min_steps": 8, "reduction_factor": 2}
MEDIAN = {"name": "median", "min_steps": 16, "startup_points": 2}
PERCENTILE = {"name": "percentile", "percentile": 25, "min_steps": 16, "startup_points": 2}


class KilledError(BaseException):
    """Ends a search where a kill would."""


def _killed(search: Any, count: int) -> bool:
    """Run until the ``count``-th thing that is stored; whether the search ended before that."""
    left = itertools.count(count - 1, -1)

    def fused(original: Any) -> Any:
        def wrapped(*args: Any, **options: Any) -> Any:
            if next(left) == 0:
                raise KilledError
            return original(*args, **options)

        return wrapped

    with pytest.MonkeyPatch.context() as patch, search.study() as study:
        for owner, name in (
            (study.optuna, "add_trial"),
            (study.optuna, "tell"),
            (study._storage, "set_trial_user_attr"),
            (study._storage, "set_trial_intermediate_value"),
            (FakeRunner, "__call__"),
        ):
            patch.setattr(owner, name, fused(getattr(owner, name)))
        try:
            return run_search(search, study, FakeRunner(), lambda line: None)
        except KilledError:
            return False


@pytest.mark.slow
@pytest.mark.parametrize("pruner", [ASHA, MEDIAN, PERCENTILE], ids=lambda each: each["name"])
@pytest.mark.parametrize("parallel", [1, 3])
def test_a_killed_search_prunes_the_same_points(
    tmp_path: Path, pruner: dict[str, Any], parallel: int
) -> None:
    settings = {"points": 7, "parallel": parallel, "pruner": pruner}
    whole = load(tmp_path / "a", "seeds=[1]", **settings)
    finish(whole)
    expected = history(whole)
    assert {state for _, _, state in expected} == {"COMPLETE", "PRUNED"}
    counts = itertools.cycle((2, 3, 5, 4, 6))
    kills = 0
    while not _killed(load(tmp_path / "b", "seeds=[1]", **settings), next(counts)):
        kills += 1
        assert kills < 60, "no progress"
    assert kills > 3
    killed = load(tmp_path / "b", "seeds=[1]", **settings)
    assert history(killed) == expected
    rungs = []
    for search in (whole, killed):
        with search.study() as study:
            rungs.append([point.intermediate_values for point in study.points()])
    assert rungs[0] == rungs[1]


def test_a_pruned_point_is_stopped_for_its_search_and_goes_on_elsewhere(tmp_path: Path) -> None:
    search = load(tmp_path, points=6, pruner=ASHA, arms={"GRPO": {"algorithm": "grpo"}})
    said = finish(search)
    store, manifest = search.fixed.store(), search.fixed.store().manifest("mine")
    rules = StopRules(**manifest["stop"])
    with search.study() as study:
        pruned = [point for point in study.points() if point.state.name == "PRUNED"]
    assert pruned
    for point in pruned:
        (step, *_) = reversed(point.intermediate_values)
        for trial in search.trials(point.params):
            status = store.run(trial.trial_id).status()
            assert status.state == STOPPED
            assert status.reason == f"pruned at step {step} by asha, search mine"
            assert state_of(store, trial, rules) == STOPPED
            assert state_of(store, trial, NO_RULES) == "interrupted"
    assert sum("pruned at step" in line for line in said) == len(pruned)
    others = {row["trial_id"] for row in manifest["trials"]} - {
        trial.trial_id for point in pruned for trial in search.trials(point.params)
    }
    assert {store.run(trial_id).status().state for trial_id in others} == {"done"}


def test_a_limit_tries_so_many_points_and_changes_none(tmp_path: Path) -> None:
    settings = {"points": 4, "parallel": 3, "pruner": ASHA}
    whole, limited = (load(tmp_path / name, "seeds=[1]", **settings) for name in "ab")
    finish(whole)
    for tried in (2, 4):
        with limited.study() as study:
            assert run_search(limited, study, FakeRunner(), lambda line: None, limit=2)
            assert len(study.points()) - len(study.open()) == tried
    assert history(limited) == history(whole)


@pytest.mark.parametrize(
    ("search", "told"),
    [
        ({"pruner": "ahsa"}, "unknown pruner 'ahsa'. Did you mean 'asha'"),
        ({"pruner": "hyperband"}, "Allowed: asha, median, none, percentile"),
        ({"pruner": 3}, "must be a name or {name: asha, ...}"),
        ({"pruner": {"min_steps": 8}}, "must be a name or {name: asha, ...}"),
        ({"pruner": {"name": "none", "min_steps": 8}}, "none has no option min_steps"),
        ({"pruner": ASHA | {"factor": 2}}, "unknown key of search.pruner 'factor'"),
        ({"pruner": ASHA | {"reduction_factor": 1}}, "search.pruner.reduction_factor=1"),
        ({"pruner": "percentile"}, "search.pruner.percentile is missing"),
        ({"pruner": "asha", "objectives": [ACCURACY, DRIFT]}, "a pruner needs one objective"),
        ({"pruner": ASHA | {"min_steps": 64}}, "is not before the last step, 64"),
        ({"pruner": ASHA | {"min_steps": 1}}, "is before the first evaluation"),
        (
            {"pruner": ASHA, "space": {"trainer.steps": {"low": 32, "high": 64, "int": True}}},
            "points that differ in trainer.steps",
        ),
    ],
)
def test_a_mistake_in_the_pruner_is_one_line(
    tmp_path: Path, search: dict[str, Any], told: str
) -> None:
    with pytest.raises(LabError) as caught:
        load(tmp_path, **search).checked()
    (line,) = str(caught.value).splitlines()
    assert told in line


@pytest.mark.parametrize("saves", [True, False])
def test_a_run_pauses_at_its_step_and_a_trainer_may_save_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saves: bool
) -> None:
    saved: list[int] = []

    class Trainer:
        def run(self, config: Any, checkpoints: Path) -> Any:
            for step in itertools.count(1):
                try:
                    yield StepRecord(step, {})
                except PausedError:
                    if not saves:
                        raise
                    saved.append(step)
                    return

    monkeypatch.setattr("cegppo_lab.execute.make_trainer", lambda name: Trainer())
    store, trial = RunStore(tmp_path), make_trial(resolve({}))
    assert len(list(attempt(store, trial, StopRules(at_step={"step": 3})))) == 3
    status = store.run(trial.trial_id).status()
    assert (status.state, status.step, status.rule) == (STOPPED, 3, {"at_step": {"step": 3}})
    assert status.reason == "at_step at step 3: 3 steps were asked for"
    assert saved == ([3] if saves else [])


def test_a_search_has_stop_rules_unless_its_file_says_otherwise(tmp_path: Path) -> None:
    assert load(tmp_path).checked().spec.stop == SEARCH_RULES
    assert load(tmp_path, "stop={}").checked().spec.stop == NO_RULES
    rules = load(tmp_path, "stop={non_finite:null,kl_above:{value:9,steps:1}}").rules
    assert set(rules.on()) == {"entropy_below", "kl_above"}
    assert rules.kl_above.value == 9
    assert search_rules(None) == SEARCH_RULES
