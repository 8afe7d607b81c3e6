"""One verl job as a child process: started, tailed, and ended with everything it started."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from cegppo_lab.processes import end_family, watched
from cegppo_lab.trainers.base import TrainerError

POLL_S = 0.2
TAIL_LINES = 12


class VerlJobError(TrainerError):
    """verl ended with an error; the message has the end of its log and the log's path."""


@dataclass(frozen=True)
class Attempt:
    """The files of one start of verl. verl truncates its metrics file, so each start has its own.

    ``metrics``: JSON lines ``{"step", "data"}``. ``log``: what verl printed.
    """

    metrics: Path
    log: Path

    @staticmethod
    def new(folder: Path) -> Attempt:
        """The next free pair of names in ``folder``, which is made."""
        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.glob("attempt_*.log")))
        return Attempt(folder / f"attempt_{number}.jsonl", folder / f"attempt_{number}.log")


def run_job(
    words: Sequence[str], attempt: Attempt, environment: dict[str, str], time_limit_s: float | None
) -> Iterator[dict[str, Any]]:
    """Run ``verl.trainer.main_ppo`` with Hydra ``words``; yield its metric rows as they appear.

    Each row is ``{"step": int, "data": {name: value}}``. Closing the iterator, an error, and the
    death of this process (also by SIGKILL) end verl and every process of its Ray cluster. Raises
    :class:`VerlJobError` when verl fails or runs out of time.
    """
    attempt.metrics.touch()
    with open(attempt.log, "wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "verl.trainer.main_ppo", *words],
            cwd=attempt.log.parent,
            env=_environment(environment, attempt),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + time_limit_s if time_limit_s else float("inf")
    try:
        with watched(), open(attempt.metrics, encoding="utf-8") as rows:
            yield from _tail(rows, child, deadline, attempt)
    finally:
        end_family(psutil.Process(child.pid) if child.poll() is None else None)
        child.wait()


def _tail(
    rows: Any, child: subprocess.Popen[bytes], deadline: float, attempt: Attempt
) -> Iterator[dict[str, Any]]:
    torn = ""
    while True:
        ended = child.poll() is not None  # asked first, so that the last rows are read after it
        torn += rows.read()
        *whole, torn = torn.split("\n")
        for line in whole:
            yield json.loads(line)
        if ended:
            break
        if time.monotonic() > deadline:
            raise VerlJobError(f"verl ran out of its time limit; its log: {attempt.log}")
        time.sleep(POLL_S)
    if child.returncode:
        raise VerlJobError(
            f"verl ended with status {child.returncode}: {_last_words(attempt.log)} "
            f"(log: {attempt.log})"
        )


def _last_words(log: Path) -> str:
    """The last line that names an error, else the last lines of the log."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line and not line.startswith("File ")]
    return errors[-1] if errors else " | ".join(lines[-TAIL_LINES:])


def _environment(extra: dict[str, str], attempt: Attempt) -> dict[str, str]:
    """This process's variables without Ray's, which would tie verl to our own cluster."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return {
        **kept,
        "VERL_FILE_LOGGER_PATH": str(attempt.metrics),
        "RAY_USAGE_STATS_ENABLED": "0",
        "TOKENIZERS_PARALLELISM": "false",
        **extra,
    }


def newest_checkpoint(checkpoints: Path) -> int:
    """The step of verl's newest whole checkpoint, 0 if there is none."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        return int((checkpoints / "latest_checkpointed_iteration.txt").read_text())
    return 0
