"""The samples of one evaluation on disk: ``STORE/_evaluations/<evaluation_id>/``.

Layout of the folder::

    config.json      what the samples depend on (the id is its hash), policy, benchmark, provenance
    samples.jsonl    a line a batch {"problem", "sample", "answer", "correct", "length",
                     "truncated", "response"} (lists of equal length), append-only
    samples.parquet  a row a response, once all that were asked for are there (zstd)
    lock             held (flock) by the one process that adds samples
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from filelock import FileLock, Timeout
from pyarrow import parquet

from cegppo_lab.evaluate.batches import Pair
from cegppo_lab.files import AppendLog, read_json, read_lines, replaced, write_json

_SCHEMA = pa.schema(
    {
        "problem": pa.string(),
        "sample": pa.int32(),
        "answer": pa.string(),
        "correct": pa.float64(),
        "length": pa.int32(),
        "truncated": pa.bool_(),
        "response": pa.string(),
    }
)


@dataclass(frozen=True)
class Batch:
    """Judged responses: parallel lists. ``length`` in tokens, the end-of-sequence one included.

    ``answer``: what the response answers, None for nothing; ``truncated``: cut at the budget.
    """

    problem: list[str]
    sample: list[int]
    answer: list[str | None]
    correct: list[float]
    length: list[int]
    truncated: list[bool]
    response: list[str]

    @property
    def pairs(self) -> list[Pair]:
        """(problem, sample) of each response."""
        return list(zip(self.problem, self.sample, strict=True))


class EvaluationDir:
    """The folder of one evaluation, for reading."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def config(self) -> dict[str, Any]:
        """What was evaluated; empty before anything was."""
        return read_json(self.path / "config.json", {})

    def batches(self) -> list[Batch]:
        """Every batch written so far, in the order of writing."""
        return [Batch(**row) for row in read_lines(self.path / "samples.jsonl")]

    @property
    def parquet(self) -> Path:
        """Where the table of all responses lies, once it is complete."""
        return self.path / "samples.parquet"

    def table(self, problems: Sequence[str]) -> pa.Table:
        """All responses so far, by the order of ``problems`` and then by sample."""
        place = {problem: index for index, problem in enumerate(problems)}
        batches = self.batches()
        columns = {
            name: [value for batch in batches for value in getattr(batch, name)]
            for name in _SCHEMA.names
        }
        keys = zip(columns["problem"], columns["sample"], strict=True)
        order = [row for *_, row in sorted((place[p], s, i) for i, (p, s) in enumerate(keys))]
        ordered = {name: [values[row] for row in order] for name, values in columns.items()}
        return pa.table(ordered, schema=_SCHEMA)


class EvaluationWriter(EvaluationDir):
    """The one process that adds samples; a context manager that waits for its lock.

    ``say`` is told once when another process holds it. A torn last line is cut off on entering.
    """

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        super().__init__(path)
        self._say = say

    def __enter__(self) -> EvaluationWriter:
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.path / "lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            self._say(f"another process is at evaluation {self.path.name}; waiting for it")
            self._lock.acquire()
        try:
            self._log = AppendLog(
                self.path / "samples.jsonl", lambda row: (row["problem"][0], row["sample"][0])
            )
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._log.close()
        self._lock.release()

    def enter(self, config: dict[str, Any], attempt: dict[str, Any]) -> None:
        """Record what is evaluated (as it was first said), and one more attempt at it."""
        known = self.config() or config
        attempts = [*known.get("provenance", []), attempt]
        write_json(self.path / "config.json", {**known, "provenance": attempts})

    def append(self, batch: Batch) -> None:
        """Write a batch durably, whole or not at all."""
        self._log.append(asdict(batch))

    def finish(self, problems: Sequence[str]) -> None:
        """Write ``samples.parquet``, unless it has all responses; ``problems`` give the order."""
        rows = sum(len(batch.problem) for batch in self.batches())
        if self.parquet.exists() and parquet.read_metadata(self.parquet).num_rows == rows:
            return
        with replaced(self.parquet) as draft:
            parquet.write_table(self.table(problems), draft, compression="zstd")
