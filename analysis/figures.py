"""Curves over training steps: one line an arm, mean over seeds with its interval as a band."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from analysis.captions import line_notes
from analysis.load import SweepData
from analysis.series import PANELS, Panel, available, common_end, scale_of, table_of
from analysis.stats import mean_curve
from analysis.style import Look, looks, paper_style
from cegppo_lab.errors import LabError, unknown
from cegppo_lab.store import PENDING

OVERVIEW = ("entropy", "accuracy", "kl", "grad_norm")


@dataclass(frozen=True)
class Drawing:
    """A figure with the words that belong to it.

    ``caption``: how to read it, printed under the axes; ``own``: the part of it that other
    figures of the sweep do not share. ``alt``: the figure in words, from its numbers.
    """

    figure: Figure
    title: str
    caption: str
    own: str
    alt: str


def draw(data: SweepData, key: str) -> Drawing:
    """One panel as a figure of its own. ``LabError``: unknown key, or no run has the numbers."""
    _require(data, [key])
    return _drawing(data, [key], PANELS[key].title, (5.8, 3.9), 1)


def overview(data: SweepData, keys: Sequence[str] = OVERVIEW) -> Drawing:
    """Panels two in a row, under one legend. ``LabError`` as in ``draw``."""
    _require(data, keys)
    return _drawing(data, keys, f"Sweep {data.name}", (8.6, 2.9 * -(-len(keys) // 2) + 0.9), 2)


def _require(data: SweepData, keys: Sequence[str]) -> None:
    for key in keys:
        if key not in PANELS:
            raise unknown("figure", key, PANELS)
        if key not in available(data):
            metric = PANELS[key].metric or "evaluations"
            raise LabError(f"no run of sweep {data.name!r} has {metric}, so there is no {key!r}")


def _drawing(
    data: SweepData, keys: Sequence[str], title: str, size: tuple[float, float], columns: int
) -> Drawing:
    styles = looks(data.arms)
    with paper_style():
        figure = Figure(figsize=size)
        grid = figure.subplots(-(-len(keys) // columns), columns, squeeze=False).ravel()
        own, alts = [], []
        for axes, key in zip(grid, keys, strict=False):
            tables = _tables(data, PANELS[key])
            own += _draw_panel(axes, data, PANELS[key], tables, styles)
            alts.append(_alt(PANELS[key], tables))
        for axes in grid[len(keys) :]:
            axes.set_axis_off()
        handles = _legend(data, styles, markers="accuracy" in keys)
        widest = max(len(handle.get_label()) for handle in handles)
        per_row = max(1, min(len(handles), round(size[0] * 11 / (widest + 8))))
        figure.legend(handles=handles, loc="outside upper center", ncols=per_row)
        caption = " ".join([*line_notes(data, keys), *own])
        wrapped = textwrap.fill(caption, int(size[0] * 19))
        figure.supxlabel(wrapped, fontsize=7, color="#444444", x=0.5)
    return Drawing(figure, title, caption, " ".join(own), " ".join(alts))


def _tables(data: SweepData, panel: Panel) -> dict[str, pd.DataFrame]:
    """What the panel draws, by arm; arms without numbers are left to the legend."""
    benchmark = data.benchmarks()[0] if panel.metric is None else ""
    tables = {arm.name: table_of(data, panel, arm.name, benchmark) for arm in data.arms}
    return {name: table for name, table in tables.items() if not table.empty}


def _draw_panel(
    axes: Axes,
    data: SweepData,
    panel: Panel,
    tables: dict[str, pd.DataFrame],
    styles: dict[str, Look],
) -> list[str]:
    """Draw every arm; returns what is particular to this panel, in sentences."""
    scale = scale_of(panel, list(tables.values()))
    if scale.kind != "linear":
        options = {"linthresh": scale.threshold} if scale.kind == "symlog" else {}
        axes.set_yscale(scale.kind, **options)
    for place, (name, table) in enumerate(tables.items()):
        shift = place - (len(tables) - 1) / 2
        _draw_arm(axes, panel, table, styles[name], shift)
    for name, table in tables.items():
        _mark_ends(axes, data, name, table, styles[name])
    for arm in data.arms:
        for _, step, _, _ in arm.switches():
            axes.axvline(step, color=styles[arm.name].color, linewidth=0.9, linestyle=(0, (2, 2)))
    axes.set(xlabel="training step", ylabel=panel.ylabel, title=panel.title)
    axes.set_ylim(scale.low, scale.high)
    axes.margins(x=0.02)
    notes = [scale.note] if scale.note else []
    if panel.metric is None and len(data.benchmarks()) > 1:
        notes.append(f"Accuracy on {data.benchmarks()[0]}; the table has the other benchmarks.")
    return notes


def _alt(panel: Panel, tables: dict[str, pd.DataFrame]) -> str:
    """The panel in words: where each arm's mean starts and ends."""
    spans = []
    for name, table in tables.items():
        whole = common_end(table)
        mean = mean_curve(table.to_numpy()).mean[whole]
        if mean.size:
            last = table.columns[whole][-1]
            spans.append(f"{name} from {mean[0]:.3g} to {mean[-1]:.3g} at step {last}")
    return f"{panel.title} over training steps, mean over seeds: {'; '.join(spans)}."


