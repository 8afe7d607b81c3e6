"""One trial's folder, for reading and for the one process that writes it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cegppo_lab.errors import LabError
from cegppo_lab.files import AppendLog, read_json, read_lines, write_json, writing
from cegppo_lab.store.records import EvalRecord, FinalRecord, Status, StepRecord, TokenSample

_PATIENCE_S = 1.0


class BusyError(LabError):
    """Another live process has the trial."""


class RunDir:
    """One trial's folder, for reading."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def trial_id(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def checkpoints(self) -> Path:
        """Where the trial's checkpoints lie."""
        return self.path / "checkpoints"

    def config(self) -> dict[str, Any]:
        """The resolved configuration, as it was hashed into the trial id."""
        return read_json(self.path / "config.json", {})

    def provenance(self) -> list[dict[str, Any]]:
        """One entry per attempt, oldest first."""
        return read_json(self.path / "provenance.json", [])

    def status(self) -> Status:
        """The state as last written; see ``locked`` for whether a process is at it now."""
        return Status(**read_json(self.path / "status.json", {}))

    def steps(self) -> list[StepRecord]:
        """Every step written so far, in the order of writing (which is the order of steps)."""
        return [
            StepRecord(row["step"], row["metrics"], [], row["time"])
            for row in read_lines(self.path / "steps.jsonl")
        ]

    def evals(self) -> list[EvalRecord]:
        """Every evaluation written so far, by step."""
        return [EvalRecord(**row) for row in read_lines(self.path / "evals.jsonl")]

    def evaluations(self) -> list[FinalRecord]:
        """Final evaluations of the trial's checkpoints, each with all the samples it has so far.

        In the order of writing; several of one (step, benchmark) differ in seed, sampling or
        engine.
        """
        longest: dict[tuple[int, str, str], FinalRecord] = {}
        for row in read_lines(self.path / "evaluations.jsonl"):
            record = FinalRecord(**row)
            known = longest.get(record.key)
            if known is None or len(record.problem) > len(known.problem):
                longest[record.key] = record
        return list(longest.values())

    def tokens(self) -> list[TokenSample]:
        """The token samples written so far, by step; none of runs that stored none."""
        return [TokenSample(**row) for row in read_lines(self.path / "tokens.jsonl")]

    def locked(self) -> bool:
        """Whether some live process trains this trial now."""
        if not (self.path / "lock").exists():
            return False
        try:
            with FileLock(self.path / "lock", timeout=0):
                return False
        except Timeout:
            return True
        except OSError:  # a store that we may only read: nobody trains in it
            return False


class RunWriter(RunDir):
    """The one process that may write to a trial's folder; a context manager that holds its lock.

    Raises :class:`BusyError` when another live process holds the trial, and ``WriteError`` when the
    store cannot be written.
    """

    def __enter__(self) -> RunWriter:
        # A reader that asks whether the trial is locked holds the lock for an instant.
        self._lock = FileLock(self.path / "lock", timeout=_PATIENCE_S)
        with writing(self.path / "lock"):
            try:
                self._lock.acquire()
            except Timeout:
                raise BusyError(
                    f"trial {self.trial_id} is being trained by another process; "
                    "wait for it or stop it"
                ) from None
        try:
            self._steps = AppendLog(self.path / "steps.jsonl", lambda row: row["step"])
            self._evals = AppendLog(
                self.path / "evals.jsonl", lambda row: (row["step"], row["benchmark"])
            )
            self._tokens = AppendLog(self.path / "tokens.jsonl", lambda row: row["step"])
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._steps.close()
        self._evals.close()
        self._tokens.close()
        self._lock.release()

    def add_provenance(self, entry: dict[str, Any]) -> None:
        """Record the start of one more attempt."""
        write_json(self.path / "provenance.json", [*self.provenance(), entry])

    def append(self, record: StepRecord) -> None:
        """Write a step durably, its own row last, so that a step row implies all the others."""
        for evaluation in record.evals:
            self._evals.append(asdict(evaluation))
        if record.tokens is not None:
            self._tokens.append(asdict(record.tokens))
        if record.step > 0:  # step 0 is the evaluation of the start, before any training
            metrics = {name: float(value) for name, value in record.metrics.items()}
            self._steps.append({"step": record.step, "time": record.time, "metrics": metrics})

    def set_status(
        self,
        state: str,
        *,
        reason: str = "",
        step: int = 0,
        steps: int = 0,
        rule: Mapping[str, Any] | None = None,
    ) -> None:
        """Replace the trial's status; ``rule``: see ``Status.rule``."""
        status = Status(state, reason, step, steps, time.time(), dict(rule or {}))
        write_json(self.path / "status.json", asdict(status))
