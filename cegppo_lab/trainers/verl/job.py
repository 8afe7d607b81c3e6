"""One verl job as a child process: started, tailed, and ended with everything it started."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from cegppo_lab.files import read_lines
from cegppo_lab.processes import end_family, end_session, watched
from cegppo_lab.trainers.base import TimeLimitError, TrainerError

POLL_S = 0.2
TAIL_LINES = 12
_DECORATION = re.compile(r"\x1b\[[0-9;]*m|\([^()]*pid=\d+[^()]*\)")
"""Colours, and the process that Ray names before each of its lines."""
_EXCEPTION = re.compile(r"[\w.]+(Error|Exception)\b")


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

    def environment(self) -> dict[str, str]:
        """What verl's processes need to write here."""
        return {"VERL_FILE_LOGGER_PATH": str(self.metrics), "TOKENIZERS_PARALLELISM": "false"}


def run_job(
    words: Sequence[str], attempt: Attempt, environment: dict[str, str], time_limit_s: float | None
) -> Iterator[dict[str, Any]]:
    """Run ``verl.trainer.main_ppo`` with Hydra ``words``; yield its metric rows as they appear.

    ``environment`` has also what ``attempt`` asks for. Each row is
    ``{"step": int, "data": {name: value}}``. Closing the iterator, an error, and the
    death of this process (also by SIGKILL) end verl and every process of its Ray cluster. Raises
    :class:`VerlJobError` when verl fails, :class:`TimeLimitError` when it runs out of time.
    """
    attempt.metrics.touch()
    with open(attempt.log, "wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "verl.trainer.main_ppo", *words],
            cwd=attempt.log.parent,
            env=_environment(environment),
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
        end_session(child.pid)  # Ray's processes, if verl died before them


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
            raise TimeLimitError(
                f"verl ran out of its time limit; the next call goes on; its log: {attempt.log}"
            )
        time.sleep(POLL_S)
    if child.returncode:
        raise VerlJobError(f"verl {_end(child.returncode, attempt.log)} (log: {attempt.log})")


def _end(status: int, log: Path) -> str:
    """How verl ended: by which signal, or with which error, else with which last lines."""
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    text = _DECORATION.sub("", log.read_text(errors="replace"))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if _EXCEPTION.match(line)]
    return (
        f"ended with status {status}: {errors[-1] if errors else ' | '.join(lines[-TAIL_LINES:])}"
    )


def _environment(extra: dict[str, str]) -> dict[str, str]:
    """This process's variables without Ray's, which would tie verl to our own cluster."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return {**kept, "RAY_USAGE_STATS_ENABLED": "0", **extra}


def earlier_rows(folder: Path) -> list[dict[str, Any]]:
    """The metric rows of all attempts so far, by step; of a step seen twice, the first row."""
    rows: dict[int, dict[str, Any]] = {}
    for path in sorted(folder.glob("attempt_*.jsonl"), key=lambda p: int(p.stem.split("_")[1])):
        for row in read_lines(path):
            rows.setdefault(row["step"], row)
    return [rows[step] for step in sorted(rows)]


def rewind(checkpoints: Path, last_row: int) -> int:
    """The step that verl will resume from: its newest checkpoint that has its metric row.

    verl saves the checkpoint of a step before it writes the step's row. A kill in between leaves
    one without the other; verl's pointer is then set back, so that the step is trained again.
    """
    pointer = checkpoints / "latest_checkpointed_iteration.txt"
    try:
        newest = int(pointer.read_text())
    except (FileNotFoundError, ValueError):
        return 0
    if newest <= last_row:
        return newest
    # Of a checkpoint that verl has dropped, a folder without the weights stays behind.
    weights = checkpoints.glob("global_step_*/actor")
    found = [int(path.parent.name.rpartition("_")[2]) for path in weights]
    usable = max((step for step in found if step <= last_row), default=0)
    if usable:
        pointer.write_text(str(usable))
    else:
        pointer.unlink()
    return usable
