"""A verl job as a child process, with a small program in verl's place that does as it is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import psutil
import pytest

from cegppo_lab.trainers.base import TimeLimitError
from cegppo_lab.trainers.verl.job import Attempt, VerlJobError, earlier_rows, rewind, run_job

PROGRAM = """
import json, os, pathlib, subprocess, sys, time

def write(text):
    with open(os.environ["VERL_FILE_LOGGER_PATH"], "a") as metrics:
        metrics.write(text)

def row(step):
    write(json.dumps({"step": step, "data": {"loss": step / 2}}) + "\\n")

def grandchild(session=True):
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    pid = subprocess.Popen(command, start_new_session=session).pid
    pathlib.Path("grandchild.part").write_text(str(pid))
    pathlib.Path("grandchild.part").rename("grandchild")

def wait_for(name):
    while not pathlib.Path(name).exists():
        time.sleep(0.02)

"""
DRIVER = """
import sys
from pathlib import Path
from cegppo_lab.trainers.base import TimeLimitError
from cegppo_lab.trainers.verl.job import Attempt, run_job
attempt = Attempt.new(Path(sys.argv[1]))
environment = {"PYTHONPATH": sys.argv[2], **attempt.environment()}
for row in run_job([], attempt, environment, None):
    print(row["step"], flush=True)
"""
Start = Callable[..., Iterator[dict[str, Any]]]


@pytest.fixture
def attempts(tmp_path: Path) -> Path:
    """The folder of the attempts; jobs run in it."""
    return tmp_path / "attempts"


@pytest.fixture
def stand_in(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a package that is found as verl before verl is; the folder to find it in."""

    def write(source: str) -> Path:
        package = tmp_path / "stub/verl/trainer"
        package.mkdir(parents=True)
        for folder in (package, package.parent):
            (folder / "__init__.py").touch()  # what has none is found last
        (package / "main_ppo.py").write_text(PROGRAM + source)
        return tmp_path / "stub"

    return write


@pytest.fixture
def job(attempts: Path, stand_in: Callable[[str], Path]) -> Start:
    """Runs a program in verl's place."""

    def start(source: str, *words: str, limit_s: float | None = None) -> Iterator[dict[str, Any]]:
        attempt = Attempt.new(attempts)
        environment = {"PYTHONPATH": str(stand_in(source)), **attempt.environment()}
        return run_job(words, attempt, environment, limit_s)

    return start


