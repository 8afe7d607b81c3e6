"""The results table: estimates per arm with intervals, and differences to the reference arm."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.load import SweepData
from analysis.stats import LEVEL, Estimate, mean_estimate, paired_difference
from analysis.stops import EXPLANATION, mark, mark_of, stopped_out
from cegppo_lab.metrics import CLIPFRAC_HIGH, CLIPFRAC_LOW, ENTROPY, GRAD_NORM, PPO_KL

COLUMNS = [
    "arm", "quantity", "benchmark", "reference", "at",
    "estimate", "low", "high", "n_seeds", "n_planned", "n_stopped", "method",
]  # fmt: skip
TERMINAL_WIDTH = 108


@dataclass(frozen=True)
class Quantity:
    """One column of the table.

    ``metric`` None is held-out accuracy. ``where``: start, mid or end of the run. ``versus``: the
    paired difference to the reference arm. Shown as ``scale`` times the value with ``digits``.
    """

    section: str
    label: str
    metric: str | None
    where: str
    digits: int = 3
    scale: float = 1.0
    lowest: float = -np.inf
    highest: float = np.inf
    versus: bool = False


_ENTROPY, _UPDATE, _ACCURACY = "Entropy (nats per token)", "Update", "Held-out accuracy"
QUANTITIES = {
    "entropy_start": Quantity(_ENTROPY, "start", ENTROPY, "start", lowest=0),
    "entropy_mid": Quantity(_ENTROPY, "mid", ENTROPY, "mid", lowest=0),
    "entropy_end": Quantity(_ENTROPY, "end", ENTROPY, "end", lowest=0),
    "entropy_end_difference": Quantity(_ENTROPY, "end", ENTROPY, "end", versus=True),
    "accuracy_start": Quantity(_ACCURACY, "start", None, "start", lowest=0, highest=1),
    "accuracy_end": Quantity(_ACCURACY, "end", None, "end", lowest=0, highest=1),
    "accuracy_end_difference": Quantity(_ACCURACY, "end", None, "end", versus=True),
    "kl_end": Quantity(_UPDATE, "KL (1e-3 nats)", PPO_KL, "end", 2, 1e3),
    "grad_norm_end": Quantity(_UPDATE, "gradient norm", GRAD_NORM, "end", lowest=0),
    "clip_low_end": Quantity(_UPDATE, "clipped low (%)", CLIPFRAC_LOW, "end", 2, 100, 0, 1),
    "clip_high_end": Quantity(_UPDATE, "clipped high (%)", CLIPFRAC_HIGH, "end", 2, 100, 0, 1),
}
COMPACT = ("entropy_end", "entropy_end_difference", "accuracy_end", "accuracy_end_difference")


@dataclass(frozen=True)
class Section:
    """One printable table: a title, its column heads, and a row of strings for every arm."""

    title: str
    header: list[str]
    rows: list[list[str]]


def window(steps: int, where: str) -> tuple[int, int]:
    """First and last step averaged: step 1 at the ``start``, else a tenth of the run."""
    width = max(1, round(steps / 10))
    starts = {"start": 1, "mid": (steps - width) // 2 + 1, "end": steps - width + 1}
    return starts[where], 1 if where == "start" else starts[where] + width - 1


def seed_values(
    data: SweepData, arm: str, quantity: Quantity, benchmark: str = ""
) -> tuple[pd.Series, str]:
    """The quantity for each seed of the arm (NaN where a run lacks part of it), and where."""
    if quantity.metric is not None:
        first, last = window(data.length(arm), quantity.where)
        table = data.metric(arm, quantity.metric).reindex(columns=range(first, last + 1))
        at = f"step {first}" if first == last else f"steps {first} to {last}"
        return table.mean(axis=1, skipna=False), at
    step = _evaluated_step(data, arm, benchmark, quantity.where)
    table = data.accuracy(arm, benchmark).reindex(columns=[step])
    return table[step], f"step {step}"


def _evaluated_step(data: SweepData, arm: str, benchmark: str, where: str) -> int:
    """The first or last step at which runs as long as the arm's were evaluated."""
    peers = [other.name for other in data.arms if data.length(other.name) == data.length(arm)]
    evals = data.evals[data.evals["benchmark"] == benchmark]
    steps = evals.loc[evals["arm"].isin(peers), "step"]
    if steps.empty:
        steps = evals["step"]
    return int(steps.min() if where == "start" else steps.max())


