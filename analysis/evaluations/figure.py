"""pass@k against k: one panel a benchmark, a line with its interval band a policy."""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from analysis.figures.drawing import NARROW, Drawing
from analysis.load import Arm
from analysis.stats import LEVEL
from analysis.style import Look, looks, paper_style

SIZE = (4.3, 2.9)
_COLUMNS = 2
_CAPTION = (
    f"Mean over problems of the unbiased pass@k, band or bar: {LEVEL:.0%} interval over problems "
    "(for each k alone). k on a logarithmic axis, up to all samples of a problem. Bands are cut to "
    "0 to 100, and missing where an interval is refused."
)


def passk_figure(frame: pd.DataFrame) -> Drawing:
    """The figure of ``passk_frame``."""
    panels = frame["benchmark"].nunique()
    columns = min(_COLUMNS, panels)
    figure = _draw(frame, columns, SIZE if panels > 1 else (5.8, 3.2))
    with paper_style():
        wrapped = textwrap.fill(_CAPTION, int(figure.get_figwidth() * 17))
        figure.supxlabel(wrapped, fontsize=7, color="#444444", x=0.5)
    title = "pass@k against the number of samples"
    return Drawing(figure, lambda: _draw(frame, 1, NARROW), title, _CAPTION, _CAPTION, _alt(frame))


def _draw(frame: pd.DataFrame, columns: int, size: tuple[float, float]) -> Figure:
    policies = list(dict.fromkeys(frame["policy"]))
    styles = looks([Arm(policy, "") for policy in policies])
    groups = list(frame.groupby("benchmark", sort=False))
    rows, width = -(-len(groups) // columns), size[0] * columns
    widest = max(map(len, policies))
    per_row = max(1, min(len(policies), round(width * 11 / (widest + 8))))
    legend_rows = -(-len(policies) // per_row)
    with paper_style():
        figure = Figure(figsize=(width, size[1] * rows + 0.4 + 0.2 * legend_rows))
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, (benchmark, own) in zip(grid, groups, strict=False):
            _panel(axes, str(benchmark), own, styles)
        for axes in grid[len(groups) :]:
            axes.set_axis_off()
        handles = [
            Line2D([], [], label=name, color=look.color, linestyle=look.line, marker=look.marker,
                   markersize=4.2)
            for name, look in styles.items()
        ]  # fmt: skip
        handles.sort(key=lambda handle: policies.index(handle.get_label()))
        figure.legend(handles=handles, loc="outside upper center", ncols=per_row)
    return figure


def _panel(axes: Axes, benchmark: str, frame: pd.DataFrame, styles: dict[str, Look]) -> None:
    axes.set_xscale("log", base=2)
    ticks = sorted(frame["k"].unique())
    for policy, own in frame.groupby("policy", sort=False):
        look = styles[str(policy)]
        color = {"color": look.color}
        axes.plot(
            own["k"], own["value"], linestyle=look.line, marker=look.marker, markersize=4.2,
            markeredgecolor="white", markeredgewidth=0.4, clip_on=False, zorder=3, **color,
        )  # fmt: skip
        if len(own) > 1:
            low, high = own["low"].astype(float), own["high"].astype(float)
            axes.fill_between(own["k"], low, high, alpha=0.13, linewidth=0, **color)
        else:
            spread = np.abs(own[["low", "high"]].to_numpy(float).T - own["value"].to_numpy())
            axes.errorbar(own["k"], own["value"], spread, fmt="none", elinewidth=1, **color)
    axes.xaxis.set_major_locator(FixedLocator(_readable(ticks)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda k, _: f"{k:g}")
    axes.set(xlabel="k samples", ylabel="pass@k (%)", title=benchmark)
    axes.set_ylim(0, min(105, max(5.0, float(np.nanmax(frame[["value", "high"]])) * 1.08)))


def _readable(ticks: list[int]) -> list[int]:
    """Every power of two; all samples only where its number stands clear of the one before."""
    last = ticks[-1]
    return [k for k in ticks if k == last or last / k >= 1.4]


def _alt(frame: pd.DataFrame) -> str:
    spans = []
    for (benchmark, policy), own in frame.groupby(["benchmark", "policy"], sort=False):
        first, last = own.iloc[0], own.iloc[-1]
        span = f"{policy} on {benchmark}: pass@{first['k']} {first['value']:.1f}%"
        if last["k"] > first["k"]:
            span += f", pass@{last['k']} {last['value']:.1f}%"
        spans.append(span)
    return f"pass@k against k. {'; '.join(spans)}."
