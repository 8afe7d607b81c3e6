"""Plans: every trial of a sweep before anything starts, and how their progress is shown."""

from __future__ import annotations

import json
import shutil
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from cegppo_lab.compose import resolve
from cegppo_lab.errors import LabError
from cegppo_lab.models import local_folder, portable
from cegppo_lab.store import DONE, FAILED, RUNNING, RunStore
from cegppo_lab.sweep.plan import Plan, describe_arms, make_plan, state_of
from cegppo_lab.sweep.progress import Progress
from cegppo_lab.sweep.single import single_run
from cegppo_lab.sweep.spec import sweep_files
from cegppo_lab.trial import Trial


def _ids(plan: Plan) -> dict[tuple[str, int], str]:
    return {(trial.arm, trial.seed): trial.trial_id for trial in plan.trials}


@pytest.mark.parametrize("name", sorted(sweep_files()))
def test_every_shipped_sweep_plans(name: str) -> None:
    plan = make_plan(name)
    assert plan.spec.name == name
    assert len(set(_ids(plan).values())) == len(plan.spec.points()) * len(plan.spec.seeds)
    first = plan.trials[0].config
    assert first.trainer.name == ("verl" if name.startswith("paper/") else "embedded")
    if first.trainer.name == "embedded":
        assert first.model.name == first.task.name
    assert json.loads(json.dumps(plan.manifest()))["trials"][0] == {
        "trial_id": plan.trials[0].trial_id,
        "arm": plan.trials[0].arm,
        "seed": plan.spec.seeds[0],
    }


def test_two_sweeps_share_the_trials_that_they_have_in_common() -> None:
    quick, grid = _ids(make_plan("quickstart")), _ids(make_plan("beta_grid"))
    shared = {arm for arm, _ in quick} & {arm for arm, _ in grid}
    assert shared == {"DAPO", "CE-GPPO(0.5, 1)", "CE-GPPO(0.75, 1)"}
    for key in quick:
        assert (key[0] in shared) == (quick[key] in grid.values())
        assert key[0] not in shared or quick[key] == grid[key]


def test_early_seeds_of_every_arm_come_first() -> None:
    plan = make_plan("quickstart", ["seeds=[5,3]"])
    assert [trial.seed for trial in plan.trials] == [5] * 4 + [3] * 4
    assert [trial.config.seed for trial in plan.first(5)] == [5] * 4 + [3]
    assert plan.first(None) == plan.trials


def test_a_word_changes_the_ids_of_the_trials_that_it_changes(tmp_path: Path) -> None:
    base = _ids(make_plan("quickstart", ["seeds=[1]"]))
    words = ["seeds=[1]", "name=other", "runtime.cpus=2"]
    assert _ids(make_plan("quickstart", words, {"runtime.store": "it's here\\"})) == base
    longer = _ids(make_plan("quickstart", ["seeds=[1]", "trainer.steps=65"]))
    assert not set(longer.values()) & set(base.values())
    beta = "arms.CE-GPPO={algorithm:cegppo,algorithm.beta1:0.6}"
    more = _ids(make_plan("quickstart", ["seeds=[1]", beta]))
    assert {key: trial_id for key, trial_id in more.items() if base.get(key) != trial_id} == {
        ("CE-GPPO", 1): more["CE-GPPO", 1]
    }
    assert more["CE-GPPO", 1] not in base.values()


def test_a_sweep_file_can_be_given_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("question: q\nseeds: [1]\ngrid: {algorithm.beta1: [0, {0: 0.5, 8: 1}]}\n")
    plan = make_plan(str(path))
    assert [trial.arm for trial in plan.trials] == ["beta1=0", "beta1={0: 0.5, 8: 1}"]
    assert [trial.config.algorithm.beta1 for trial in plan.trials] == [0.0, {0: 0.5, 8: 1.0}]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("arms: {A: {algorithm: grpo}, B: {algorithm: grpo}}", r"arms 'A' and 'B' are the same"),
        ("grid: {algorithm.beta1: [0.5, '.5']}", r"'beta1=0.5' and 'beta1=.5' are the same"),
        ("grid: {algorithm.beta_1: [0.5]}", r"unknown key of algorithm 'beta_1'.*'beta1'"),
        ("base: {algorithm: {name: grpo}}", r"unknown algorithm"),
        ("base: {trainer.steps: soon}", r"trainer.steps='soon'"),
    ],
)
def test_a_mistake_in_an_arm_is_told(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"question: q\nseeds: [1]\n{text}\n")
    with pytest.raises(LabError, match=told):
        make_plan(str(path))


def test_places_that_cannot_be_written_are_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for key in ("store", "report"):
        good = "report" if key == "store" else "store"
        paths = {f"runtime.{key}": f"{tmp_path}/file/x", f"runtime.{good}": f"{tmp_path}/good"}
        with pytest.raises(LabError, match=r"cannot write to .*file/x"):
            make_plan("quickstart", paths=paths).check_writable()
    paths = {"runtime.store": f"{tmp_path}/a/b", "runtime.report": f"{tmp_path}/c"}
    make_plan("quickstart", paths=paths).check_writable()