def results_table(data: SweepData) -> pd.DataFrame:
    """One row an arm and quantity, long and numeric: see ``COLUMNS``.

    The first arm is the reference of the paired differences. ``n_stopped``: the seeds that are not
    in the estimate because a run was stopped before. ``low`` and ``high`` are NaN where
    an interval is refused, and ``method`` says why; they are cut to the quantity's range.
    """
    return pd.DataFrame(_rows(data), columns=COLUMNS)


def _rows(data: SweepData) -> Iterator[tuple]:
    reference = data.arms[0].name
    logged = set(data.steps["metric"])
    for key, quantity in QUANTITIES.items():
        if quantity.metric is not None and quantity.metric not in logged:
            continue
        for benchmark in [""] if quantity.metric is not None else data.benchmarks():
            base, _ = seed_values(data, reference, quantity, benchmark)
            for arm in data.arms:
                if quantity.versus and arm.name == reference:
                    continue
                values, at = seed_values(data, arm.name, quantity, benchmark)
                result, known, arms = (
                    (paired_difference(values, base), values - base, [arm.name, reference])
                    if quantity.versus
                    else (_bounded_mean(values, quantity), values, [arm.name])
                )
                yield (
                    arm.name, key, benchmark, reference if quantity.versus else "", at,
                    result.value, result.low, result.high, result.n_seeds,
                    data.planned(arm.name), stopped_out(data, arms, known), result.method,
                )  # fmt: skip


def _bounded_mean(values: pd.Series, quantity: Quantity) -> Estimate:
    return mean_estimate(values).within(quantity.lowest, quantity.highest)


def estimate_of(row: pd.Series) -> Estimate:
    """The ``Estimate`` in a row of the results table."""
    low, high = (None if pd.isna(row[side]) else float(row[side]) for side in ("low", "high"))
    return Estimate(float(row["estimate"]), low, high, int(row["n_seeds"]), row["method"])


def cell(row: pd.Series, *, digits: int | None = None, told: int | None = None) -> str:
    """``0.284 [0.183, 0.385]``; says the seeds where they are not as many as ``told``.

    ``told``: the count that the reader knows already, by default that of the plan.
    """
    quantity, estimate = QUANTITIES[row["quantity"]], estimate_of(row)
    stopped = mark(row["n_stopped"])
    count = f"{estimate.n_seeds} of {row['n_planned']} seeds{stopped}"
    if math.isnan(estimate.value):
        return f"n/a ({count})"
    text = estimate.text(
        quantity.digits if digits is None else digits, scale=quantity.scale, signed=quantity.versus
    )
    partial = estimate.n_seeds != (row["n_planned"] if told is None else told)
    if not partial:
        return text
    return f"{text} ({count})" if estimate.low is not None else text + stopped


def sections(frame: pd.DataFrame) -> list[Section]:
    """The table in printable parts: entropy, accuracy (one a benchmark), update."""
    parts: dict[str, list[tuple[str, str]]] = {}
    several = frame.loc[frame["benchmark"] != "", "benchmark"].nunique() > 1
    for key, benchmark in (
        frame[["quantity", "benchmark"]].drop_duplicates().itertuples(index=False)
    ):
        title = QUANTITIES[key].section
        title += f", {benchmark}" if benchmark and several else ""
        parts.setdefault(title, []).append((key, benchmark))
    return [_section(frame, title, keys) for title, keys in parts.items()]


