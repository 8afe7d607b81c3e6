"""trainer=verl end to end: verl's own loop on this CPU, with real Ray, MLflow and kills."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

from cegppo_lab import metrics as names
from cegppo_lab.compose import resolve
from cegppo_lab.store import RunDir, RunStore
from tests.e2e.lab import lab, processes_in, start, steps_done, wait_for

PATIENCE_S = 900
"""For one verl job on two busy cores; it takes about 90 s on idle ones."""
SHARED = ["trainer.train_batch_size=8", "trainer.mini_batches=2", "trainer.rollout_n=4"]
SHARED += ["trainer.eval_samples=2", "trainer.eval_every=2", "runtime.checkpoint_every=1"]
VERL = ["trainer=verl", *SHARED, "trainer.gen_batch_size=8"]
VERL += ["trainer.max_prompt_length=8", "trainer.max_response_length=52"]
CORE = {
    *(names.ENTROPY, names.PPO_KL, names.GRAD_NORM, names.REWARD_MEAN, names.LENGTH_MEAN),
    *(names.CLIPFRAC, names.CLIPFRAC_LOW, names.CLIPFRAC_HIGH, names.TIME_STEP),
}
REHEARSAL = ["sweep", "paper/beta_switch", "--rehearse"]
SWITCHED = "CE-GPPO(0 to 0.5 at 585, 1)"


def _train(folder: Path, *words: str) -> RunDir:
    """A run of the train command with verl, to its end, after which nothing of it is left."""
    lab(folder, "train", *VERL, *words, timeout=PATIENCE_S)
    wait_for(lambda: not processes_in(folder), timeout=60)
    (run,) = _runs(folder)
    return run


def _runs(folder: Path) -> list[RunDir]:
    store = RunStore(folder / "runs")
    return [store.run(trial_id) for trial_id in store.trial_ids()]


def _check_history(folder: Path, run: RunDir, steps: int, evals: list[int]) -> None:
    """Every step and every due evaluation once, in the store and in MLflow."""
    assert run.status().state == "done"
    assert not run.locked()
    rows = run.steps()
    assert [row.step for row in rows] == list(range(1, steps + 1))
    assert all(row.metrics.keys() >= CORE for row in rows)
    assert [row.step for row in run.evals()] == evals
    for name in CORE:
        assert _mirrored(folder, run, name) == [(row.step, row.metrics[name]) for row in rows]


def _mirrored(folder: Path, run: RunDir, name: str) -> list[tuple[int, float]]:
    """(step, value) of a metric of ``run`` in MLflow's database, by step."""
    query = """select step, metrics.value from metrics join tags using (run_uuid)
        where metrics.key = ? and tags.value = ? and tags.key = 'trial_id' order by step"""
    with sqlite3.connect(folder / "mlflow.db") as database:
        return database.execute(query, (name, run.trial_id)).fetchall()


def _verl_jobs(folder: Path) -> list[psutil.Process]:
    """The drivers of verl that run for trials in ``folder``."""
    return [p for p in processes_in(folder) if "verl.trainer.main_ppo" in _command(p)]


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _logs(run: RunDir) -> list[str]:
    """What verl printed, an entry per start; it begins with the whole config that it got."""
    return [log.read_text() for log in sorted(run.path.glob("verl/attempts/*.log"))]


@pytest.fixture(scope="module")
def dapo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunDir]:
    """Two steps of DAPO with group filtering."""
    folder = tmp_path_factory.mktemp("dapo")
    return folder, _train(folder, "algorithm=dapo", "trainer.filter_groups=true", "trainer.steps=2")


def test_a_verl_run_is_recorded_and_mirrored_like_any_other(dapo: tuple[Path, RunDir]) -> None:
    folder, run = dapo
    _check_history(folder, run, steps=2, evals=[0, 2])
    assert all("val-core" not in name for row in run.steps() for name in row.metrics)
    assert "'loss_mode': 'cegppo_lab'" in _logs(run)[0]


def test_filtered_groups_are_all_mixed(dapo: tuple[Path, RunDir]) -> None:
    """Of 4 rewards of 0 or 1 with mean m, no group is at m = 0 or 1."""
    _, run = dapo
    for row in run.steps():
        assert 0.25 <= row.metrics[names.REWARD_MEAN] <= 0.75


def test_every_verdict_of_an_evaluation_is_kept(dapo: tuple[Path, RunDir]) -> None:
    """Against the responses that verl wrote out, verified by the task itself."""
    _, run = dapo
    task = resolve({}).task
    problems = {problem.id: problem for problem in task.heldout()}
    for evaluation in run.evals():
        written = (run.path / f"verl/validation/{evaluation.step}.jsonl").read_text()
        rows = [json.loads(line) for line in written.splitlines()]
        assert Counter(evaluation.problem) == dict.fromkeys(problems, 2)
        assert sorted(zip(evaluation.problem, evaluation.sample, strict=True)) == sorted(
            (problem, sample) for problem in problems for sample in range(2)
        )
        assert evaluation.correct == [
            task.reward(problems[row["problem"]], row["output"]) for row in rows
        ]
        assert evaluation.problem == [row["problem"] for row in rows]


def test_the_embedded_trainer_has_the_same_names(dapo: tuple[Path, RunDir], tmp_path: Path) -> None:
    lab(tmp_path, "train", *SHARED, "algorithm=dapo", "trainer.steps=2")
    (embedded,) = _runs(tmp_path)
    _check_history(tmp_path, embedded, steps=2, evals=[0, 2])
    ours = {name for row in embedded.steps() for name in row.metrics if name.startswith("actor/")}
    verls = {name for row in dapo[1].steps() for name in row.metrics}
    assert ours - verls == set()
    for mine, theirs in zip(embedded.evals(), dapo[1].evals(), strict=True):
        assert (mine.step, mine.benchmark) == (theirs.step, theirs.benchmark)
        assert set(mine.problem) == set(theirs.problem)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["grpo", "dapo", "cispo", "gspo", "cegppo"])
