"""The token ledger by arm: gradient mass by class, and the entropy change that each predicts."""

from __future__ import annotations

import textwrap
from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis import ledger
from analysis.figures.drawing import NARROW, Drawing
from analysis.load import SweepData
from analysis.series import common_end
from analysis.stats import mean_curve
from analysis.style import paper_style
from cegppo_lab.metrics import (
    LEDGER_CLASSES,
    LEDGER_ENTROPY,
    LEDGER_MASS,
    LEDGER_MEASURED,
    LEDGER_PREDICTED,
)

_COLORS = {"pa_hp": "#4C9BD6", "pa_lp": "#1B4F8A", "na_hp": "#F0A868", "na_lp": "#B4461B"}
_READ = (
    "HP, LP: probability in the rollout of at least, below 0.5; hatched: clipped tokens. Mean over "
    "the seeds as far as all of them go, smoothed as the curves are; the tables have intervals."
)


def mass(data: SweepData) -> Drawing:
    """Stacked areas: each class's share of the gradient mass over the steps, a panel an arm."""
    caption = f"Share of the sum of |F A| with the aggregation's weights, by class. {_READ}"
    return _drawing(data, "Gradient mass by class", caption, _mass, [])


def entropy(data: SweepData) -> Drawing:
    """Signed stacked areas of the predicted entropy change, with its sum and the measured one."""
    scales = _scales(data)

    def draw(axes: Axes, data: SweepData, arm: str) -> str:
        return _entropy(axes, data, arm, *scales)

    lines = [
        Line2D([], [], color="black", linewidth=1.4, label="predicted, sum"),
        Line2D([], [], color="black", linewidth=1.2, linestyle=":", label="measured (right axis)"),
    ]
    caption = (
        "Areas: first-order entropy change of a step by class, for plain gradient steps on the "
        "logits (Eq. 7 token by token); its size has no meaning for a network with Adam. Dotted: "
        "measured on the step's last mini-batch, on an axis of its own with the same zero; both "
        f"axes are the same in all panels. {_READ}"
    )
    return _drawing(data, "Predicted entropy change by class", caption, draw, lines)


def _drawing(
    data: SweepData,
    title: str,
    caption: str,
    draw: Callable[[Axes, SweepData, str], str],
    lines: list[Line2D],
) -> Drawing:
    arms = ledger.arms(data)
    figure, told = _panels(data, arms, draw, lines, min(3, len(arms)), (3.5, 2.6))
    with paper_style():
        width = int(figure.get_figwidth() * 18)
        figure.supxlabel(textwrap.fill(caption, width), fontsize=7, color="#444444", x=0.5)

    def narrow() -> Figure:
        return _panels(data, arms, draw, lines, 1, NARROW)[0]

    return Drawing(figure, narrow, title, caption, caption, f"{title}: {' '.join(told)}")


def _panels(
    data: SweepData,
    arms: list[str],
    draw: Callable[[Axes, SweepData, str], str],
    lines: list[Line2D],
    columns: int,
    size: tuple[float, float],
) -> tuple[Figure, list[str]]:
    rows = -(-len(arms) // columns)
    with paper_style():
        figure = Figure(figsize=(size[0] * columns, size[1] * rows + 1.3))
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        told = [draw(axes, data, arm) for axes, arm in zip(grid, arms, strict=False)]
        for axes, arm in zip(grid, arms, strict=False):
            axes.set(title=arm, xlabel="training step")
            axes.margins(x=0)
            axes.xaxis.get_major_locator().set_params(integer=True)
        for axes in grid[len(arms) :]:
            axes.set_axis_off()
        handles = [Patch(label=ledger.label(kind), **_form(kind)) for kind in LEDGER_CLASSES]
        across = 2 if columns == 1 else 5
        figure.legend(handles=[*handles, *lines], loc="outside upper center", ncols=across)
    return figure, told


def _form(kind: str) -> dict[str, object]:
    base, place = kind.rsplit("_", 1)
    hatch = "////" if place == "out" else None
    return {"facecolor": _COLORS[base], "edgecolor": "white", "linewidth": 0.2, "hatch": hatch}


def _mean(data: SweepData, arm: str, table: pd.DataFrame) -> pd.Series:
    """Mean over seeds at each step that all seeds have; index step."""
    smoothed = ledger.smoothed(data, arm, table)
    whole = common_end(smoothed)
    return pd.Series(mean_curve(smoothed.to_numpy()).mean[whole], smoothed.columns[whole])


def _mass(axes: Axes, data: SweepData, arm: str) -> str:
    tables = ledger.shares(data, arm, LEDGER_MASS)
    low = 0.0
    for kind, table in tables.items():
        mean = _mean(data, arm, table)
        axes.fill_between(mean.index, low, low + mean, **_form(kind))
        low = low + mean
    axes.set(ylim=(0, 1), ylabel="share of gradient mass")
    return _told(arm, {kind: 100 * float(t.mean().mean()) for kind, t in tables.items()})


def _entropy(axes: Axes, data: SweepData, arm: str, left: float, right: float) -> str:
    tables = ledger.by_class(data, arm, LEDGER_ENTROPY)
    means = {kind: _mean(data, arm, table) for kind, table in tables.items()}
    for part in (lambda mean: mean.clip(lower=0), lambda mean: mean.clip(upper=0)):
        low = 0.0
        for kind, mean in means.items():
            axes.fill_between(mean.index, low, low + part(mean), **_form(kind))
            low = low + part(mean)
    predicted = _mean(data, arm, data.metric(arm, LEDGER_PREDICTED))
    axes.plot(predicted.index, predicted, color="black", linewidth=1.4)
    axes.axhline(0, color="#555555", linewidth=0.6)
    axes.set(ylim=(-left, left), ylabel="predicted (nats, all contexts)")
    twin = axes.twinx()
    measured = _mean(data, arm, data.metric(arm, LEDGER_MEASURED))
    twin.plot(measured.index, measured, color="black", linewidth=1.2, linestyle=":")
    twin.set_ylim(-right, right)
    twin.set_ylabel("measured (nats per token)")
    twin.grid(visible=False)
    shares = ledger.shares(data, arm, LEDGER_ENTROPY)
    return _told(arm, {kind: 100 * float(t.mean().mean()) for kind, t in shares.items()})


def _scales(data: SweepData) -> tuple[float, float]:
    """Half the height of both axes, for all panels: room for every stack, and for every line."""
    stack, line = [0.0], [0.0]
    for arm in ledger.arms(data):
        means = [_mean(data, arm, t) for t in ledger.by_class(data, arm, LEDGER_ENTROPY).values()]
        for side in (1, -1):
            stack.append(float(sum((side * mean).clip(lower=0) for mean in means).max()))
        line.append(float(_mean(data, arm, data.metric(arm, LEDGER_MEASURED)).abs().max()))
    return 1.1 * float(np.nanmax(stack)) or 1.0, 1.1 * float(np.nanmax(line)) or 1.0


def _told(arm: str, percent: dict[str, float]) -> str:
    told = {kind: value for kind, value in percent.items() if np.isfinite(value)}
    parts = ", ".join(f"{ledger.label(kind)} {round(value)} %" for kind, value in told.items())
    return f"{arm}, mean over the run: {parts or 'no gradient'}."
