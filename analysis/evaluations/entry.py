"""One policy on one benchmark, as the store has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.stats import per_problem
from cegppo_lab.errors import LabError
from cegppo_lab.evaluate.samples import Batch, EvaluationDir

FIELDS = tuple(Batch.__dataclass_fields__)


@dataclass(frozen=True)
class Entry:
    """What a report asks of an evaluation: ``samples`` (k) of each of its first ``problems``.

    ``policy``: what tables call it. ``benchmark``: the name of its definition. ``problems``: None
    for all of them.
    """

    policy: str
    benchmark: str
    evaluation_id: str
    samples: int
    problems: int | None


@dataclass(frozen=True)
class Evaluated:
    """An entry with its configuration and the responses asked for that are there: ``rows``.

    ``rows``: problem, sample, answer, correct, length, truncated, response; by the benchmark's
    order and then by sample.
    """

    entry: Entry
    config: dict[str, Any]
    rows: pd.DataFrame

    @property
    def wanted(self) -> int:
        """How many responses were asked for."""
        return self.entry.samples * (self.entry.problems or self.benchmark.get("count", 0))

    @property
    def complete(self) -> bool:
        """Whether all responses are there."""
        return len(self.rows) == self.wanted > 0

    @property
    def benchmark(self) -> dict[str, Any]:
        """The benchmark's definition, as it was when the evaluation began."""
        return self.config.get("benchmark", {})

    @property
    def sampling(self) -> dict[str, Any]:
        """What the responses depend on besides the policy: content, prompts, budget and so on."""
        return self.config.get("identity", {}).get("benchmark", {})

    @property
    def column(self) -> str:
        """The benchmark's title, and how many of its problems where they are not all."""
        title = self.benchmark.get("title", self.entry.benchmark)
        if self.entry.problems is None:
            return title
        return f"{title} ({self.entry.problems} of {self.benchmark.get('count', '?')})"

    @property
    def k(self) -> int:
        """Samples that every problem has; 0 where there is no response yet."""
        return int(self.problems["n"].min()) if len(self.rows) else 0

    @cached_property
    def problems(self) -> pd.DataFrame:
        """``analysis.stats.per_problem`` of the responses."""
        return per_problem(self.rows)

    def gap(self) -> str:
        """A sentence about the responses that are not there yet; "" where all are."""
        if self.complete:
            return ""
        if self.rows.empty:
            return f"{self.entry.policy} on {self.column}: no response yet."
        return (
            f"{self.entry.policy} on {self.column}: {len(self.rows)} of {self.wanted} responses so "
            "far; the numbers are of these; the same evaluate command goes on."
        )


def read(root: Path, entries: Sequence[Entry]) -> list[Evaluated]:
    """Every entry from its folder below ``root``.

    Raises:
        LabError: no entry, or none with a response; a policy twice on a benchmark; policies that
            were given other problems, prompts or sampling on one benchmark; a broken file.
    """
    found = _titled([_read(root, entry) for entry in entries])
    if not any(len(done.rows) for done in found):
        raise LabError(
            f"no response of {len(entries)} evaluations is in {root}; type: python -m cegppo_lab "
            "evaluate POLICY benchmarks=[NAME]"
        )
    seen: dict[tuple[str, str], Evaluated] = {}
    first: dict[str, Evaluated] = {}
    for done in found:
        if (done.entry.policy, done.column) in seen:
            raise LabError(
                f"{done.entry.policy} comes twice on {done.column}; name the two policies apart"
            )
        seen[done.entry.policy, done.column] = done
        base = first.setdefault(done.column, done) if done.sampling else done
        if differing := [k for k in base.sampling if base.sampling[k] != done.sampling.get(k)]:
            raise LabError(
                f"{base.entry.policy} and {done.entry.policy} differ in {', '.join(differing)} on "
                f"{done.column} and cannot be compared; evaluate both with one command"
            )
    return found


def _titled(found: list[Evaluated]) -> list[Evaluated]:
    """One that was not begun takes the benchmark's definition from another policy's."""
    known = {done.entry.benchmark: done.benchmark for done in found if done.config}
    return [
        done
        if done.config
        else replace(done, config={"benchmark": known.get(done.entry.benchmark, {})})
        for done in found
    ]


def _read(root: Path, entry: Entry) -> Evaluated:
    folder = EvaluationDir(root / entry.evaluation_id)
    done = Evaluated(entry, folder.config(), _asked(_table(folder.parquet), entry))
    if done.complete and done.wanted:
        return done
    columns = [pd.DataFrame(vars(batch), columns=FIELDS) for batch in folder.batches()]
    rows = pd.concat(columns, ignore_index=True) if columns else pd.DataFrame(columns=FIELDS)
    return Evaluated(entry, done.config, max(done.rows, _asked(rows, entry), key=len))


def _table(path: Path) -> pd.DataFrame:
    if not path.exists():
        return pd.DataFrame(columns=FIELDS)
    try:
        return pd.read_parquet(path, columns=list(FIELDS))
    except (OSError, ValueError) as error:  # pyarrow's own are among them
        raise LabError(
            f"{path} is no table of samples ({str(error).splitlines()[0]}); delete it and evaluate "
            "again: it is made from samples.jsonl"
        ) from None


def _asked(rows: pd.DataFrame, entry: Entry) -> pd.DataFrame:
    """The first samples of the first problems, each once; batches come in the problems' order."""
    order = list(dict.fromkeys(rows["problem"]))[: entry.problems]
    place = {problem: index for index, problem in enumerate(order)}
    rows = rows[rows["problem"].isin(place) & (rows["sample"] < entry.samples)]
    rows = rows.drop_duplicates(["problem", "sample"])
    return rows.sort_values(
        ["problem", "sample"],
        key=lambda column: column.map(place) if column.name == "problem" else column,
    ).reset_index(drop=True)
