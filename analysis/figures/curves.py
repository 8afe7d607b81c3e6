"""Curves over training steps: one line an arm, mean over seeds with its interval as a band."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from analysis.figures.drawing import Told
from analysis.load import SweepData
from analysis.series import PANELS, Panel, common_end, scale_of, table_of
from analysis.stats import mean_curve
from analysis.style import Look

PUBLISHED_MARK: dict[str, Any] = {
    "marker": "D", "markersize": 5.0, "markerfacecolor": "none", "linestyle": "none",
    "markeredgewidth": 1.1,
}  # fmt: skip


@dataclass(frozen=True)
class CurveCell:
    """A panel of ``PANELS``: every arm of ``data`` that has its numbers.

    ``benchmark``: whose accuracy an accuracy panel shows. ``title``: by default the panel's.
    ``marks``: published values to lay over the curves, by arm: frames with step and value.
    """

    data: SweepData
    kind: str
    title: str = ""
    benchmark: str = ""
    marks: dict[str, pd.DataFrame] | None = None

    def draw(self, axes: Axes, styles: dict[str, Look]) -> Told:
        """Draw every arm; told are a log axis, other benchmarks, and where each mean ends."""
        panel, data = PANELS[self.kind], self.data
        tables = {arm.name: table_of(data, panel, arm.name, self.benchmark) for arm in data.arms}
        tables = {name: table for name, table in tables.items() if not table.empty}
        scale = scale_of(panel, list(tables.values()))
        if scale.kind != "linear":
            options = {"linthresh": scale.threshold} if scale.kind == "symlog" else {}
            axes.set_yscale(scale.kind, **options)
        for place, (name, table) in enumerate(tables.items()):
            _draw_arm(axes, panel, table, styles[name], place - (len(tables) - 1) / 2)
        for name, table in tables.items():
            _mark_ends(axes, data, name, table, styles[name])
        for arm in data.arms:
            for _, step, _, _ in arm.switches():
                color = styles[arm.name].color
                axes.axvline(step, color=color, linewidth=0.9, linestyle=(0, (2, 2)))
        axes.set(xlabel="training step", ylabel=panel.ylabel, title=self.title or panel.title)
        axes.set_ylim(scale.low, scale.high)
        axes.margins(x=0.02)
        self._overlay(axes, styles)
        notes = [scale.note] if scale.note else []
        others = [name for name in data.benchmarks() if name != self.benchmark]
        if panel.metric is None and others:
            notes.append(f"Accuracy on {self.benchmark}; the table has the other benchmarks.")
        return Told(notes, _alt(panel, tables))

    def _overlay(self, axes: Axes, styles: dict[str, Look]) -> None:
        """Published values as hollow diamonds, as far as the runs go; the axis makes room."""
        longest = max(self.data.length(arm.name) for arm in self.data.arms)
        low, high = axes.get_ylim()
        for name, marks in (self.marks or {}).items():
            shown = marks[marks["step"] <= longest]
            axes.plot(
                shown["step"], shown["value"], color=styles[name].color, zorder=7, **PUBLISHED_MARK
            )
            if len(shown):
                low, high = min(low, shown["value"].min()), max(high, shown["value"].max() * 1.05)
        axes.set_ylim(low, high)


def published_handle() -> Line2D:
    """The legend entry of the published marks."""
    return Line2D([], [], color="#444444", label="published, not measured here", **PUBLISHED_MARK)


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
