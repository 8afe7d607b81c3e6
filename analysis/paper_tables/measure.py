"""One's own runs as rows of a table: accuracies at the end, with intervals and marks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.paper_tables.methods import BASE, TABLES, Entry
from analysis.published import AVERAGE
from analysis.stats import (
    Estimate,
    best_of,
    hierarchical_estimate,
    iqm_estimate,
    mean_estimate,
)
from analysis.tables import QUANTITIES, seed_values

IQM = "IQM"
BEST, TIE = "best", "tie"
MEASURED = "measured"


@dataclass(frozen=True)
class Scores:
    """What a method scored on a benchmark, as shares in [0, 1].

    ``seeds``: one accuracy a seed. ``cells``: seed x problem, one column or gaps where the
    problems are not known for every seed. ``at``: the step, in words.
    ``missing``: why there is no score, "" where there is one.
    """

    seeds: pd.Series
    cells: pd.DataFrame
    at: str
    missing: str = ""

    def estimate(self) -> Estimate:
        """Over seeds and problems where the correctness of each is known, else over seeds."""
        if self.missing:
            return Estimate(math.nan, None, None, 0, self.missing)
        known = self.cells.shape[1] > 1 and bool(self.cells.notna().to_numpy().all())
        found = hierarchical_estimate(self.cells) if known else mean_estimate(self.seeds)
        return found.within(0, 1)


@dataclass(frozen=True)
class Block:
    """The methods of one model on some benchmarks of table ``number``.

    ``names``: what a benchmark of the sweeps is called in the table, in the order of its columns.
    """

    number: int
    model: str
    entries: Mapping[str, Entry]
    names: Mapping[str, str]

    @property
    def methods(self) -> tuple[str, ...]:
        """Every method of the table, run or not."""
        return (BASE, *TABLES[self.number])


def measured_rows(block: Block) -> Iterator[dict]:
    """A row for every method and benchmark of the block, then averages; values in percent."""
    scores = {
        (method, key): _scores(block, method, key)
        for key in block.names
        for method in block.methods
    }
    for key, name in block.names.items():
        own = {method: scores[method, key] for method in block.methods}
        marks = _marks({method: score.seeds for method, score in own.items()})
        for method, score in own.items():
            row = _row(block, method, name, score.estimate(), marks.get(method, ""))
            yield row | {"at": score.at, "over": ""}
    if len(block.names) > 1:
        yield from _averages(block, scores)


def _averages(block: Block, scores: Mapping[tuple[str, str], Scores]) -> Iterator[dict]:
    tables = {
        method: pd.DataFrame({key: scores[method, key].seeds for key in block.names}).dropna()
        for method in block.methods
    }
    marks = _marks({method: table.mean(axis=1) for method, table in tables.items()})
    summaries: dict[str, Callable[[pd.DataFrame], Estimate]] = {
        AVERAGE: lambda table: mean_estimate(table.mean(axis=1)),
        IQM: iqm_estimate,
    }
    for name, summary in summaries.items():
        for method, table in tables.items():
            gaps = [scores[method, key].missing for key in block.names]
            reason = next(filter(None, gaps), "no seed was evaluated on every benchmark")
            found = (
                Estimate(math.nan, None, None, 0, reason)
                if table.empty
                else summary(table).within(0, 1)
            )
            mark = marks.get(method, "") if name == AVERAGE else ""
            row = _row(block, method, name, found, mark)
            yield row | {"at": "", "over": ", ".join(block.names.values())}


def _scores(block: Block, method: str, benchmark: str) -> Scores:
    if method == BASE:
        return _base(block, benchmark)
    entry = block.entries.get(method)
    if entry is None:
        return _none("no arm of the sweeps is this method")
    if benchmark not in entry.data.benchmarks():
        return _none(f"not evaluated on {benchmark}")
    seeds, at = seed_values(entry.data, entry.arm.name, QUANTITIES["accuracy_end"], benchmark)
    seeds = seeds.dropna()
    if seeds.empty:
        return _none(f"no run has reached {at}")
    step = int(seeds.name)  # a column of the accuracy table, so named by its step
    cells = entry.data.correctness(entry.arm.name, benchmark, step)
    return Scores(seeds, cells.loc[seeds.index], at)


def _base(block: Block, benchmark: str) -> Scores:
    """Step 0, averaged over the arms of a seed: they all start from the same policy."""
    runs = [(entry.data, entry.arm.name) for entry in block.entries.values()]
    tables = [data.correctness(arm, benchmark, 0) for data, arm in runs]
    tables = [table for table in tables if not table.empty]
    if not tables:
        return _none(f"no run was evaluated on {benchmark} at step 0")
    seeds = _by_seed([table.mean(axis=1) for table in tables])
    alike = all(table.columns.equals(tables[0].columns) for table in tables)
    return Scores(seeds, _by_seed(tables) if alike else seeds.to_frame(), "step 0")


def _by_seed(parts: Sequence[pd.DataFrame] | Sequence[pd.Series]):
    return pd.concat(parts).groupby(level="seed").mean()


def _none(reason: str) -> Scores:
    return Scores(pd.Series(dtype=float), pd.DataFrame(), "", reason)


def _marks(values: Mapping[str, pd.Series]) -> dict[str, str]:
    """``BEST`` if one method is significantly better than every other, else ``TIE`` for the top."""
    known = {method: seeds for method, seeds in values.items() if not seeds.empty}
    if len(known) < 2:
        return {}
    best, not_worse = best_of(known)
    return dict.fromkeys([best, *not_worse], TIE) if not_worse else {best: BEST}


def _row(block: Block, method: str, benchmark: str, found: Estimate, mark: str) -> dict:
    used = list(block.entries.values()) if method == BASE else []
    used += [block.entries[method]] if method in block.entries else []
    trials = pd.concat([e.trials() for e in used]) if used else pd.DataFrame()
    percent = [math.nan if side is None else 100 * side for side in (found.low, found.high)]
    return {
        "table": block.number,
        "source": MEASURED,
        "model": block.model,
        "method": method,
        "benchmark": benchmark,
        "value": 100 * found.value,
        "low": percent[0],
        "high": percent[1],
        "n_seeds": found.n_seeds,
        "n_planned": int(trials["seed"].nunique()) if used else 0,
        "mark": mark,
        "method_of_interval": found.method,
        "sweep": ", ".join(dict.fromkeys(e.sweep.name for e in used)),
        "trials": " ".join(trials["trial_id"]) if used else "",
    }
