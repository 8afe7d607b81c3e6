"""The table of an evaluation: policies by benchmarks, in the form of the paper's Table 1."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.evaluations.entry import Evaluated
from analysis.evaluations.measure import MEASURES
from analysis.evaluations.published import PublishedRow
from analysis.paper_tables.layout import DASH, DIGITS, MARKS, Cell, Part
from analysis.paper_tables.measure import BEST, MEASURED, TIE
from analysis.published import AVERAGE, SOURCE
from analysis.stats import LEVEL, Estimate
from analysis.tables import Section

PUBLISHED = "published"


@dataclass(frozen=True)
class AccuracyTable:
    """What ``analysis.paper_tables.render`` prints: a title, parts, a frame and notes.

    ``frame``: see ``accuracy_frame``. ``quoted``: the paper's own rows, for the mean score alone.
    """

    title: str
    frame: pd.DataFrame
    quoted: Sequence[PublishedRow]
    notes: list[str]

    def parts(self) -> list[Part]:
        """One block a measure."""
        return [
            _part(MEASURES[key].label, rows, self.quoted if key == "avg" else ())
            for key, rows in self.frame.groupby("measure", sort=False)
        ]

    def sections(self) -> list[Section]:
        """The blocks in plain text, as the pages print tables."""
        return [part.section() for part in self.parts()]


def _part(label: str, frame: pd.DataFrame, quoted: Sequence[PublishedRow]) -> Part:
    columns = list(dict.fromkeys(frame["benchmark"]))
    rows = []
    for policy, own in frame.groupby("policy", sort=False):
        known = {row["benchmark"]: cell(row) for row in own.to_dict("records")}
        lead = [Cell(str(policy)), *([Cell(MEASURED)] if quoted else [])]
        rows.append([*lead, *(known.get(name, Cell(DASH)) for name in columns)])
        for row in (row for row in quoted if row.policy == policy):
            values = [row.values.get(name) for name in columns]
            cells = [Cell(DASH if v is None else f"{v:.{DIGITS}f}") for v in values]
            rows.append([Cell(row.label), Cell(PUBLISHED), *cells])
    return Part(label, ["policy", *(["source"] if quoted else []), *columns], rows)


def cell(row: dict) -> Cell:
    """``12.5`` and ``[3.1, 21.9]`` of a row with value, low, high, problems and method."""
    if pd.isna(row["value"]):
        return Cell(DASH)
    low, high = (None if pd.isna(row[side]) else row[side] for side in ("low", "high"))
    estimate = Estimate(row["value"], low, high, row.get("problems", 0), row["method"])
    value, _, interval = estimate.text(DIGITS).partition(" ")
    return Cell(value, interval, row.get("mark", ""))


def notes_of(
    found: Sequence[Evaluated], frame: pd.DataFrame, quoted: Sequence[PublishedRow]
) -> list[str]:
    """How to read the table: sentences that belong under every print of it."""
    return [
        f"Percent, [{LEVEL:.0%} interval over problems, for other problems of the same kind and "
        "these policies; cut to 0 to 100]: Student's t, or exact (Clopper-Pearson) where all "
        "problems have 0, or all 100.",
        *_budgets(found),
        *_measures(frame),
        *_marks(frame),
        *_average(frame),
        *([f"Rows marked {PUBLISHED}: {SOURCE}, Table 1, without intervals."] if quoted else []),
    ]


def _budgets(found: Sequence[Evaluated]) -> Iterator[str]:
    told: dict[str, list[int]] = {}
    for done in found:
        if done.k:
            told.setdefault(f"{done.column}: {len(done.problems)} problems", []).append(done.k)
    texts = [f"{what} x {' or '.join(map(str, sorted(set(k))))}" for what, k in told.items()]
    yield f"Responses: {'; '.join(texts)}."


def _measures(frame: pd.DataFrame) -> Iterator[str]:
    if (frame["measure"] == "maj").any():
        yield (
            "maj@k: responses vote with their answers; of tied answers the mean score counts, and "
            "a problem without any answer counts 0. pass@k: without bias (Chen et al. 2021); a "
            "response counts as right at score 1 only, whatever partial scores avg@k takes in."
        )


def _marks(frame: pd.DataFrame) -> Iterator[str]:
    tests = "(paired t tests over problems, Holm)"
    if BEST in set(frame["mark"]):
        yield f"{MARKS[BEST]} and bold: better than every other policy on the benchmark {tests}."
    if TIE in set(frame["mark"]):
        yield f"{MARKS[TIE]}: the best on the benchmark, or not told apart from it {tests}."


def _average(frame: pd.DataFrame) -> Iterator[str]:
    columns = list(dict.fromkeys(frame["benchmark"]))
    if AVERAGE in columns:
        yield (
            f"{AVERAGE}: plain mean over the {len(columns) - 1} benchmarks, its interval from "
            "theirs, for these benchmarks; not marked."
        )
