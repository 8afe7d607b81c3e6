"""Panels of a search on one figure, each drawn by a function of its axes."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures import Drawing
from analysis.figures.drawing import NARROW
from analysis.style import paper_style

Panel = Callable[[Axes], None]
BLUE, ORANGE, GREY = "#1F5FBF", "#B8500A", "#6E7780"
VALUES = LinearSegmentedColormap.from_list(
    "objective", ["#E9EEF6", "#7FB0DC", "#1F5FBF", "#1A0838"]
)
"""Light to dark: also in grey, and for every kind of colour vision."""


def compose(
    panels: Sequence[Panel],
    title: str,
    caption: str,
    alt: str,
    handles: Sequence[Line2D] = (),
    *,
    columns: int = 2,
    size: tuple[float, float] = (4.3, 3.1),
) -> Drawing:
    """The panels in rows of ``columns``, each ``size`` (inches) large, under one legend."""
    columns = min(columns, len(panels))
    figure = _draw(panels, columns, size, handles)
    with paper_style():
        wrapped = textwrap.fill(caption, int(size[0] * columns * 18))
        figure.supxlabel(wrapped, fontsize=7, color="#444444", x=0.5)
    return Drawing(figure, lambda: _draw(panels, 1, NARROW, handles), title, caption, caption, alt)


def _draw(
    panels: Sequence[Panel], columns: int, size: tuple[float, float], handles: Sequence[Line2D]
) -> Figure:
    rows, width = -(-len(panels) // columns), size[0] * columns
    with paper_style():
        figure = Figure(figsize=(width, size[1] * rows + 0.9))
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for panel, axes in zip(panels, grid, strict=False):
            panel(axes)
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        if handles:
            widest = max(len(handle.get_label()) for handle in handles)
            per_row = max(1, min(len(handles), round(width * 11 / (widest + 8))))
            figure.legend(
                handles=handles, loc="outside upper center", ncols=per_row, handlelength=1.8
            )
    return figure


def mark(label: str, marker: str, color: str, *, hollow: bool = False, line: str = "") -> Line2D:
    """A legend's entry."""
    face = "none" if hollow else color
    form = {"marker": marker, "markerfacecolor": face, "markeredgecolor": color}
    return Line2D([], [], color=color, linestyle=line, label=label, markersize=5.5, **form)
