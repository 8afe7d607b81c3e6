"""Tables 1 and 2: one's own runs and the published values in one frame."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from scipy import stats

from analysis import artifacts
from analysis.load import SweepData
from analysis.paper_tables.layout import ALONE, BESIDE, QUOTED
from analysis.paper_tables.measure import IQM, Block, measured_rows
from analysis.paper_tables.methods import METHODS, TABLES, Cast, Entry, cast
from analysis.paper_tables.notes import notes_of
from analysis.paper_tables.table import COLUMNS, PaperTable
from analysis.published import (
    AVERAGE,
    SOURCE,
    published_benchmark,
    published_model,
    published_table,
)

PUBLISHED = "published"
PRINTED, COMPUTED = "published without an interval", "computed from published values, no interval"


def paper_table(number: int, sweeps: Sequence[SweepData]) -> PaperTable:
    """The paper's Table 1 or 2 from one's own sweeps, beside the published values.

    Measured and published values share a block only where the runs are at the paper's scale, of
    its model, on its benchmark. Raises ``LabError`` for another number, where no arm is one of the
    table's methods, where nothing was evaluated, and for versions of a benchmark that differ.
    """
    chosen = cast(number, sweeps)
    blocks = [block for item in chosen.models.items() for block in _blocks(number, *item)]
    rows = []
    for kind, block in sorted(blocks, key=lambda pair: pair[0] != ALONE):
        rows += [{"block": kind, **row} for row in measured_rows(block)]
        if kind == BESIDE:
            rows += _quoted(number, block.model, BESIDE, list(block.names.values()))
    beside = {block.model for kind, block in blocks if kind == BESIDE}
    for model in published_table(number)["model"].unique():
        if model not in beside:
            rows += _quoted(number, model, QUOTED)
    frame = pd.DataFrame(rows, columns=COLUMNS)
    return PaperTable(number, frame, notes_of(frame, chosen), _record(number, chosen, frame))


def _blocks(number: int, model: str, entries: Mapping[str, Entry]) -> Iterator[tuple[str, Block]]:
    """The model's benchmarks that are not the paper's, and those that are."""
    printed = published_table(number)
    of_paper = all(entry.sweep.scale == "paper" for entry in entries.values())
    name = published_model(model) if of_paper else None
    columns = list(printed.loc[printed["model"] == name, "benchmark"].unique())
    found = sorted({key for entry in entries.values() for key in entry.data.benchmarks()})
    shared = {key: own for key in found if (own := published_benchmark(key)) in columns}
    if alone := {key: key for key in found if key not in shared}:
        yield ALONE, Block(number, model or "of unknown name", entries, alone)
    if shared:
        ordered = dict(sorted(shared.items(), key=lambda item: columns.index(item[1])))
        yield BESIDE, Block(number, str(name), entries, ordered)


def _quoted(number: int, model: str, block: str, over: Sequence[str] = ()) -> list[dict]:
    """The model's published rows, with an average over ``over`` (all where it is empty)."""
    table = published_table(number)
    table = table[table["model"] == model]
    rows = []
    for method, cells in table.groupby("method", sort=False):
        printed = cells.set_index("benchmark")["value"]
        values = {name: (value, PRINTED) for name, value in printed.items()}
        known = printed.drop(AVERAGE, errors="ignore")
        some = known[list(over)] if over else known
        if len(some) < len(known) or AVERAGE not in values:
            values[AVERAGE] = (some.mean(), COMPUTED)
        if block == BESIDE:
            values[IQM] = (stats.trim_mean(some, 0.25), COMPUTED)
        if len(some) < 2:
            values = {name: values[name] for name in known.index}
        base = {"table": number, "block": block, "source": PUBLISHED, "model": model,
                "method": method, "low": math.nan, "high": math.nan, "n_seeds": 0, "n_planned": 0,
                "mark": "", "at": "", "sweep": "", "trials": ""}  # fmt: skip
        for name, (value, how) in values.items():
            averaged = ", ".join(some.index) if name in (AVERAGE, IQM) else ""
            rows.append({**base, "benchmark": name, "value": float(value), "over": averaged,
                         "method_of_interval": how})  # fmt: skip
    return rows


def _record(number: int, chosen: Cast, frame: pd.DataFrame) -> dict[str, Any]:
    query = {
        "methods": {method: METHODS[method] for method in TABLES[number]},
        "where": "the last evaluation; base: step 0 of the same runs",
        "benchmarks": list(frame["benchmark"].unique()),
        "intervals": sorted(frame["method_of_interval"].unique()),
        "published": f"{SOURCE}, Table {number}",
    }
    return artifacts.record(chosen.sweeps(), f"Table {number}", query)
