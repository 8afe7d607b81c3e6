"""What a report says of a search: fronts, surfaces, importances, the page; whole or half done."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.load import StoreSource
from analysis.report import write_report
from analysis.search import fronts, importance, responses, table
from analysis.search.study import Searched, read_search
from analysis.search.surface import Axis, fit_surface, inside
from cegppo_lab.store import STOPPED
from cegppo_lab.sweep.search.driver import run_search
from tests.unit.search_runs import ACCURACY, DRIFT, FakeRunner, finish, load, numbers

UP = {"title": "up", "goal": "maximize"}
DOWN = {"title": "down", "goal": "minimize"}


def number(low: float = 0.0, high: float = 1.0, *, log: bool = False) -> dict[str, Any]:
    """A distribution as a manifest has it."""
    attributes = {"low": low, "high": high, "log": log, "step": None}
    return {"name": "FloatDistribution", "attributes": attributes}


def point(place: int, values: list[float] | None, *seeds: list[float], **other: Any) -> Any:
    """A point of a manifest; ``seeds``: its runs' values, by default one run."""
    by_seed = {str(i): list(each) for i, each in enumerate(seeds or ([values] if values else []))}
    return {
        "number": place, "state": "complete", "arm": f"arm {place}", "reason": "", "trials": [],
        "parameters": {}, "values": values, "by_seed": by_seed, **other,
    }  # fmt: skip


def searched(points: list[Any], objectives: list[Any], **parameters: Any) -> Searched:
    """A search of these points."""
    told = {
        "sampler": "random", "points": len(points), "seeds": [1], "objectives": objectives,
        "parameters": parameters, "tried": points,
        "fixed": [{"arm": "GRPO", "trials": [], "by_seed": {"1": [0.5] * len(objectives)}}],
    }  # fmt: skip
    return read_search({"search": told})


def over_square(count: int, value: Any) -> Searched:
    """A search over a and b in [0, 1] with ``value(a, b)`` as its objective."""
    draws = np.random.default_rng(0).uniform(size=(count, 2))
    points = [
        point(i, [float(value(a, b))], parameters={"a": a, "b": b})
        for i, (a, b) in enumerate(draws.tolist(), 1)
    ]
    return searched(points, [UP], a=number(), b=number())


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    monkeypatch.setattr(importance, "RESAMPLES", 4)


def test_the_front_is_what_no_point_dominates():
    values = np.random.default_rng(1).uniform(size=(30, 2)).tolist()
    points = [point(i, pair) for i, pair in enumerate(values, 1)]
    points.append(point(31, [2.0, -1.0], state="pruned"))
    found = {each.number for each in searched(points, [UP, DOWN]).best()}
    expected = {
        i
        for i, (u, d) in enumerate(values, 1)
        if not any(x >= u and y <= d and [x, y] != [u, d] for x, y in values)
    }
    assert found == expected
    assert 1 < len(found) < 30


@pytest.mark.parametrize(("objective", "expected"), [(UP, 2), (DOWN, 3)])
def test_the_best_point_follows_the_goal(objective, expected):
    points = [point(1, [0.4]), point(2, [0.9]), point(3, [0.1]), point(4, None, state="failed")]
    assert [each.number for each in searched(points, [objective]).best()] == [expected]


@pytest.mark.parametrize(("objective", "best"), [(UP, [0.4, 0.9, 0.9]), (DOWN, [0.4, 0.4, 0.1])])
def test_the_history_steps_to_the_best_so_far(objective, best):
    points = [point(1, [0.4]), point(2, [0.9]), point(3, [0.1])]
    drawn = fronts.draw_found(searched(points, [objective]))
    steps = [line for line in drawn.figure.axes[0].lines if line.get_drawstyle() == "steps-post"]
    assert steps[0].get_ydata().tolist() == best


def test_the_front_is_drawn_between_its_corners_and_stays_below_what_is_unknown():
    points = [point(1, [0.2, 0.1]), point(2, [0.8, 0.5]), point(3, [0.1, 0.9])]
    axes = fronts.draw_found(searched(points, [UP, DOWN])).figure.axes[0]
    (step,) = [line for line in axes.lines if line.get_drawstyle().startswith("steps")]
    assert step.get_drawstyle() == "steps-post"  # of drift below 0.5 only 0.2 is known
    assert step.get_xydata().tolist() == [[0.1, 0.2], [0.5, 0.8]]


