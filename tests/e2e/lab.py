"""Running the command line as a user does: in a folder of its own, in processes of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

from cegppo_lab.metrics import is_volatile
from cegppo_lab.store import RunStore

_STARTED_IN = "CEGPPO_LAB_TEST_STARTED_IN"
TINY = [
    "trainer.steps=6",
    "trainer.train_batch_size=8",
    "trainer.rollout_n=4",
    "trainer.mini_batches=2",
    "trainer.eval_every=3",
    "trainer.eval_samples=2",
    "runtime.checkpoint_every=2",
]


def environment() -> dict[str, str]:
    """One thread a process, and no settings of the caller that change where things go."""
    dropped = ("MLFLOW_TRACKING_URI", "CEGPPO_LAB_STORE", "RAY_ADDRESS")
    kept = {key: value for key, value in os.environ.items() if key not in dropped}
    return {**kept, "OMP_NUM_THREADS": "1"}


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    """``python -m cegppo_lab WORDS`` in ``folder``, its output in ``folder/log``."""
    with open(folder / "log", "a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "cegppo_lab", *words],
            cwd=folder,
            env={**environment(), _STARTED_IN: str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


def lab(folder: Path, *words: str, code: int = 0, timeout: float = 300) -> str:
    """Run a command to its end and return what it printed; its exit status must be ``code``."""
    log = folder / "log"
    before = log.stat().st_size if log.exists() else 0
    status = start(folder, *words).wait(timeout)
    printed = log.read_bytes()[before:].decode()
    assert status == code, printed
    return printed


def wait_for(condition: object, timeout: float = 180) -> None:
    """Until ``condition()`` is true."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "the condition never came true"
        time.sleep(0.05)


def steps_done(folder: Path) -> int:
    """Training steps stored so far, over all trials."""
    store = RunStore(folder / "runs")
    return sum(len(store.run(trial_id).steps()) for trial_id in store.trial_ids())


def numbers(folder: Path) -> dict[str, object]:
    """All that the runs measured, without what measures the machine."""
    store = RunStore(folder / "runs")
    return {
        trial_id: (
            [
                (row.step, {k: v for k, v in row.metrics.items() if not is_volatile(k)})
                for row in store.run(trial_id).steps()
            ],
            [
                (row.step, row.benchmark, row.problem, row.sample, row.correct)
                for row in store.run(trial_id).evals()
            ],
        )
        for trial_id in store.trial_ids()
    }


def processes_in(folder: Path) -> list[psutil.Process]:
    """Live processes at work for ``folder``: there, named so, or started from there (Ray's)."""
    found = []
    for process in psutil.process_iter():
        try:
            told = [process.cwd(), *process.cmdline(), process.environ().get(_STARTED_IN, "")]
        except psutil.Error:
            continue
        if any(str(folder) in text for text in told):
            found.append(process)
    return found