def test_what_differs_between_arms_and_nothing_else() -> None:
    contents = {trial.arm: trial.config.identity() for trial in make_plan("quickstart").trials}
    told = {arm["name"]: arm["differs"] for arm in describe_arms(contents)}
    assert told["GRPO"] == {"algorithm.name": "grpo", "algorithm.clip_high": 0.2}
    assert told["DAPO"] == {"algorithm.name": "dapo", "algorithm.clip_high": 0.28}
    assert told["CE-GPPO(0.5, 1)"] == {
        "algorithm.name": "cegppo",
        "algorithm.clip_high": 0.2,
        "algorithm.beta1": 0.5,
        "algorithm.beta2": 1.0,
    }


def test_the_state_of_a_trial(tmp_path: Path) -> None:
    store, trial = RunStore(tmp_path), make_plan("quickstart").trials[0]
    assert state_of(store, trial) == "pending"
    with store.writer(trial.trial_id, {}) as run:
        run.set_status(RUNNING)
        assert state_of(store, trial) == "running"
    assert state_of(store, trial) == "interrupted"
    for state in (FAILED, DONE):
        with store.writer(trial.trial_id, {}) as run:
            run.set_status(state)
        assert state_of(store, trial) == state


def _single(store: Path, *words: str) -> Trial:
    return single_run(words, {"runtime.store": str(store)})[0]


def test_single_runs_are_gathered_in_a_sweep_of_their_own(tmp_path: Path) -> None:
    first = _single(tmp_path, "trainer.steps=3", "seed=1")
    _single(tmp_path, "seed=2", "trainer.steps=3")
    other = _single(tmp_path, "algorithm=dapo", "runtime.threads=2")
    assert _single(tmp_path, "trainer.steps=3", "seed=1") == first
    manifest = RunStore(tmp_path).manifest("train")
    assert [row["seed"] for row in manifest["trials"]] == [2, 0, 1]
    assert {row["arm"] for row in manifest["trials"]} == {"CE-GPPO trainer.steps=3", "DAPO"}
    algorithms = {arm["name"]: arm["algorithm"] for arm in manifest["arms"]}
    assert algorithms == {first.arm: "cegppo", other.arm: "dapo"}
    shutil.rmtree(tmp_path / other.trial_id)
    _single(tmp_path, "trainer.steps=3", "seed=1")
    assert [arm["name"] for arm in RunStore(tmp_path).manifest("train")["arms"]] == [first.arm]


def test_lines_of_progress_are_whole_and_verbatim(tmp_path: Path) -> None:
    file = StringIO()
    trials = [
        Trial(trial.config, trial.trial_id, f"top=[a, b] [/x] {trial.arm} {'long ' * 20}")
        for trial in make_plan("quickstart", ["seeds=[1]", "trainer.steps=8"]).trials
    ]
    with Progress(RunStore(tmp_path), trials, 2, Console(file=file, width=40)) as progress:
        assert progress.seconds_left() is None
        for step in range(9):
            progress.update(trials[0].trial_id, step, {"actor/entropy": 0.5})
        assert progress.seconds_left() > 0
        progress.finish(trials[0].trial_id, "done")
        progress.finish(trials[1].trial_id, "failed", "RuntimeError: [enforce fail] x[/y]")
    lines = file.getvalue().splitlines()
    assert [line.partition("step ")[2][:3] for line in lines] == ["2/8", "4/8", "6/8", "8/8", "0/8"]
    assert all(trial.arm in line for trial, line in zip([trials[0]] * 4, lines, strict=False))
    assert "entropy 0.500" in lines[0]
    assert lines[-1].endswith("(RuntimeError: [enforce fail] x[/y])")


def test_the_live_table_shows_arms_verbatim(tmp_path: Path) -> None:
    file = StringIO()
    trial = make_plan("quickstart", ["seeds=[1]"]).trials[0]
    trials = [Trial(trial.config, trial.trial_id, "top=[a] [/x]")]
    console = Console(file=file, width=200, force_terminal=True)
    with Progress(RunStore(tmp_path), trials, 1, console) as progress:
        progress.update(trial.trial_id, 3, {})
    assert "top=[a] [/x]" in file.getvalue()
    assert "3/64" in file.getvalue()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["algorithm=gspo"], "arm 'GRPO' sets algorithm itself"),
        (["trainer.stps=3"], "arm 'GRPO': unknown key of trainer 'stps'"),
        (["name=train"], "is the name under which single runs are gathered"),
    ],
)
def test_words_that_an_arm_or_the_suite_would_contradict(words: list[str], told: str) -> None:
    with pytest.raises(LabError, match=told):
        make_plan("quickstart", words)


def test_the_model_follows_the_task_unless_it_is_chosen() -> None:
    assert resolve({"task": "chain"}).model.path == "chain"
    assert resolve({"task": "chain", "model": "table_walk"}).model.path == "table_walk"


def test_a_worker_in_another_folder_finds_the_same_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(local_folder("chain"), "policies/mine")
    assert portable("policies/mine") == str(tmp_path / "policies/mine")
    assert portable("chain") == "chain"
    assert portable("owner/name") == "owner/name"