def test_a_surface_finds_an_analytic_function_and_says_how_well():
    found = over_square(24, lambda a, b: -((a - 0.3) ** 2) + 0.2 * b)
    places = np.array([[p.parameters["a"], p.parameters["b"]] for p in found.points])
    surface = fit_surface(places, found.values(found.points)[:, 0])
    assert surface.useful
    assert surface.error < 0.1 * surface.error_of_mean
    grid = np.array([[0.3, 0.5], [0.7, 0.5]])
    assert surface.over([0, 1], grid) == pytest.approx([0.1, -0.06], abs=0.01)
    over_a = surface.over([0], grid[:, :1])  # averaged over b as measured
    mean_b = places[:, 1].mean()
    assert over_a == pytest.approx([0.2 * mean_b, -0.16 + 0.2 * mean_b], abs=0.01)


def test_noise_gives_a_surface_that_says_it_is_not_to_be_read():
    noise = np.random.default_rng(5)
    found = over_square(16, lambda a, b: noise.normal())
    assert "do not read its shape" in responses.draw_response(found, 0, []).caption


@pytest.mark.parametrize(("count", "fitted"), [(7, False), (8, True)])
def test_too_few_points_are_shown_alone_with_a_sentence(count, fitted):
    drawn = responses.draw_response(over_square(count, lambda a, b: a), 0, [])
    meshes = [c for c in drawn.figure.axes[0].collections if "QuadMesh" in type(c).__name__]
    assert bool(meshes) is fitted
    assert (f"No surface is fitted: {count} complete points" in drawn.caption) is not fitted
    if fitted:
        heights = np.ma.getmaskarray(meshes[0].get_array())
        assert heights.any(), "nothing is drawn outside the points' hull"
        assert not heights.all()


def test_the_hull_and_a_logarithmic_axis():
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert inside(corners, np.array([[0.2, 0.2], [0.9, 0.9]])).tolist() == [True, False]
    line = np.array([[0.0, 0.0], [0.5, 0.5], [1.0, 1.0]])
    assert not inside(line, np.array([[0.5, 0.5]])).any()
    unit = Axis("x", 1e-4, 1.0, log=True).unit(np.array([1e-4, 1e-2, 1.0]))
    assert unit == pytest.approx([0, 0.5, 1])


def test_choices_and_conditional_parameters_get_strips_and_no_importance_of_their_own():
    choice = {"name": "CategoricalDistribution", "attributes": {"choices": ["x", "y"]}}
    points = [
        point(i, [i / 10], parameters={"kind": "xy"[i % 2], "a": i / 10}
              | ({"c": 0.5} if i % 2 else {}))
        for i in range(1, 10)
    ]  # fmt: skip
    found = searched(points, [UP], a=number(), c=number(), kind=choice)
    shares = importance.importances(found)
    assert {one.parameter for one in shares} == {"a", "kind"}
    drawn = responses.draw_response(found, 0, shares)
    assert [axes.get_xlabel() for axes in drawn.figure.axes[:3]] == ["a", "c", "kind"]
    assert "Not part of the fit: c, kind" in drawn.caption


def test_importances_name_the_parameter_that_matters_and_need_eight_points():
    found = importance.importances(over_square(20, lambda a, b: a + 0.1 * b))
    assert [one.parameter for one in found] == ["a", "b"]
    assert found[0].value > 0.8
    assert sum(one.value for one in found) == pytest.approx(1)
    assert all(0 <= one.low <= one.high <= 1 for one in found)
    assert importance.importances(over_square(7, lambda a, b: a)) == []


def test_one_seed_has_no_interval_and_several_have_scipys():
    one = searched([point(1, [0.5])], [UP])
    assert fronts.bars(one).startswith("One run a point")
    assert not one.points[0].estimate(0).low
    two = searched([point(1, [0.5], [0.4], [0.6])], [UP])
    assert two.points[0].estimate(0).low == pytest.approx(0.5 - 12.7062 * 0.1, abs=1e-3)


@pytest.fixture(scope="module")
def half_done(tmp_path_factory):
    """A search stopped after 9 of 20 points, its 10th open; one point failed, one run stopped."""
    folder = tmp_path_factory.mktemp("search")
    arms = {"GRPO": {"algorithm": "grpo"}}
    search = load(folder, points=20, objectives=[ACCURACY, DRIFT], arms=arms, sampler="random")
    runner, calls = FakeRunner(), []

    def run(plan: Any, trials: list[Any]) -> bool:
        calls.append(trials)
        if len(calls) == 2:
            runner.failing = lambda trial: trial.seed == 2
            runner(plan, trials)
            runner.failing = lambda trial: False
            return True
        if len(calls) == 10:
            return False
        runner(plan, trials)
        if len(calls) == 3:
            with plan.store().writer(trials[0].trial_id, {}) as writer:
                writer.set_status(STOPPED, reason="entropy below 0.05", step=2, steps=64)
        return True

    with search.study() as study:
        assert not run_search(search, study, run, lambda line: None)
        best = {trial.number + 1 for trial in study.optuna.best_trials}
    return search, best