def _draw_arm(axes: Axes, panel: Panel, table: pd.DataFrame, look: Look, shift: float) -> None:
    curve = mean_curve(table.to_numpy())
    steps, whole = table.columns.to_numpy(dtype=float), common_end(table)
    low = np.clip(curve.low, panel.lowest, panel.highest)[whole]
    high = np.clip(curve.high, panel.lowest, panel.highest)[whole]
    mean, common = curve.mean[whole], {"color": look.color}
    if panel.metric is None:  # evaluations: markers, error bars set side by side
        gap = np.diff(steps).min() if len(steps) > 1 else 1.0
        at = steps[whole] + shift * gap * 0.09
        axes.plot(at, mean, linestyle=look.line, linewidth=1.1, alpha=0.8, **common)
        axes.errorbar(
            at, mean, np.stack([mean - low, high - mean]), fmt=look.marker, markersize=4.2,
            elinewidth=0.8, alpha=0.95, markeredgecolor="white", markeredgewidth=0.4, **common,
        )  # fmt: skip
    else:
        axes.plot(steps[whole], mean, linestyle=look.line, **common)
        axes.fill_between(steps[whole], low, high, alpha=0.13, linewidth=0, **common)
    after = ~whole
    after[np.flatnonzero(whole)[-1:]] = True
    tails = table.loc[:, after].dropna(how="any")  # seeds that outlive the mean
    for _, values in tails.iterrows():
        axes.plot(values.index, values, linewidth=0.8, alpha=0.75, linestyle=look.line, **common)


def _mark_ends(axes: Axes, data: SweepData, arm: str, table: pd.DataFrame, look: Look) -> None:
    """A cross, with seed and state, where a run of the arm ended before its last step."""
    for row in data.early_ends().query("arm == @arm").to_dict("records"):
        if row["seed"] not in table.index:
            continue
        values = table.loc[row["seed"]].dropna()
        axes.plot(
            values.index[-1:], values.iloc[-1:], "X", color=look.color, markersize=6.5,
            markeredgecolor="white", markeredgewidth=0.7, zorder=5,
        )  # fmt: skip
        label = axes.annotate(
            f"seed {row['seed']} {row['state']}", (values.index[-1], values.iloc[-1]),
            xytext=(5, 4), textcoords="offset points", fontsize=7, color=look.color, zorder=6,
        )  # fmt: skip
        label.set_path_effects([withStroke(linewidth=2, foreground="white")])


def _legend(data: SweepData, styles: dict[str, Look], *, markers: bool) -> list[Line2D]:
    handles = []
    for arm in data.arms:
        look, planned = styles[arm.name], data.planned(arm.name)
        trials = data.trials[data.trials["arm"] == arm.name]
        ran = int((trials["state"] != PENDING).sum())
        label = arm.name if ran == planned else f"{arm.name} ({ran} of {planned} seeds)"
        marker = look.marker if markers else ""
        form = {"color": look.color, "linestyle": look.line, "marker": marker, "markersize": 4.2}
        handles.append(Line2D([], [], label=label, **form))
    return handles
