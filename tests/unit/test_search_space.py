"""The section ``search:`` of a sweep file: what it says, and what it may not say."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from cegppo_lab.errors import LabError
from cegppo_lab.sweep.confounds import refuse_confounds
from cegppo_lab.sweep.plan import make_plan
from cegppo_lab.sweep.search import space as spaces
from tests.unit.search_runs import ACCURACY, BETAS, DRIFT, finish, history, load, sweep_file

ALGORITHMS = {
    "algorithm": {"choices": ["cegppo", "grpo"]},
    "algorithm.beta1": {"low": 0.0, "high": 1.0, "when": {"algorithm": "cegppo"}},
    "algorithm.clip_high": {"low": 0.2, "high": 0.3, "when": {"algorithm": ["cegppo", "grpo"]}},
}


def _launch(folder: Path, *words: str, **search: Any) -> None:
    """All that `sweep` checks before it starts."""
    made = load(folder, *words, **search)
    refuse_confounds(made.checked().confounds())
    with made.study():
        pass


def _message(folder: Path, *words: str, **search: Any) -> str:
    """The one line that refuses such a search before anything starts."""
    with pytest.raises(LabError) as caught:
        _launch(folder, *words, **search)
    assert not (folder / "runs" / "_sweeps").exists()
    (line,) = str(caught.value).splitlines()
    return line


@pytest.mark.parametrize(
    ("search", "told"),
    [
        ({"sampler": "tpi"}, "unknown sampler 'tpi'. Did you mean 'tpe'"),
        ({"points": 0}, "search.points=0"),
        ({"parallel": 0}, "search.parallel=0"),
        ({"space": {}}, "search.space"),
        ({"objectives": []}, "search.objectives"),
        ({"point": 3}, "unknown key of mine.yaml.search 'point'. Did you mean 'points'"),
        ({"objectives": [ACCURACY, ACCURACY]}, "listed twice"),
        ({"objectives": [ACCURACY | {"metric": "acuracy"}]}, "Did you mean 'accuracy'"),
        ({"objectives": [DRIFT | {"metric": "actor/entrop"}]}, "Did you mean 'actor/entropy'"),
        ({"objectives": [ACCURACY | {"benchmark": "table_wlk"}]}, "Did you mean 'table_walk'"),
        ({"objectives": [DRIFT | {"benchmark": "table_walk"}]}, "on no benchmark"),
        ({"objectives": [{"metric": "accuracy"}]}, "goal is missing"),
        ({"storage": "postgresql://me:secret@127.0.0.1:9/x"}, "search.storage=postgresql://me:***"),
        ({"storage": "nonsense"}, "search.storage=nonsense: cannot be opened"),
        ({"storage": "sqlite:////nowhere/at/all.db"}, "cannot be opened"),
    ],
)
def test_a_mistake_in_the_search_is_one_line(
    tmp_path: Path, search: dict[str, Any], told: str
) -> None:
    line = _message(tmp_path, **search)
    assert told in line
    assert "secret" not in line


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"low": 1.0, "high": 1.0}, "search.space.algorithm.beta1: low 1 must be below high 1"),
        ({"low": 0.0, "high": 1.0, "log": True}, "must be above 0 where log"),
        ({"low": 0.1, "high": 1.0, "log": True, "step": 0.1}, "log and step exclude each other"),
        ({"low": 0.5, "high": 2, "int": True}, "must be whole numbers"),
        ({"low": 0.0}, "search.space.algorithm.beta1.high is missing"),
        ({"low": "a", "high": 1.0}, "search.space.algorithm.beta1.low='a'"),
        ({"low": 0.0, "high": 1.0, "lg": True}, "Did you mean 'log'"),
        ({"choices": []}, "search.space.algorithm.beta1.choices"),
        ({"choices": [0.5, 0.5]}, "0.5 is listed twice"),
        ({"low": -1.0, "high": 1.0}, "must be >= 0"),
        ({"schedule": {"from": 0.0, "to": 1.0}}, "must have from, to and at"),
        ({"schedule": {"from": 0.0, "to": 1.0, "at": 0.5}}, "whole steps, 1 or more"),
        ({"low": 0, "high": 1, "when": {"algorithm": "grpo"}}, "unknown key of search.space"),
        (0.5, "must be {low: A, high: B} or {choices: [..]}"),
    ],
)
def test_a_mistake_in_the_space_is_one_line(tmp_path: Path, entry: Any, told: str) -> None:
    assert told in _message(tmp_path, space={"algorithm.beta1": entry})


def test_keys_that_do_not_exist_and_confounds_are_refused_before_the_launch(
    tmp_path: Path,
) -> None:
    numbers = BETAS["algorithm.beta1"]
    assert "Did you mean 'beta1'" in _message(tmp_path, space={"algorithm.bet1": numbers})
    assert "search.space.seed" in _message(tmp_path, space={"seed": {"choices": [1, 2]}})
    alone = {"algorithm": {"choices": ["cegppo", "dapo"]}}
    assert "algorithm.clip_high" in _message(tmp_path, space=alone)
    when = {
        "algorithm": {"choices": ["cegppo"]},
        "algorithm.beta1": numbers | {"when": {"algorithm": "gppo"}},
    }
    assert "unknown choice of algorithm 'gppo'" in _message(tmp_path, space=when)
    assert "change the sweep file" in _message(tmp_path, "algorithm.beta1=0.5")


def test_searched_keys_are_declared(tmp_path: Path) -> None:
    search = load(tmp_path, space=ALGORITHMS, arms={"GRPO": {"algorithm": "grpo"}})
    assert search.checked().confounds() == []


def test_conditional_keys_are_there_only_under_their_condition(tmp_path: Path) -> None:
    search = load(tmp_path, space=ALGORITHMS, points=8, sampler="random")
    finish(search)
    by_algorithm = {"cegppo": set(), "grpo": set()}
    for params, _, state in history(search):
        assert state == "COMPLETE"
        by_algorithm[params["algorithm"]].add(tuple(params))
    assert by_algorithm["cegppo"] == {("algorithm", "algorithm.beta1", "algorithm.clip_high")}
    assert by_algorithm["grpo"] == {("algorithm", "algorithm.clip_high")}


def test_a_switch_becomes_a_schedule_and_a_name(tmp_path: Path) -> None:
    parts = {"from": 0.0, "to": {"low": 0.5, "high": 1.0}, "at": {"low": 8, "high": 56, "step": 8}}
    space = {"algorithm.beta1": {"schedule": parts}, "algorithm.beta2": {"choices": [1.0]}}
    search = load(tmp_path, space=space)
    point = {"algorithm.beta1.to": 0.75, "algorithm.beta1.at": 16, "algorithm.beta2": "1.0"}
    (first, _) = search.trials(point)
    assert first.config.algorithm.beta1 == {0: 0.0, 16: 0.75}
    assert first.arm == "beta1=0>0.75@16 beta2=1"
    finish(search)
    for params, _, _ in history(search):
        assert params["algorithm.beta1.at"] % 8 == 0
        assert isinstance(params["algorithm.beta1.at"], int)


def test_the_name_of_an_arm_says_exactly_what_is_run(tmp_path: Path) -> None:
    space = BETAS | {"trainer.lr": {"low": 1e-6, "high": 1e-3, "log": True}}
    search = load(tmp_path, space=space, points=3)
    finish(search)
    for row in search.fixed.store().manifest("mine")["arms"]:
        told = dict(part.split("=") for part in row["name"].split())
        assert {k: float(v) for k, v in told.items()} == {
            key.rpartition(".")[2]: value for key, value in row["differs"].items()
        }


def test_rounding_stays_within_the_bounds() -> None:
    import optuna

    draw = random.Random(1)
    for _ in range(200):
        low = draw.uniform(-1, 1)
        high = low + draw.uniform(1e-6, 1e-2)
        limits = optuna.distributions.FloatDistribution(low, high)
        value = spaces.rounded({"x": draw.uniform(low, high)}, {"x": limits})["x"]
        assert low <= value <= high


def test_corners_are_every_choice_at_both_ends() -> None:
    space = spaces.parse_space(ALGORITHMS, "search.space")
    low = [("cegppo", 0.0, 0.2), ("grpo", None, 0.2)]
    high = [("cegppo", 1.0, 0.3), ("grpo", None, 0.3)]
    keys = ("algorithm", "algorithm.beta1", "algorithm.clip_high")
    found = [tuple(point.get(key) for key in keys) for point in spaces.corners(space)]
    assert found == low + high


def test_a_search_without_arms_plans_nothing_before_it_starts(tmp_path: Path) -> None:
    plan = make_plan(sweep_file(tmp_path), [], {"runtime.store": str(tmp_path)})
    assert plan.trials == []
    assert plan.runtime.store == str(tmp_path)