@pytest.fixture(scope="module")
def result(half_done, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importance, "RESAMPLES", 2)
        return write_report(StoreSource(half_done[0].fixed.store()), "mine", folder)


@pytest.mark.slow
def test_a_half_finished_search_has_a_page_with_all_of_its_points(half_done, result):
    _, best = half_done
    html = result.path_to_index.read_text()
    assert "10 of 20 points were suggested (random): 8 complete, 1 failed, 1 open." in html
    assert "RuntimeError: out of luck" in html
    assert "seed 1 stopped at step 2 (entropy below 0.05)" in html
    assert all(f"{number} (front)" in html for number in best)
    assert html.count("(front)") == len(best)
    for key in ("search_front", "search_response_1", "search_response_2", "search_importances"):
        assert f'<figure id="{key}">' in html
        for suffix in ("png", "pdf", "json"):
            assert (result.path_to_index.parent / f"{key}.{suffix}").stat().st_size
    assert "Pareto front:" in result.table_text
    assert "importances for accuracy(table_walk) at end: algorithm.beta1" in result.table_text


def test_the_table_has_what_the_runs_measured(half_done):
    search, best = half_done
    found = read_search(search.fixed.store().manifest("mine"))
    rows = list(csv.DictReader(io.StringIO(table.points_csv(found))))
    assert [row["state"] for row in rows].count("complete") == 8
    assert {int(row["number"]) for row in rows if row["best"] == "True"} == best
    for row in (row for row in rows if row["state"] == "complete"):
        params = {key: float(row[key]) for key in ("algorithm.beta1", "algorithm.beta2")}
        trials = search.trials(params)
        runs = [numbers(trial)[0] for trial in trials]
        assert float(row["accuracy(table_walk) at end"]) == pytest.approx(np.mean(runs))
        assert row["accuracy(table_walk) at end, seeds"] == "2"
        assert row["trials"].split() == [trial.trial_id for trial in trials]
    assert [row["arm"] for row in rows if row["state"] == "fixed"] == ["GRPO"]
    section = table.points_section(found, StoreSource(search.fixed.store()).sweep("mine"))
    text = "\n".join(" | ".join(row) for row in section.rows)
    assert text.count("(front)") == len(best)
    assert all(f"{number} (front)" in text for number in best)
    assert "RuntimeError: out of luck" in text
    assert "seed 1 stopped at step 2 (entropy below 0.05)" in text


@pytest.mark.slow
def test_curves_are_drawn_of_the_fixed_and_the_best_arms_alone(half_done, result):
    search, best = half_done
    query = (result.path_to_index.parent / "entropy.json").read_text()
    points = search.fixed.store().manifest("mine")["search"]["tried"]
    worse = [each for each in points if each["state"] == "complete" and each["number"] not in best]
    assert worse
    assert all(each["arm"] not in query for each in worse)
    assert "GRPO" in query


def test_pruned_points_are_marked_and_no_part_of_the_best():
    points = [point(1, [0.4]), point(2, [0.9], state="pruned", reason="median rule")]
    found = searched(points, [UP])
    drawn = fronts.draw_found(found)
    assert "pruned" in " ".join(text.get_text() for text in drawn.figure.legends[0].get_texts())
    assert [each.number for each in table.ordered(found)] == [1, 2]
    assert [each.number for each in found.best()] == [1]


def test_facts_of_told_points_are_not_read_again(tmp_path: Path):
    search = load(tmp_path, points=3)
    finish(search)
    before = search.fixed.store().manifest("mine")["search"]
    for trial_id in search.fixed.store().trial_ids():
        (search.fixed.store().run(trial_id).path / "steps.jsonl").unlink(missing_ok=True)
        (search.fixed.store().run(trial_id).path / "evals.jsonl").unlink(missing_ok=True)
    finish(load(tmp_path, points=3))
    assert search.fixed.store().manifest("mine")["search"] == before
    assert all(len(each["by_seed"]) == 2 for each in before["tried"])