def _section(frame: pd.DataFrame, title: str, keys: list[tuple[str, str]]) -> Section:
    parts = [frame[(frame["quantity"] == k) & (frame["benchmark"] == b)] for k, b in keys]
    whole = pd.concat(parts)
    places = whole["at"].unique()
    shared = len(places) == 1 and len(keys) > 1
    rows = []
    for arm in frame["arm"].drop_duplicates():
        own = whole[whole["arm"] == arm]
        told = int(own["n_seeds"].max())
        cells = {(r["quantity"], r["benchmark"]): cell(r, told=told) for _, r in own.iterrows()}
        counts = f"{told} of {own['n_planned'].iloc[0]}{mark_of(own, told)}"
        rows.append([arm, counts, *(cells.get(key, "reference") for key in keys)])
    heads = [_head(part, with_place=not shared) for part in parts]
    return Section(f"{title}, {places[0]}" if shared else title, ["arm", "seeds", *heads], rows)


def _head(rows: pd.DataFrame, *, with_place: bool) -> str:
    quantity = QUANTITIES[rows["quantity"].iloc[0]]
    if quantity.versus:
        return f"{quantity.label} minus {rows['reference'].iloc[0]}"
    places = rows["at"].unique()
    return f"{quantity.label}, {places[0]}" if with_place and len(places) == 1 else quantity.label


def explanation(frame: pd.DataFrame) -> str:
    """What the numbers are; belongs under every printed table."""
    told = (
        f"Mean over seeds [{LEVEL:.0%} t interval over seeds]; differences are paired on shared "
        "seeds. Intervals are not corrected for the number of comparisons, and are cut to the "
        "quantity's range. A run counts only where it has all the steps averaged."
    )
    return f"{told} {EXPLANATION}" if frame["n_stopped"].any() else told


def to_markdown(frame: pd.DataFrame) -> str:
    """The table as GitHub-flavoured markdown, one table a section."""
    lines = []
    for section in sections(frame):
        lines += [f"**{section.title}**", ""]
        body = [section.header, ["---"] * len(section.header), *section.rows]
        lines += ["| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in body]
        lines.append("")
    return "\n".join([*lines, explanation(frame), ""])


def to_csv(frame: pd.DataFrame) -> str:
    """The long numeric table as CSV; empty ``low`` and ``high`` where an interval is refused."""
    return frame.to_csv(index=False)


def to_terminal(frame: pd.DataFrame) -> str:
    """A compact version in plain text, at most ``TERMINAL_WIDTH`` columns wide."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    shown = frame[frame["quantity"].isin(COMPACT)]
    if (shown["benchmark"] != "").any():
        first = shown.loc[shown["benchmark"] != "", "benchmark"].iloc[0]
        shown = shown[shown["benchmark"].isin(["", first])]
    keys = [key for key in COMPACT if (shown["quantity"] == key).any()]
    table.add_column("arm", overflow="fold")
    table.add_column("seeds")
    for key in keys:
        name = key.removesuffix("_difference").replace("_", " ")
        versus = QUANTITIES[key].versus
        table.add_column(f"minus {frame['arm'].iloc[0]}" if versus else name, overflow="fold")
    for arm, rows in shown.groupby("arm", sort=False):
        told, planned = int(rows["n_seeds"].max()), int(rows["n_planned"].iloc[0])
        cells = {
            row["quantity"]: cell(row, digits=2, told=told).replace(", ", ",")
            for _, row in rows.iterrows()
        }
        texts = [
            str(arm),
            f"{told}/{planned}{mark_of(rows, told)}",
            *(cells.get(key, "reference") for key in keys),
        ]
        table.add_row(*(Text(text) for text in texts))
    console = Console(file=io.StringIO(), width=TERMINAL_WIDTH, color_system=None)
    console.print(table)
    console.print(Text(explanation(frame), style="dim"))
    lines = console.file.getvalue().splitlines()
    return "\n".join(line.rstrip() for line in lines) + "\n"
