"""The part of a sweep's report that a search adds: figures, tables, and words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis import artifacts, page
from analysis.figures import Drawing
from analysis.load import SweepData
from analysis.search import bars, fronts, importance, responses, table
from analysis.search.importance import LEAST, Importance
from analysis.search.study import Searched, read_search
from analysis.tables import Section
from cegppo_lab.files import write_json

CURVES = 4
"""So many of the best points are among the curves; the others are in the figures of the search."""


@dataclass(frozen=True)
class SearchPart:
    """What a search adds to the page; ``text``: for the terminal."""

    summary: list[str]
    figures: list[dict[str, str]]
    sections: list[Section]
    text: str
    curves: list[str] = field(default_factory=list)
    """The arms whose curves are drawn."""


def write_search(data: SweepData, folder: Path) -> SearchPart | None:
    """Write the figures, ``search.csv`` and ``importances.csv`` with their records.

    None for a sweep without a search, or one that has tried no point yet.
    """
    searched = read_search(data.manifest)
    if searched is None or not searched.points:
        return None
    shares = importance.importances(searched)
    shown = [
        page.save([data], drawing, folder, stem, _query(searched))
        for stem, drawing in _drawings(searched, shares).items()
    ]
    _write_tables(data, searched, shares, folder)
    sections = [table.points_section(searched, data)]
    if shares:
        sections.append(table.importances_section(searched, shares))
    summary = _summary(searched, shares)
    arms = [arm.arm for arm in searched.fixed]
    best = [point.arm for point in table.ordered(searched) if point in searched.best()]
    return SearchPart(
        summary, shown, sections, _text(searched, summary, shares), arms + best[:CURVES]
    )


def _drawings(searched: Searched, shares: Sequence[Importance]) -> dict[str, Drawing]:
    found = {"search_front" if len(searched.objectives) > 1 else "search_history":
             fronts.draw_found(searched)}  # fmt: skip
    for place in range(len(searched.objectives)):
        found[f"search_response_{place + 1}"] = responses.draw_response(searched, place, shares)
    found["search_importances"] = bars.draw_importances(searched, shares)
    return {stem: drawing for stem, drawing in found.items() if drawing is not None}


def _query(searched: Searched) -> dict[str, Any]:
    return {
        "search": searched.sampler,
        "objectives": {objective.title: objective.goal for objective in searched.objectives},
        "points": [point.number for point in searched.complete],
    }


def _write_tables(
    data: SweepData, searched: Searched, shares: Sequence[Importance], folder: Path
) -> None:
    (folder / "search.csv").write_text(table.points_csv(searched), encoding="utf-8")
    found = {
        "points": len(searched.points),
        "best": [vars(point) for point in searched.best()],
        "importances": [vars(one) for one in shares],
    }
    write_json(folder / "search.json", artifacts.record(data, "Search", _query(searched)) | found)
    if shares:
        (folder / "importances.csv").write_text(table.importances_csv(shares), encoding="utf-8")
        made_by = artifacts.record(data, "Parameter importances", _query(searched))
        write_json(folder / "importances.json", made_by)


def _summary(searched: Searched, shares: Sequence[Importance]) -> list[str]:
    states = [point.state for point in searched.points]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    told = [
        f"{len(states)} of {searched.planned} points were suggested ({searched.sampler}): {counts}."
    ]
    if searched.complete:
        told.append(fronts.CHOSEN)
    if not shares:
        told.append(
            f"There are no parameter importances: {len(searched.complete)} complete points, "
            f"{LEAST} are needed, with values that differ."
        )
    return told


def _text(searched: Searched, summary: list[str], shares: Sequence[Importance]) -> str:
    """For the terminal: the best points and the importances."""
    lines = [f"search: {summary[0]}"]
    if best := searched.best():
        lines.append("best point:" if len(searched.objectives) == 1 else "Pareto front:")
    for point in best:
        values = ", ".join(
            f"{objective.title} {value:.4g}"
            for objective, value in zip(searched.objectives, point.values, strict=True)
        )
        lines.append(f"  point {point.number}  {point.arm}  {values}")
    for objective in searched.objectives:
        own = [one for one in shares if one.objective == objective.title]
        if own:
            told = ", ".join(
                f"{one.parameter} {one.value:.2f} [{one.low:.2f}, {one.high:.2f}]" for one in own
            )
            lines.append(f"importances for {objective.title}: {told}")
    return "\n".join([*lines, *(f"note: {told}" for told in summary[1:]), ""])
