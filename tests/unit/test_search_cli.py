"""`plan`, `sweep --budget` and the storage of a search, without training and without Ray."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from cegppo_lab.cli import cli
from cegppo_lab.cli.mirrored import mirrored
from cegppo_lab.errors import LabError
from cegppo_lab.sweep import meter as meters
from cegppo_lab.sweep.dispatch import Outcome
from cegppo_lab.sweep.search.driver import run_search
from tests.unit.search_runs import STEP_S, FakeRunner, finish, history, load, sweep_file

ARMS = {"GRPO": {"algorithm": "grpo"}}


def _invoke(folder: Path, command: str, *words: str) -> Any:
    places = ["--store", str(folder / "runs")]
    return CliRunner().invoke(cli, [command, str(folder / "mine.yaml"), *words, *places])


def _plan(folder: Path) -> tuple[str, dict[str, Any]]:
    """What ``plan`` says of the search in ``folder``: text, and JSON."""
    told = [_invoke(folder, "plan"), _invoke(folder, "plan", "--json")]
    assert [result.exit_code for result in told] == [0, 0], told
    return told[0].output, json.loads(told[1].output)


def _partly(folder: Path, **settings: Any) -> None:
    """A search whose first point failed, whose second is done, and whose third is open."""
    search, arms = load(folder, **settings), []

    class Runner(FakeRunner):
        def __call__(self, plan: Any, trials: list[Any]) -> bool:
            arms.append(trials[-1].arm)
            return len(arms) < 3 and super().__call__(plan, trials)

    with search.study() as study:
        runner = Runner(lambda trial: trial.arm == arms[0] and trial.arm != "GRPO")
        assert not run_search(search, study, runner, lambda line: None)


def test_the_plan_of_a_search_that_has_not_begun_makes_no_study(tmp_path: Path) -> None:
    sweep_file(tmp_path, arms=ARMS)
    text, tree = _plan(tmp_path)
    assert "2 trials, 2 to run, 8 of points to come" in text
    assert "search (tpe), 4 points: 4 not suggested yet" in text
    assert "price: all unknown" in text
    assert tree["search"]["unsuggested"] == 4
    assert len(tree["price"]["unknown"]) == 10
    assert not (tmp_path / "runs").exists()


def test_the_plan_of_a_search_tells_its_points_and_prices_what_is_left(tmp_path: Path) -> None:
    _partly(tmp_path, arms=ARMS, points=7)
    before = sorted((tmp_path / "runs").rglob("*"))
    text, tree = _plan(tmp_path)
    assert sorted((tmp_path / "runs").rglob("*")) == before
    assert "search (tpe), 7 points: 1 complete, 1 failed, 1 open, 4 not suggested yet" in text
    # The failed point's runs are left as they are; two fixed ones and four of points are known.
    assert "8 trials, 2 to run, 8 of points to come" in text
    assert [point["state"] for point in tree["search"]["tried"]] == ["failed", "complete", "open"]
    (line,) = [line for line in text.splitlines() if line.startswith("  point 1  failed")]
    assert line.endswith("out of luck")
    (line,) = [line for line in text.splitlines() if line.startswith("  point 2  complete")]
    assert "accuracy(table_walk) at end 0." in line
    assert tree["price"]["cpu_h"] == pytest.approx((2 + 4 * 2) * 64 * STEP_S / 3600)
    alone = json.loads(_invoke(tmp_path, "plan", "--json", "seeds=[1]", "name=alone").output)
    assert alone["price"]["concurrent"] == 1, "one point at a time, and it has one seed"
    states = {row["arm"]: row["state"] for row in tree["trials"]}
    assert list(states.values()) == ["done", "failed", "done", "pending"]
    assert set(tree["stop"]) == {"non_finite", "entropy_below", "kl_above"}


def test_the_plan_of_a_search_shows_the_configuration_of_a_point(tmp_path: Path) -> None:
    _partly(tmp_path)
    _, tree = _plan(tmp_path)
    shown = _invoke(tmp_path, "plan", "--config", tree["trials"][-1]["trial_id"])
    beta1 = tree["search"]["tried"][-1]["parameters"]["algorithm.beta1"]
    assert f"beta1: {beta1}" in shown.output


@pytest.mark.parametrize("words", [["search.seed=5"], ["trainer.train_batch_size=7"]])
def test_the_plan_of_a_search_refuses_what_its_start_would(
    tmp_path: Path, words: list[str]
) -> None:
    _partly(tmp_path)
    assert isinstance(_invoke(tmp_path, "plan", *words).exception, LabError)


def test_without_the_cluster_a_plan_prices_for_this_machine(tmp_path: Path) -> None:
    sweep_file(tmp_path)
    result = _invoke(tmp_path, "plan", "cluster.address=127.0.0.1:1")
    assert result.exit_code == 0
    assert "note: priced as on this machine; cluster.address=127.0.0.1:1" in result.stderr
    assert "price: all unknown" in result.stdout


class Machine:
    """Stands for Ray: trains one trial after the other, an hour each."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.seconds, self.joined, self.trained = 0.0, 0, 0
        patch.setattr(meters, "Meter", partial(meters.Meter, clock=lambda: self.seconds))
        patch.setattr("cegppo_lab.sweep.cluster.cluster", self.cluster)
        patch.setattr("cegppo_lab.cli.search.run", self.run)
        patch.setattr("cegppo_lab.cli.search.mirrored", self.mirrored)
        patch.setattr("cegppo_lab.cli.search.draw", lambda plan: None)

    @contextmanager
    def cluster(self, *_: Any) -> Iterator[object]:
        self.joined += 1
        yield object()

    @contextmanager
    def mirrored(self, plan: Any) -> Iterator[object]:
        yield SimpleNamespace(nudge=lambda: None)

    def run(self, plan: Any, trials: list[Any], mirror: Any, meter: Any, held: Any) -> Outcome:
        assert held is not None
        runner = FakeRunner()
        for trial in trials:
            if meter and meter.exhausted:
                return Outcome({}, interrupted=False, over_budget=True)
            before = len(runner.trained)
            runner(plan, [trial])
            if len(runner.trained) > before:
                self.trained += 1
                for mark in (meter.started, meter.ended) if meter else ():
                    mark(trial.trial_id)
                    self.seconds += 3600 * (mark == meter.started)
        return Outcome({}, interrupted=False)


