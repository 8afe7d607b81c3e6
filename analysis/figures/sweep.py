"""The figures of one sweep: each panel alone, and the overview."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.figures.curves import CurveCell
from analysis.figures.drawing import Drawing, compose
from analysis.load import SweepData
from analysis.series import PANELS, available
from cegppo_lab.errors import LabError, unknown

OVERVIEW = ("entropy", "accuracy", "kl", "grad_norm")


def draw(data: SweepData, key: str) -> Drawing:
    """One panel as a figure of its own. ``LabError``: unknown key, or no run has the numbers."""
    return compose([curve_cell(data, key)], PANELS[key].title, 1, (5.8, 3.0))


def overview(data: SweepData, keys: Sequence[str] = OVERVIEW) -> Drawing:
    """Panels two in a row, under one legend. ``LabError`` as in ``draw``."""
    return compose([curve_cell(data, key) for key in keys], f"Sweep {data.name}", 2, (4.3, 2.9))


def curve_cell(data: SweepData, key: str, title: str = "", benchmark: str = "") -> CurveCell:
    """A panel of ``data``; ``LabError`` for an unknown key, or when no run has its numbers."""
    if key not in PANELS:
        raise unknown("figure", key, PANELS)
    if key not in available(data):
        metric = PANELS[key].metric or "evaluations"
        raise LabError(f"no run of sweep {data.name!r} has {metric}, so there is no {key!r} figure")
    if PANELS[key].metric is None:
        benchmark = benchmark or data.benchmarks()[0]
    return CurveCell(data, key, title, benchmark)
