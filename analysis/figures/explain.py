"""F against the ratio, and the entropy drift of the clip-bias preview: no run is needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.load import Arm
from analysis.stats import mean_curve
from analysis.style import Look, looks, paper_style


class Curve(Protocol):
    """What :func:`cegppo_lab.explain.weights.curves` gives for one algorithm."""

    ratios: list[float]
    positive: list[float]
    negative: list[float]


def weights_figure(curves: Mapping[str, Curve], arms: Mapping[str, Arm]) -> Figure:
    """Two panels, one a sign of the advantage: F of every algorithm against the ratio."""
    with paper_style():
        figure = Figure(figsize=(9.2, 3.9))
        panels = figure.subplots(1, 2, sharey=True)
        titles = {"positive": "Positive advantage", "negative": "Negative advantage"}
        styles = looks(list(arms.values()))
        for axes, (side, title) in zip(panels, titles.items(), strict=True):
            axes.axvline(1, color="#BBBBBB", linewidth=0.8)
            for label, curve in curves.items():
                _line(axes, curve.ratios, getattr(curve, side), styles[label], label)
            axes.set(title=title, xlabel="Importance ratio d", xlim=(0, curve.ratios[-1]))
        panels[0].set(ylabel="F, the weight of A · grad log pi", ylim=(0, None))
        _legend(figure, panels[0])
    return figure


def drift_figure(entropy: Mapping[str, Any], arms: Mapping[str, Arm]) -> Figure:
    """Entropy against the rollout batch; ``entropy``: label -> (seeds, steps + 1).

    The band is Student's t interval over seeds at 95 %.
    """
    with paper_style():
        figure = Figure(figsize=(7.2, 4.2))
        axes = figure.subplots()
        styles = looks(list(arms.values()))
        for label, values in entropy.items():
            curve = mean_curve(values)
            steps = range(len(curve.mean))
            _line(axes, steps, curve.mean, styles[label], label)
            axes.fill_between(
                steps, curve.low, curve.high, color=styles[label].color, alpha=0.13, linewidth=0
            )
        axes.set(
            title="Entropy under rewards without signal (tabular policy)",
            xlabel="Rollout batches",
            ylabel="Entropy, nats per token",
            xlim=(0, len(curve.mean) - 1),
            ylim=(0, None),
        )
        _legend(figure, axes)
    return figure


def _line(axes: Axes, x: Any, y: Any, look: Look, label: str) -> None:
    axes.plot(x, y, color=look.color, linestyle=look.line, label=label)


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    columns = min(len(labels), 4)
    figure.legend(handles, labels, loc="outside upper center", ncols=columns)