def test_a_budget_lasts_over_all_batches_and_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep_file(tmp_path / "a")
    machine = Machine(monkeypatch)
    out = ["--out", str(tmp_path / "report")]
    told = _invoke(tmp_path / "a", "sweep", "--budget", "3cpuh", *out)
    assert told.exit_code == 0, told.output
    tail = told.output.splitlines()[-5:]
    assert tail[0] == "budget of 3 CPU-hours used up; 1 of 4 points tried"
    assert tail[2].endswith("seed 2  pending")
    assert tail[3] == "  2 points that are not suggested yet"
    assert (machine.trained, machine.joined) == (3, 1)
    told = _invoke(tmp_path / "a", "sweep", "--budget", "1cpuh", *out)
    assert machine.trained == 4, "the end of a budget is the end of a point"
    assert "budget of 1 CPU-hours used up; 2 of 4 points tried" in told.output
    assert _invoke(tmp_path / "a", "sweep", *out).exit_code == 0
    assert machine.trained == 8
    joined = machine.joined
    assert _invoke(tmp_path / "a", "sweep", "--budget", "1cpuh", *out).exit_code == 0
    assert machine.joined == joined, "a search that is whole needs no cluster"
    finish(load(tmp_path / "b"))
    assert history(load(tmp_path / "a")) == history(load(tmp_path / "b"))


@pytest.mark.parametrize(
    ("option", "told"),
    [
        (["--budget", "3 days"], "40gpuh, 12cpuh or 8h"),
        (["--budget", "3gpuh"], "runtime.gpus=0"),
        (["--rehearse"], "--rehearse: a search does not take it"),
    ],
)
def test_options_are_refused_before_anything_is_made(
    tmp_path: Path, option: list[str], told: str
) -> None:
    sweep_file(tmp_path)
    result = _invoke(tmp_path, "sweep", *option)
    assert isinstance(result.exception, LabError)
    assert told in str(result.exception)
    assert not (tmp_path / "runs").exists()


def test_a_study_may_lie_in_another_database_beside_those_of_others(tmp_path: Path) -> None:
    path = tmp_path / "studies.db"
    url = f"sqlite:///{path}"
    _partly(tmp_path / "a", storage=url)
    search = load(tmp_path / "a", storage=url)
    other = load(tmp_path / "a", "name=other", storage=url)
    assert search.stored() is not None
    assert other.stored() is None
    finish(other)
    finish(search)
    finish(load(tmp_path / "b"))
    states = [state for _, _, state in history(search)]
    assert states == ["FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert [params for params, *_ in history(other)] == [
        params for params, *_ in history(load(tmp_path / "b"))
    ]
    assert path.exists()
    assert not list((tmp_path / "a" / "runs" / "_searches").glob("*.db"))


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("sqlite://", "a database in memory ends with the process"),
        ("sqlite:///:memory:", "a database in memory ends with the process"),
        ("sqlite:////no/such/folder/studies.db", "unable to open database file"),
        ("nonsense", "Could not parse"),
        ("postgresql://me:secret@127.0.0.1:1/x", "cannot be opened"),
    ],
)
def test_a_storage_that_cannot_be_used_is_one_line(tmp_path: Path, url: str, told: str) -> None:
    with pytest.raises(LabError, match=r"search\.storage=") as caught:
        history(load(tmp_path, storage=url))
    (line,) = str(caught.value).splitlines()
    assert told in line
    assert "secret" not in line


def test_looking_at_a_storage_that_is_not_there_makes_none(tmp_path: Path) -> None:
    url = f"sqlite:///{os.path.relpath(tmp_path / 'studies.db')}"
    assert load(tmp_path / "a", storage=url).stored() is None
    assert not (tmp_path / "studies.db").exists()


def test_ctrl_c_between_two_batches_is_told_as_within_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> bool:
        raise KeyboardInterrupt

    sweep_file(tmp_path)
    Machine(monkeypatch)
    monkeypatch.setattr("cegppo_lab.sweep.search.driver.run_search", interrupted)
    told = _invoke(tmp_path, "sweep", "--out", str(tmp_path / "report"))
    assert told.exit_code == 130
    assert told.output.splitlines()[-1] == "stopped; the same command goes on from here"


def test_the_mirror_is_stopped_whatever_happens_in_its_context(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[str] = []

    class Mirror:
        def __init__(self, *_: Any, **options: Any) -> None:
            assert options["artifacts"].name == "mine"

        def start(self) -> None:
            calls.append("start")

        def stop(self, patience_s: float) -> list[str]:
            calls.append("stop")
            return ["MLflow is away"]

    monkeypatch.setattr("cegppo_lab.tracking.Mirror", Mirror)
    plan = load(tmp_path).fixed
    with mirrored(plan):
        assert calls == ["start"]
    assert calls == ["start", "stop"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "note: MLflow is away"
    assert lines[1].startswith("runs in MLflow: python -m cegppo_lab ui")
    with pytest.raises(LabError, match="no cluster"), mirrored(plan):
        raise LabError("no cluster")
    assert calls == ["start", "stop"] * 2
    assert not capsys.readouterr().out
