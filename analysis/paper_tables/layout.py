"""The cells of a table's frame as blocks of rows and columns, still without a markup."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.paper_tables.measure import BEST, IQM, MEASURED, TIE
from analysis.published import AVERAGE, SOURCE
from analysis.stats import Estimate
from analysis.tables import Section

ALONE, BESIDE, QUOTED = "measured", "measured and published", "published"
"""The kinds of block, in the order they are printed."""
MARKS = {BEST: "\N{BLACK STAR}", TIE: "\N{DAGGER}", "": ""}
DASH = "\N{EN DASH}"
DIGITS = 1


@dataclass(frozen=True)
class Cell:
    """A value and its interval (or why there is none) as texts, and the mark: best, tie or ""."""

    value: str
    interval: str = ""
    mark: str = ""

    @property
    def text(self) -> str:
        """All of it in one line of plain text."""
        return f"{self.value}{MARKS[self.mark]} {self.interval}".rstrip()


@dataclass(frozen=True)
class Part:
    """One printable block: its title, the heads, and rows of as many cells."""

    title: str
    header: list[str]
    rows: list[list[Cell]]

    def section(self) -> Section:
        """In plain text, as the pages print tables."""
        return Section(self.title, self.header, [[cell.text for cell in row] for row in self.rows])


def parts(frame: pd.DataFrame) -> list[Part]:
    """The blocks of a table, in the frame's order."""
    groups = frame.groupby(["block", "model"], sort=False)
    return [_part(kind, model, rows) for (kind, model), rows in groups]


def _part(kind: str, model: str, frame: pd.DataFrame) -> Part:
    benchmarks = list(
        dict.fromkeys(frame.sort_values("over", key=_averages_last, kind="stable")["benchmark"])
    )
    labels = {ALONE: ["seeds"], BESIDE: ["source", "seeds"], QUOTED: []}[kind]
    rows = []
    for method in frame["method"].unique():
        for source, own in frame[frame["method"] == method].groupby("source", sort=False):
            told = int(own["n_seeds"].max())
            known = {row["benchmark"]: _cell(row, told) for _, row in own.iterrows()}
            lead = {"source": source, "seeds": _seeds(own, told)}
            cells = [known.get(name, Cell(DASH)) for name in benchmarks]
            rows.append([Cell(method), *(Cell(lead[label]) for label in labels), *cells])
    heads = [_head(frame, name, benchmarks) for name in benchmarks]
    return Part(_title(kind, model, frame), ["method", *labels, *heads], rows)


def _averages_last(over: pd.Series) -> pd.Series:
    return (over != "").astype(int)


def _head(frame: pd.DataFrame, name: str, benchmarks: Sequence[str]) -> str:
    """The benchmark's name; an average over fewer benchmarks than are shown says over how many."""
    over = frame.loc[frame["benchmark"] == name, "over"].iloc[0]
    count = len(over.split(", ")) if over else 0
    shown = sum(other not in (AVERAGE, IQM) for other in benchmarks)
    return f"{name} of {count}" if 0 < count < shown else name


def _title(kind: str, model: str, frame: pd.DataFrame) -> str:
    if kind == ALONE:
        return f"Measured here: model {model}; not comparable with published values"
    where = f"{SOURCE}, Table {frame['table'].iloc[0]}"
    if kind == QUOTED:
        return f"Published ({where}), not measured here: {model}"
    return f"{model}, measured here and published ({where})"


def _seeds(rows: pd.DataFrame, told: int) -> str:
    if rows["source"].iloc[0] != MEASURED:
        return DASH
    planned = int(rows["n_planned"].max())
    return str(told) if told == planned else f"{told} of {planned}"


def _cell(row: pd.Series, told: int) -> Cell:
    if pd.isna(row["value"]):
        return Cell(DASH)
    if row["source"] != MEASURED:
        return Cell(f"{row['value']:.{DIGITS}f}")
    low, high = (None if pd.isna(row[side]) else row[side] for side in ("low", "high"))
    estimate = Estimate(row["value"], low, high, row["n_seeds"], row["method_of_interval"])
    value, _, interval = estimate.text(DIGITS).partition(" ")
    if low is not None and row["n_seeds"] != told:
        interval += f" ({row['n_seeds']} seeds)"
    return Cell(value, interval, row["mark"])


def missing(frame: pd.DataFrame) -> Iterator[tuple[str, str, str, list[str]]]:
    """(model, method, reason, benchmarks) of the measured cells without a value."""
    gaps = frame[(frame["source"] == MEASURED) & frame["value"].isna() & (frame["over"] == "")]
    groups = gaps.groupby(["model", "method", "method_of_interval"], sort=False)["benchmark"]
    for (model, method, reason), benchmarks in groups:
        yield model, method, reason, list(benchmarks)
