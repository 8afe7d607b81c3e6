"""The loop of a search: what is suggested, run, told; and what a kill leaves of it."""

from __future__ import annotations

import itertools
import statistics
from pathlib import Path
from typing import Any

import pytest

from cegppo_lab.errors import LabError
from cegppo_lab.store import STOPPED
from cegppo_lab.sweep.plan import arm_trials
from cegppo_lab.sweep.search.definition import Search
from cegppo_lab.sweep.search.driver import run_search
from cegppo_lab.sweep.search.settings import SearchSpec
from cegppo_lab.sweep.search.study import Study
from tests.unit.search_runs import (
    ACCURACY,
    BETAS,
    DRIFT,
    FakeRunner,
    finish,
    history,
    load,
    numbers,
)


class KilledError(BaseException):
    """Ends a search where a kill would."""


class Fuse:
    """Kills at the ``count``-th of the events that it is called for."""

    def __init__(self, count: int) -> None:
        self.left = count

    def __call__(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise KilledError

    def around(self, patch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        """Make a call of ``owner.name`` two events: one before it, one after it."""
        original = getattr(owner, name)

        def wrapped(*args: Any, **options: Any) -> Any:
            self()
            result = original(*args, **options)
            self()
            return result

        patch.setattr(owner, name, wrapped)


def _run_killed(search: Search, count: int) -> bool:
    """Run until the ``count``-th event; whether the search came to its end before that."""
    fuse = Fuse(count)
    with pytest.MonkeyPatch.context() as patch, search.study() as study:
        for owner, name in (
            (study.optuna, "add_trial"),
            (study.optuna, "tell"),
            (study._storage, "set_trial_user_attr"),
        ):
            fuse.around(patch, owner, name)
        fuse.around(patch, FakeRunner, "__call__")
        try:
            return run_search(search, study, FakeRunner(_unlucky), lambda line: None)
        except KilledError:
            return False


def _unlucky(trial: Any) -> bool:
    return trial.config.algorithm.beta2 > 0.7


@pytest.mark.parametrize(("parallel", "points"), [(1, 12), (3, 7)])
def test_a_search_killed_at_every_instant_is_the_uninterrupted_one(
    tmp_path: Path, parallel: int, points: int
) -> None:
    settings = {"points": points, "parallel": parallel, "objectives": [ACCURACY, DRIFT]}
    undisturbed = load(tmp_path / "a", "seeds=[1]", **settings)
    finish(undisturbed, FakeRunner(_unlucky))
    counts = itertools.cycle(range(1, 7))  # Which event comes next differs from call to call.
    kills = 0
    while not _run_killed(load(tmp_path / "b", "seeds=[1]", **settings), next(counts)):
        kills += 1
        assert kills < 100, "no progress"
    assert kills > points / 2
    expected = history(undisturbed)
    assert len(expected) == points
    assert {state for _, _, state in expected} == {"COMPLETE", "FAIL"}
    assert history(load(tmp_path / "b", "seeds=[1]", **settings)) == expected
    stores = [load(tmp_path / name, "seeds=[1]", **settings).fixed.store() for name in "ab"]
    assert stores[0].trial_ids() == stores[1].trial_ids()
    rows = [store.manifest("mine")["trials"] for store in stores]
    assert rows[0] == rows[1]


def test_points_of_a_batch_run_together(tmp_path: Path) -> None:
    search, batches = load(tmp_path, points=5, parallel=3), []

    def run(plan: Any, trials: list[Any]) -> bool:
        batches.append(len({trial.arm for trial in trials}))
        return FakeRunner()(plan, trials)

    finish(search, run)
    assert batches == [3, 2]


def test_seeds_are_averaged_before_the_searcher_sees_them(tmp_path: Path) -> None:
    search = load(tmp_path, objectives=[ACCURACY, DRIFT])
    finish(search)
    for params, values, _ in history(search):
        runs = [numbers(trial) for trial in search.trials(params)]
        assert runs[0][0] != runs[1][0]
        accuracy = statistics.fmean(accuracy for accuracy, _ in runs)
        drift = statistics.fmean(abs(entropy - 1) for _, entropy in runs)
        assert values == pytest.approx([accuracy, drift], abs=1e-12)


def _study(path: Path, sampler: str, goals: list[str]) -> Study:
    objectives = [
        {"metric": ("accuracy", "entropy_drift")[i], "goal": goal} for i, goal in enumerate(goals)
    ]
    settings = SearchSpec(sampler=sampler, objectives=objectives, space=BETAS)
    return Study(settings, "mine", f"sqlite:///{path}", {})


def _walk(study: Study, points: int) -> list[dict[str, float]]:
    """Suggest and tell so many points; the first objective is greatest at beta1 = 0.3."""
    for _ in range(points):
        assert study.ask(lambda params: None)
        point = study.points()[-1]
        beta1, beta2 = point.params.values()
        study.tell(point, [-((beta1 - 0.3) ** 2), beta2][: len(study.optuna.directions)])
    return [point.params for point in study.points()]


def test_the_sampler_learns_from_the_points_before(tmp_path: Path) -> None:
    up, down = (
        [point["algorithm.beta1"] for point in _walk(_study(tmp_path / goal, "tpe", [goal]), 18)]
        for goal in ("maximize", "minimize")
    )
    assert up[:10] == down[:10], "TPE starts at random"
    assert statistics.fmean(up[10:]) < statistics.fmean(down[10:]) - 0.2


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random", "nsga2", "nsga3"])
def test_every_sampler_goes_on_from_a_stored_study(tmp_path: Path, sampler: str) -> None:
    goals = ["maximize", "minimize"]
    whole = _walk(_study(tmp_path / "a", sampler, goals), 12)
    _walk(_study(tmp_path / "b", sampler, goals), 11)
    assert _walk(_study(tmp_path / "b", sampler, goals), 1) == whole


def test_a_failed_run_fails_its_point_and_the_search_goes_on(tmp_path: Path) -> None:
    search = load(tmp_path, points=3)
    with search.study() as study:
        said: list[str] = []
        first: list[str] = []

        def failing(trial: Any) -> bool:
            first.append(trial.arm)
            return trial.arm == first[0] and trial.seed == 2

        assert run_search(search, study, FakeRunner(failing), said.append)
        points = study.points()
    assert [point.state.name for point in points] == ["FAIL", "COMPLETE", "COMPLETE"]
    assert "out of luck" in points[0].user_attrs["reason"]
    assert any("point 1 failed" in line and "out of luck" in line for line in said)
    runner = FakeRunner()
    finish(load(tmp_path, points=3), runner)
    assert not runner.trained, "a point that was told as failed is not tried again"


def test_values_that_a_run_refuses_fail_their_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(spec: Any, shared: Any, arm: str, values: dict[str, Any]) -> Any:
        if values == {"trainer.mini_batches": 3}:
            raise LabError("3 does not divide the batch")
        return arm_trials(spec, shared, arm, values)

    monkeypatch.setattr("cegppo_lab.sweep.search.definition.arm_trials", refusing)
    space = {"trainer.mini_batches": {"low": 2, "high": 4, "int": True}}
    search = load(tmp_path, points=3, space=space)
    finish(search)
    states = {params["trainer.mini_batches"]: state for params, _, state in history(search)}
    assert states == {2: "COMPLETE", 3: "FAIL", 4: "COMPLETE"}
    assert len(search.fixed.store().manifest("mine")["trials"]) == 4


def test_a_stopped_run_counts_with_what_it_measured(tmp_path: Path) -> None:
    search = load(tmp_path, points=1)

    def run(plan: Any, trials: list[Any]) -> bool:
        FakeRunner()(plan, trials)
        with plan.store().writer(trials[0].trial_id, {}) as writer:
            writer.set_status(STOPPED, reason="entropy collapse", step=2, steps=64)
        return True

    finish(search, run)
    assert history(search)[0][2] == "COMPLETE"


def test_points_are_never_repeated_and_a_space_may_run_out(tmp_path: Path) -> None:
    space = {"algorithm.beta1": {"low": 0.0, "high": 1.0, "step": 0.25}}
    search, runner = load(tmp_path, points=9, space=space), FakeRunner()
    said = finish(search, runner)
    assert sorted(p["algorithm.beta1"] for p, _, _ in history(search)) == [0, 0.25, 0.5, 0.75, 1]
    assert said[-1] == "the space has no more points: 5 of 9 tried"
    assert len(runner.trained) == len({trial.trial_id for trial in runner.trained}) == 10


def test_a_point_that_is_a_fixed_arm_shares_its_runs(tmp_path: Path) -> None:
    arms = {"middle": {"algorithm.beta1": 0.5}, "none": {"algorithm": "grpo"}}
    space = {"algorithm.beta1": {"low": 0.0, "high": 1.0, "step": 0.5}}
    search, runner = load(tmp_path, points=3, space=space, arms=arms), FakeRunner()
    finish(search, runner)
    assert len(history(search)) == 3
    manifest = search.fixed.store().manifest("mine")
    assert [arm["name"] for arm in manifest["arms"]].count("middle") == 1
    ids = [row["trial_id"] for row in manifest["trials"]]
    assert len(ids) == len(set(ids)) == 8 == len(runner.trained)
    assert {trial.arm for trial in runner.trained[:4]} == {"middle", "none"}, "fixed arms first"


def test_more_points_go_on_and_other_settings_are_refused(tmp_path: Path) -> None:
    finish(load(tmp_path, points=2))
    before = history(load(tmp_path, points=2))
    more, runner = load(tmp_path, points=3), FakeRunner()
    finish(more, runner)
    assert history(more)[:2] == before
    assert len(runner.trained) == 2
    with pytest.raises(LabError, match=r"other settings of every trial; .* name=NEW"):
        history(load(tmp_path, "trainer.lr=1e-5"))
    with pytest.raises(LabError, match="other seed;"):
        history(load(tmp_path, seed=5))


def test_one_process_at_a_time_searches(tmp_path: Path) -> None:
    with load(tmp_path).study(), pytest.raises(LabError, match="run by another process"):
        history(load(tmp_path))


def test_an_unfinished_call_leaves_the_point_to_the_next(tmp_path: Path) -> None:
    search = load(tmp_path, points=2)
    with search.study() as study:
        assert not run_search(search, study, lambda plan, trials: False, lambda line: None)
        assert [point.state.name for point in study.points()] == ["RUNNING"]
        assert isinstance(study, Study)
    finish(search)
    assert history(search) == history_of_fresh(tmp_path / "fresh")


def history_of_fresh(folder: Path) -> list[Any]:
    """What an undisturbed search of two points does."""
    search = load(folder, points=2)
    finish(search)
    return history(search)
