"""The points of a search as rows: for the page, and with all digits as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from analysis.load import SweepData
from analysis.search.importance import Importance
from analysis.search.study import COMPLETE, FAILED, PRUNED, Point, Searched, short
from analysis.stats import Estimate
from analysis.tables import Section

_ORDER = {COMPLETE: 0, PRUNED: 1, FAILED: 2}


def ordered(searched: Searched) -> list[Point]:
    """Best first by the first objective; then pruned, failed and open points."""
    sign = -1 if searched.objectives[0].larger else 1
    return sorted(
        searched.points,
        key=lambda p: (_ORDER.get(p.state, 3), sign * p.values[0] if p.values else 0.0, p.number),
    )


def points_section(searched: Searched, data: SweepData) -> Section:
    """A row a point: the best ones are marked; a mean has its interval where there is one."""
    name = short(list(searched.limits))
    best = {point.number for point in searched.best()}
    word = "best" if len(searched.objectives) == 1 else "front"
    rows = [
        [
            f"{point.number}{f' ({word})' if point.number in best else ''}",
            *(_text(point.parameters.get(key, "")) for key in searched.limits),
            *_cells(searched, point),
            _state(point, data),
            ", ".join(point.trials),
        ]
        for point in ordered(searched)
    ]
    blank = [""] * len(searched.limits)
    rows += [
        [arm.arm, *blank, *_cells(searched, arm), "for comparison", ", ".join(arm.trials)]
        for arm in searched.fixed
    ]
    titles = [objective.title for objective in searched.objectives]
    header = ["point", *name.values(), *titles, "state", "trials"]
    return Section("Points", header, rows)


def importances_section(searched: Searched, shares: Sequence[Importance]) -> Section:
    """A row an objective and parameter."""
    name = short(list(searched.limits))
    rows = [
        [name[one.parameter], one.objective, f"{one.value:.2f}", f"{one.low:.2f} to {one.high:.2f}"]
        for one in shares
    ]
    return Section(
        "Parameter importances", ["parameter", "objective", "importance", "resamples"], rows
    )


def points_csv(searched: Searched) -> str:
    """Every point in the order of suggestion, then the fixed arms; empty where there is none."""
    best = {point.number for point in searched.best()}
    rows = []
    for point in [*searched.points, *searched.fixed]:
        row: dict[str, Any] = {
            "number": point.number or "", "state": point.state or "fixed", "arm": point.arm,
            "best": point.number in best, "reason": point.reason, "trials": " ".join(point.trials),
            **{key: point.parameters.get(key, "") for key in searched.limits},
        }  # fmt: skip
        for place, objective in enumerate(searched.objectives):
            told = _estimate(point, place)
            sides = ["" if side is None else side for side in (told.low, told.high)]
            value = told.value if told.n_seeds else ""
            row |= {objective.title: value, f"{objective.title}, low": sides[0]}
            row |= {f"{objective.title}, high": sides[1], f"{objective.title}, seeds": told.n_seeds}
        rows.append(row)
    return _csv(rows)


def importances_csv(shares: Sequence[Importance]) -> str:
    """A row an objective and parameter."""
    return _csv([vars(one) for one in shares])


def _csv(rows: Iterable[dict[str, Any]]) -> str:
    rows = list(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _estimate(point: Point, place: int) -> Estimate:
    return point.estimate(place)


def _cells(searched: Searched, point: Point) -> list[str]:
    return [
        point.estimate(place).text(4) if point.by_seed else ""
        for place in range(len(searched.objectives))
    ]


def _state(point: Point, data: SweepData) -> str:
    """The state, its reason, and what became of runs that did not reach their end."""
    runs = data.trials[data.trials["trial_id"].isin(point.trials)]
    ended = [
        f"seed {row.seed} {row.state} at step {row.step}"
        + (f" ({row.reason})" if row.reason else "")
        for row in runs[runs["state"].isin(["stopped", "failed"])].itertuples()
    ]
    return "; ".join([f"{point.state}: {point.reason}" if point.reason else point.state, *ended])


def _text(value: Any) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)
