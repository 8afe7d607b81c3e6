"""Putting panels on one figure: a grid of cells under one legend, the words below it."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.captions import endings, line_notes, switches
from analysis.load import SweepData
from analysis.style import Look, looks, paper_style
from cegppo_lab.store import PENDING

NARROW = (3.9, 2.7)
"""Width and height of a panel on a phone, inches."""


@dataclass(frozen=True)
class Drawing:
    """A figure with the words that belong to it.

    ``caption``: how to read it, printed under the axes; ``own``: the part of it that other
    figures of the sweep do not share. ``alt``: the figure in words, from its numbers. ``narrow``
    draws it again for a phone: one panel below the other, without the caption.
    """

    figure: Figure
    narrow: Callable[[], Figure]
    title: str
    caption: str
    own: str
    alt: str


@dataclass(frozen=True)
class Told:
    """What a cell has to say once it is drawn: ``notes`` for the caption, itself in words."""

    notes: list[str]
    alt: str


class Cell(Protocol):
    """One set of axes. ``kind``: the key of ``PANELS`` it shows, or a name of its own."""

    data: SweepData
    kind: str

    def draw(self, axes: Axes, styles: dict[str, Look]) -> Told:
        """Draw on ``axes``."""
        ...


def compose(
    cells: Sequence[Cell],
    title: str,
    columns: int,
    size: tuple[float, float],
    extra: Sequence[Line2D] = (),
    notes: Sequence[str] = (),
) -> Drawing:
    """The cells in rows of ``columns``, each ``size`` (width, height in inches) large.

    The legend has every arm of every cell once, then ``extra``; ``notes`` end the caption.
    """
    figure, told = _draw(cells, columns, size, extra)
    own = list(dict.fromkeys([*(note for one in told for note in one.notes), *notes]))
    caption = " ".join(dict.fromkeys([*_reading(cells), *own]))
    with paper_style():
        wrapped = textwrap.fill(caption, int(size[0] * columns * 18))
        figure.supxlabel(wrapped, fontsize=7, color="#444444", x=0.5)
    alt = " ".join(one.alt for one in told)
    return Drawing(
        figure, lambda: _draw(cells, 1, NARROW, extra)[0], title, caption, " ".join(own), alt
    )


def _draw(
    cells: Sequence[Cell], columns: int, size: tuple[float, float], extra: Sequence[Line2D]
) -> tuple[Figure, list[Told]]:
    sweeps = list({id(cell.data): cell.data for cell in cells}.values())
    styles = looks(list({arm.name: arm for data in sweeps for arm in data.arms}.values()))
    rows, width = -(-len(cells) // columns), size[0] * columns
    with paper_style():
        figure = Figure(figsize=(width, size[1] * rows + 0.9))
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        told = [cell.draw(axes, styles) for cell, axes in zip(cells, grid, strict=False)]
        for axes in grid[len(cells) :]:
            axes.set_axis_off()
        markers = any(cell.kind == "accuracy" for cell in cells)
        handles = [*_legend(sweeps, styles, markers=markers), *extra]
        widest = max(len(handle.get_label()) for handle in handles)
        per_row = max(1, min(len(handles), round(width * 11 / (widest + 8))))
        figure.legend(handles=handles, loc="outside upper center", ncols=per_row)
    return figure, told


def _reading(cells: Sequence[Cell]) -> list[str]:
    """How the lines are made, and what happened to the runs, once for all cells."""
    kinds = [cell.kind for cell in cells]
    notes: list[str] = []
    for data in {id(cell.data): cell.data for cell in cells}.values():
        notes += [*line_notes(data, kinds), *endings(data), *switches(data)]
    return list(dict.fromkeys(notes))


def _legend(sweeps: Sequence[SweepData], styles: dict[str, Look], *, markers: bool) -> list[Line2D]:
    handles: dict[str, Line2D] = {}
    for data in sweeps:
        for arm in data.arms:
            look, planned = styles[arm.name], data.planned(arm.name)
            trials = data.trials[data.trials["arm"] == arm.name]
            ran = int((trials["state"] != PENDING).sum())
            label = arm.name if ran == planned else f"{arm.name} ({ran} of {planned} seeds)"
            marker = look.marker if markers else ""
            form = {"color": look.color, "linestyle": look.line, "marker": marker}
            handles.setdefault(arm.name, Line2D([], [], label=label, markersize=4.2, **form))
    return list(handles.values())