def test_three_steps_of_each_algorithm(algorithm: str, tmp_path: Path) -> None:
    filtering = "trainer.filter_groups=" + str(algorithm == "dapo").lower()
    run = _train(tmp_path, f"algorithm={algorithm}", filtering, "trainer.steps=3")
    _check_history(tmp_path, run, steps=3, evals=[0, 2, 3])
    (log,) = _logs(run)
    assert f"'algorithm': '{algorithm}'" in log


@pytest.mark.slow
def test_a_killed_driver_leaves_nothing_and_is_resumed(tmp_path: Path) -> None:
    words = ["train", *VERL, "algorithm=cegppo", "trainer.steps=4"]
    driver = start(tmp_path, *words)
    wait_for(lambda: steps_done(tmp_path) >= 2, timeout=PATIENCE_S)
    assert any("raylet" in _command(process) for process in processes_in(tmp_path))
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    wait_for(lambda: not processes_in(tmp_path), timeout=60)
    (run,) = _runs(tmp_path)
    before = run.steps()
    assert 2 <= len(before) < 4
    lab(tmp_path, *words, timeout=PATIENCE_S)
    _check_history(tmp_path, run, steps=4, evals=[0, 2, 4])
    assert run.steps()[: len(before)] == before
    assert len(run.provenance()) == len(_logs(run)) == 2
    assert "val_before_train': False" in _logs(run)[1]
    wait_for(lambda: not processes_in(tmp_path), timeout=60)


@pytest.mark.slow
def test_verl_killed_from_outside_is_told_in_one_line_and_tried_again(tmp_path: Path) -> None:
    words = ["train", *VERL, "algorithm=grpo", "trainer.steps=2"]
    driver = start(tmp_path, *words)
    wait_for(lambda: steps_done(tmp_path) >= 1, timeout=PATIENCE_S)
    (job,) = _verl_jobs(tmp_path)
    job.kill()
    assert driver.wait(60) == 1
    printed = (tmp_path / "log").read_text()
    assert "failed: verl was killed by SIGKILL" in printed
    assert "Traceback" not in printed
    assert not processes_in(tmp_path)
    (run,) = _runs(tmp_path)
    assert run.status().state == "failed"
    lab(tmp_path, *words, timeout=PATIENCE_S)
    _check_history(tmp_path, run, steps=2, evals=[0, 2])


@pytest.mark.slow
def test_a_schedule_is_two_phases_of_one_history(tmp_path: Path) -> None:
    """verl itself logs ``actor/kl_coef`` whenever its KL loss is on: from step 1 on, here."""
    run = _train(
        tmp_path,
        *("algorithm=cegppo", "algorithm.beta1={0:0.0,1:0.5}", "algorithm.kl_coef={0:0.0,1:0.25}"),
        *("trainer.steps=3", "trainer.eval_every=3"),
    )
    _check_history(tmp_path, run, steps=3, evals=[0, 3])
    pulls = [row.metrics.get("actor/kl_coef") for row in run.steps()]
    assert pulls == [None, 0.25, 0.25]
    assert [row.metrics["algorithm/kl_coef"] for row in run.steps()] == [0.0, 0.25, 0.25]
    first, second = _logs(run)
    assert "'beta1': 0.0" in first
    assert "'beta1': 0.5" in second
    assert "'beta1': 0.0" not in second


@pytest.mark.slow
def test_ray_tune_rehearses_two_trials_at_once(tmp_path: Path) -> None:
    driver = start(tmp_path, *REHEARSAL)
    wait_for(lambda: len(_verl_jobs(tmp_path)) == 2, timeout=PATIENCE_S)
    assert driver.wait(PATIENCE_S) == 0
    printed = (tmp_path / "log").read_text()
    assert "2 done" in printed
    assert "runtime.nodes: 16 -> 1" in printed
    manifest: dict[str, Any] = RunStore(tmp_path / "runs").manifest("paper/beta_switch-rehearsal")
    starts = {}
    for run in _runs(tmp_path):
        _check_history(tmp_path, run, steps=2, evals=[0, 2])
        starts[run.trial_id] = len(_logs(run))
    by_arm = {trial["arm"]: starts[trial["trial_id"]] for trial in manifest["trials"]}
    assert by_arm == {"CE-GPPO(0, 1)": 1, SWITCHED: 2}
    wait_for(lambda: not processes_in(tmp_path), timeout=60)


@pytest.mark.slow
def test_a_killed_tune_worker_takes_verl_along_and_tune_tries_again(tmp_path: Path) -> None:
    driver = start(tmp_path, *REHEARSAL, "--limit", "1")
    wait_for(lambda: steps_done(tmp_path) >= 1, timeout=PATIENCE_S)
    (job,) = _verl_jobs(tmp_path)
    doomed = [job, *job.children(recursive=True)]
    assert any("raylet" in _command(process) for process in doomed)
    worker = psutil.Process(job.ppid())
    assert _command(worker).startswith("ray::")
    worker.kill()
    wait_for(lambda: not set(doomed) & set(processes_in(tmp_path)), timeout=60)
    assert driver.wait(PATIENCE_S) == 0
    (run,) = _runs(tmp_path)
    _check_history(tmp_path, run, steps=2, evals=[0, 2])
    assert len({attempt["pid"] for attempt in run.provenance()}) == 2
    wait_for(lambda: not processes_in(tmp_path), timeout=60)