def _jobs(attempts: Path) -> list[psutil.Process]:
    """The processes that run in ``attempts``, which are the job and its descendants."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(attempts) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def _wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "the condition never came true"
        time.sleep(0.02)


def test_rows_arrive_while_the_job_runs(job: Start, attempts: Path) -> None:
    rows = job("row(0)\nwait_for('go')\nrow(1)\n")
    assert next(rows) == {"step": 0, "data": {"loss": 0.0}}
    assert _jobs(attempts)
    (attempts / "go").touch()
    assert list(rows) == [{"step": 1, "data": {"loss": 0.5}}]
    assert not _jobs(attempts)


def test_the_job_gets_the_words_and_none_of_rays_variables(
    job: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    told = "[sys.argv[1:], sorted(name for name in os.environ if name.startswith('RAY_'))]"
    (row,) = job(f"write(json.dumps({told}) + '\\n')", "a='b c'", "x.y=1")
    assert row == [["a='b c'", "x.y=1"], ["RAY_USAGE_STATS_ENABLED"]]


def test_a_row_is_waited_for_until_it_is_whole(job: Start) -> None:
    source = 'write(\'{"step": 7,\')\ntime.sleep(0.7)\nwrite(\'"data": {}}\\n{"step": 8, "da\')'
    assert list(job(source)) == [{"step": 7, "data": {}}]


def test_an_error_is_told_by_its_last_line_after_the_rows(job: Start, attempts: Path) -> None:
    rows = job("row(1)\ntry:\n    {}['a']\nexcept KeyError:\n    raise ValueError('no such loss')")
    assert next(rows)["step"] == 1
    with pytest.raises(VerlJobError) as failure:
        next(rows)
    told = str(failure.value)
    assert "\n" not in told
    assert "status 1: ValueError: no such loss" in told
    assert str(attempts / "attempt_0.log") in told


def test_a_warning_that_mentions_an_error_is_not_the_error(job: Start) -> None:
    """As verl and Ray print them."""
    lines = [
        "\x1b[36m(Runner pid=12)\x1b[0m verl.DataError: no column 'prompt'",
        "\x1b[36m(pid=12)\x1b[0m x.py:9: UserWarning: no engine: ModuleNotFoundError('megatron')",
        'File "/a/ValueError.py", line 3',
    ]
    with pytest.raises(VerlJobError, match=r"status 1: verl.DataError: no column 'prompt' \(log"):
        list(job(f"print({chr(10).join(lines)!r})\nsys.exit(1)"))


def test_an_end_without_an_error_line_is_told_by_the_last_lines(job: Start) -> None:
    with pytest.raises(VerlJobError, match=r"status 3: out of luck \| bye"):
        list(job("print('out of luck')\nprint('bye', file=sys.stderr)\nsys.exit(3)"))


def test_the_time_limit_ends_the_job(job: Start, attempts: Path) -> None:
    with pytest.raises(TimeLimitError, match="time limit"):  # which no worker tries again
        list(job("grandchild(session=False)\ntime.sleep(600)", limit_s=1.0))
    assert not _jobs(attempts)


def test_closing_the_iterator_ends_the_job_with_what_it_started(job: Start, attempts: Path) -> None:
    rows = job("grandchild()\nrow(1)\ntime.sleep(600)")
    next(rows)
    assert len(_jobs(attempts)) == 2
    rows.close()
    assert not _jobs(attempts)


@pytest.mark.parametrize(
    ("death", "told"),
    [
        ("os.kill(os.getpid(), 9)", "verl was killed by SIGKILL"),
        ("raise MemoryError", "status 1: MemoryError"),
        ("sys.exit(0)", None),
    ],
)
def test_a_job_that_dies_leaves_no_orphans(
    death: str, told: str | None, job: Start, attempts: Path
) -> None:
    rows = job(f"grandchild(session=False)\nrow(1)\nwait_for('go')\n{death}")
    next(rows)
    (orphan,) = [p for p in _jobs(attempts) if p.pid == int((attempts / "grandchild").read_text())]
    (attempts / "go").touch()
    with pytest.raises(VerlJobError, match=told) if told else nullcontext():
        assert list(rows) == []
    _wait_for(lambda: orphan not in _jobs(attempts))


def test_killing_the_driver_ends_the_job_with_what_it_started(
    attempts: Path, stand_in: Callable[[str], Path]
) -> None:
    stub = stand_in("grandchild()\nrow(1)\ntime.sleep(600)")
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, attempts, stub], stdout=subprocess.PIPE, text=True
    )
    assert driver.stdout.readline() == "1\n"
    assert len(_jobs(attempts)) == 2
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    _wait_for(lambda: not _jobs(attempts))


def test_every_attempt_has_files_of_its_own(attempts: Path) -> None:
    first = Attempt.new(attempts)
    first.log.touch()
    second = Attempt.new(attempts)
    assert {first.log, first.metrics}.isdisjoint({second.log, second.metrics})
    second.log.touch()
    assert Attempt.new(attempts) not in (first, second)


def _write_rows(attempts: Path, number: int, steps: list[int], end: str = "") -> None:
    attempts.mkdir(exist_ok=True)
    lines = [json.dumps({"step": step, "data": {"attempt": number}}) + "\n" for step in steps]
    (attempts / f"attempt_{number}.jsonl").write_text("".join(lines) + end)


def test_earlier_rows_are_one_history(attempts: Path) -> None:
    """Of a step that was trained twice the first row counts, as in the store."""
    assert earlier_rows(attempts) == []
    _write_rows(attempts, 0, [0, 1, 2], end='{"step": 3, "da')
    _write_rows(attempts, 2, [2, 3])
    _write_rows(attempts, 10, [4])
    rows = earlier_rows(attempts)
    assert [(row["step"], row["data"]["attempt"]) for row in rows] == [
        *((step, 0) for step in (0, 1, 2)),
        *((3, 2), (4, 10)),
    ]


def _checkpoints(folder: Path, newest: int, whole: list[int], dropped: list[int]) -> Path:
    """verl's layout: it removes an old checkpoint's ``actor`` and leaves the rest."""
    for step in whole:
        (folder / f"global_step_{step}/actor").mkdir(parents=True)
    for step in dropped:
        (folder / f"global_step_{step}").mkdir(parents=True)
        (folder / f"global_step_{step}/data.pt").touch()
    (folder / "latest_checkpointed_iteration.txt").write_text(str(newest))
    return folder


@pytest.mark.parametrize(
    ("newest", "last_row", "whole", "resumed"),
    [
        (3, 3, [2, 3], 3),
        (2, 3, [1, 2], 2),  # saved every second step
        (3, 2, [2, 3], 2),  # killed between the checkpoint and its row
        (12, 9, [8, 10, 12], 8),
        (1, 0, [1], 0),
        (3, 2, [3], 0),  # only the newest was kept
    ],
)
def test_verl_resumes_from_a_whole_checkpoint_that_has_its_row(
    newest: int, last_row: int, whole: list[int], resumed: int, tmp_path: Path
) -> None:
    dropped = [step for step in range(1, newest) if step not in whole]
    folder = _checkpoints(tmp_path, newest, whole, dropped)
    assert rewind(folder, last_row) == resumed
    pointer = folder / "latest_checkpointed_iteration.txt"
    assert (int(pointer.read_text()) if pointer.exists() else 0) == resumed


def test_a_fresh_run_has_nothing_to_resume(tmp_path: Path) -> None:
    assert rewind(tmp_path / "none", 0) == 0
