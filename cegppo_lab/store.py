"""The run store: ``runs/<trial_id>/``, the append-only source of truth of every trial.

Layout of one run folder::

    config.json        the resolved RunConfig that made the trial id
    provenance.json    one entry per attempt: versions, code sha, machine, data hashes
    steps.jsonl        a line a training step  {"step", "time", "metrics": {name: value}}
    evals.jsonl        a line an evaluation    {"step", "time", "benchmark", "problem", "sample",
                       "correct"} (three lists of equal length)
    tokens.jsonl       a line a training step: a sample of its tokens (see ``TokenSample``)
    status.json        {"state", "reason", "step", "steps", "time"}
    checkpoints/step_000032/   written whole or not at all
    lock               held (flock) by the one process that trains the trial

A line is written by one ``write`` and synced, so a kill at any instant loses at most the step in
flight: a torn last line is dropped by readers and cut off by the next writer.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cegppo_lab.errors import LabError
from cegppo_lab.files import AppendLog, read_json, read_lines, write_json

DONE, RUNNING, FAILED, STOPPED, PENDING = "done", "running", "failed", "stopped", "pending"
"""States of a trial. ``stopped``: ended by a rule before its last step, with a reason, for good.
``running`` in a folder whose lock nobody holds means interrupted: the next call resumes it."""

_PATIENCE_S = 1.0


@dataclass(frozen=True)
class StepRecord:
    """What one training step measured. ``step`` counts from 1; ``time`` is Unix seconds."""

    step: int
    metrics: dict[str, float]
    evals: list[EvalRecord] = field(default_factory=list)
    time: float = field(default_factory=time.time)
    tokens: TokenSample | None = None


@dataclass(frozen=True)
class EvalRecord:
    """Verdicts of one evaluation: parallel lists, one entry a sampled response.

    ``step`` is the number of training steps the evaluated policy has had (0: the start).
    """

    step: int
    benchmark: str
    problem: list[str]
    sample: list[int]
    correct: list[float]
    time: float = field(default_factory=time.time)


@dataclass(frozen=True)
class TokenSample:
    """Tokens of one step as its optimizer steps met them: parallel lists, one entry a token.

    Two uniform samples, told apart by ``outside``: of the ``inside_count`` tokens whose ratio lay
    within [1 - clip_low, 1 + clip_high], and of the ``outside_count`` others, whatever the sign of
    the advantage. ``probability`` and ``entropy`` (nats) are the rollout policy's, ``position``
    counts from 0 in the response, ``token`` is the id in the vocabulary.
    """

    step: int
    inside_count: int
    outside_count: int
    probability: list[float]
    ratio: list[float]
    advantage: list[float]
    entropy: list[float]
    token: list[int]
    position: list[int]
    outside: list[bool]


@dataclass(frozen=True)
class Status:
    """Where a trial stands: ``step`` of ``steps`` done, and why it is not further."""

    state: str = PENDING
    reason: str = ""
    step: int = 0
    steps: int = 0
    time: float = 0.0


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
        except PermissionError:  # a store that we may only read
            return False


class RunWriter(RunDir):
    """The one process that may write to a trial's folder; a context manager that holds its lock.

    Raises ``LabError`` when another live process holds the trial.
    """

    def __enter__(self) -> RunWriter:
        # A reader that asks whether the trial is locked holds the lock for an instant.
        self._lock = FileLock(self.path / "lock", timeout=_PATIENCE_S)
        try:
            self._lock.acquire()
        except Timeout:
            raise LabError(
                f"trial {self.trial_id} is being trained by another process; wait for it or stop it"
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

    def set_status(self, state: str, *, reason: str = "", step: int = 0, steps: int = 0) -> None:
        """Replace the trial's status."""
        write_json(
            self.path / "status.json",
            asdict(Status(state, reason, step, steps, time.time())),
        )


class RunStore:
    """All trials of a place on disk, and the manifests of the sweeps that asked for them."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def run(self, trial_id: str) -> RunDir:
        """The trial's folder for reading; it need not exist yet."""
        return RunDir(self.root / trial_id)

    def writer(self, trial_id: str, config: dict[str, Any]) -> RunWriter:
        """The trial's folder for the one process that trains it."""
        self.enter(trial_id, config)
        return RunWriter(self.root / trial_id)

    def enter(self, trial_id: str, config: dict[str, Any]) -> None:
        """Give the trial a folder with its configuration, unless it has one."""
        path = self.root / trial_id / "config.json"
        if not path.exists():
            write_json(path, config)

    def trial_ids(self) -> list[str]:
        """The trials that have a folder, sorted."""
        return sorted(path.parent.name for path in self.root.glob("[!_]*/config.json"))

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        """Record what a sweep asks for, under its name (see ``Plan.manifest`` for the keys)."""
        write_json(self._manifest_path(manifest["name"]), manifest)

    def manifest(self, name: str) -> dict[str, Any]:
        """The manifest of a sweep that was started in this store; ``LabError`` if none was."""
        found = read_json(self._manifest_path(name))
        if found is None:
            names = ", ".join(self.manifests()) or "none yet"
            raise LabError(
                f"no sweep {name!r} was run in {self.root} (there: {names}); "
                f"type: python -m cegppo_lab sweep {name}"
            )
        return found

    def _manifest_path(self, name: str) -> Path:
        return self.root / "_sweeps" / f"{name}.json"

    def manifests(self) -> list[str]:
        """The names of the sweeps that were started in this store."""
        folder = self.root / "_sweeps"
        return sorted(str(f.relative_to(folder).with_suffix("")) for f in folder.rglob("*.json"))
