"""Faults for real: killed workers, two calls at once, a full disk, a store that is only read."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cegppo_lab.store import RunStore, checkpoints
from tests.e2e.lab import TINY, lab, numbers, start, wait_for

pytestmark = pytest.mark.slow

TRIALS, STEPS = 2, 6
SWEEP = [
    *("sweep", "quickstart", "seeds=[1]", *TINY, "--limit", str(TRIALS)),
    *("runtime.retry_backoff_s=0.1", "--mlflow", "sqlite:///none/mlflow.db"),
]
"""Without a mirror: its own tests are elsewhere, and it takes longer than the training."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    lab(folder, *SWEEP)
    return folder


def _states(folder: Path) -> dict[str, str]:
    store = RunStore(folder / "runs")
    return {trial_id: store.run(trial_id).status().state for trial_id in store.trial_ids()}


def _check_whole(folder: Path, undisturbed: Path) -> None:
    """All trials done, each step once, the numbers of the undisturbed sweep, no lock left."""
    store = RunStore(folder / "runs")
    assert list(_states(folder).values()) == ["done"] * TRIALS
    for trial_id in store.trial_ids():
        run = store.run(trial_id)
        assert [row.step for row in run.steps()] == list(range(1, STEPS + 1))
        assert not run.locked()
    assert numbers(folder) == numbers(undisturbed)


def _worker_of(folder: Path, trial_id: str) -> int | None:
    """The process that trains the trial, once it has stored its third step and a checkpoint."""
    run = RunStore(folder / "runs").run(trial_id)
    if len(run.steps()) < 3 or not run.locked():
        return None
    pid = run.provenance()[-1]["pid"]
    return pid if psutil.pid_exists(pid) else None


def test_a_killed_worker_s_trial_is_tried_again_and_told(undisturbed: Path, tmp_path: Path) -> None:
    driver = start(tmp_path, *SWEEP)
    victims = list(numbers(undisturbed))
    wait_for(lambda: any(_worker_of(tmp_path, each) for each in victims))
    victim = next(each for each in victims if _worker_of(tmp_path, each))
    os.kill(_worker_of(tmp_path, victim), signal.SIGKILL)
    assert driver.wait(200) == 0
    _check_whole(tmp_path, undisturbed)
    run = RunStore(tmp_path / "runs").run(victim)
    assert len(run.provenance()) == 2
    assert run.provenance()[1]["resumed_from"] in (2, 4)
    assert "(retry 1 of 2 in 0.1 s: worker died" in (tmp_path / "log").read_text()
    assert "out of memory" in (run.path / "error.txt").read_text()


def test_without_retries_a_killed_worker_fails_its_trial_alone_and_the_next_call_mends_it(
    undisturbed: Path, tmp_path: Path
) -> None:
    driver = start(tmp_path, *SWEEP, "runtime.retries=0")
    victim, other = numbers(undisturbed)
    wait_for(lambda: _worker_of(tmp_path, victim))
    os.kill(_worker_of(tmp_path, victim), signal.SIGKILL)
    assert driver.wait(200) == 1
    assert "1 of 2 trials failed" in (tmp_path / "log").read_text()
    assert _states(tmp_path) == {victim: "failed", other: "done"}
    run = RunStore(tmp_path / "runs").run(victim)
    assert "worker died" in run.status().reason
    newest = checkpoints.found(run.checkpoints)[-1]
    weights = newest / "policy/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    lab(tmp_path, *SWEEP)
    _check_whole(tmp_path, undisturbed)
    assert (newest.with_name(f"{newest.name}.broken")).is_dir()
    assert "set aside as" in (run.path / "worker.log").read_text()


def test_two_calls_at_once_run_every_trial_once(undisturbed: Path, tmp_path: Path) -> None:
    drivers = [start(tmp_path, *SWEEP) for _ in range(2)]
    assert [driver.wait(300) for driver in drivers] == [0, 0]
    _check_whole(tmp_path, undisturbed)
    store = RunStore(tmp_path / "runs")
    assert [len(store.run(trial_id).provenance()) for trial_id in store.trial_ids()] == [1, 1]


def test_a_trial_of_a_call_that_was_killed_is_taken_up_by_the_one_that_waits(
    undisturbed: Path, tmp_path: Path
) -> None:
    first, second = (start(tmp_path, *SWEEP) for _ in range(2))
    log = tmp_path / "log"
    wait_for(lambda: log.exists() and log.read_text().count("another process trains it") == TRIALS)
    owners = {psutil.Process(_worker).ppid() for _worker in _workers(tmp_path)}
    doomed = next(d for d in (first, second) if _is_driver_of(d.pid, owners))
    os.kill(doomed.pid, signal.SIGKILL)
    doomed.wait()
    survivor = second if doomed is first else first
    assert survivor.wait(300) == 0
    _check_whole(tmp_path, undisturbed)


def _workers(folder: Path) -> list[int]:
    store = RunStore(folder / "runs")
    wait_for(lambda: any(store.run(each).provenance() for each in store.trial_ids()))
    return [
        attempts[-1]["pid"]
        for each in store.trial_ids()
        if (attempts := store.run(each).provenance())
    ]


def _is_driver_of(driver: int, raylets: set[int]) -> bool:
    return any(child.pid in raylets for child in psutil.Process(driver).children(recursive=True))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder whose store lies on a disk of 3 MB: too small for two trials' checkpoints."""
    store = tmp_path / "runs"
    store.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(store)]
    if not shutil.which("mount") or subprocess.run(words, capture_output=True).returncode:
        pytest.skip("mounting is not permitted here")
    yield tmp_path
    subprocess.run(["umount", str(store)], check=True)


def _remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder / "runs")], check=True)


def test_a_full_disk_is_a_line_a_trial_and_the_next_call_completes_the_sweep(
    undisturbed: Path, small_disk: Path
) -> None:
    printed = lab(small_disk, *SWEEP, code=1)
    assert "Traceback" not in printed
    told = [line for line in printed.splitlines() if "failed  step" in line]
    assert len(told) == len(set(told)) >= 1
    assert all("No space left on device" in line for line in told)
    before = numbers(small_disk)
    _remount(small_disk, "ro")
    assert lab(small_disk, *SWEEP, code=2).count("\n") == 1
    assert numbers(small_disk) == before
    _remount(small_disk, "rw,size=64m")
    lab(small_disk, *SWEEP)
    _check_whole(small_disk, undisturbed)
