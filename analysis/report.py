"""``report/<sweep>/``: the figures, the tables, the ledger, and one page that holds them all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from analysis import artifacts, claims, comparisons, figures, ledger, page, series, tables
from analysis.answer import answer
from analysis.captions import endings, line_notes, switches
from analysis.figures import ledger as ledger_figures
from analysis.load import Source, SweepData
from analysis.search import SearchPart, write_search
from cegppo_lab.files import write_json

ON_PAGE = ("entropy", "accuracy", "reward", "kl", "grad_norm")


@dataclass(frozen=True)
class ReportResult:
    """What ``write_report`` made: the page, the text for the terminal, and what is not whole."""

    path_to_index: Path
    table_text: str
    problems: list[str]


def write_report(source: Source, name: str, out: Path) -> ReportResult:
    """Write ``out/<name>/`` with index.html, figures (PNG, PDF, JSON), tables and claims.json.

    Files of an earlier report are replaced one by one, whole; on an error none is touched.
    Raises ``LabError`` when the sweep is unknown or has no step yet.
    """
    data = source.sweep(name)
    frame = tables.results_table(data)
    compared = comparisons.comparisons_table(data)
    verdicts = [v for v in claims.evaluate_sweeps([data]) if v.parts]
    problems = [*data.problems, *_not_drawn(data)]
    with artifacts.staged(Path(out) / name) as folder:
        found = write_search(data, folder)
        curves = _drawn(data, found)
        shown = []
        for key in series.available(curves):
            drawing = figures.draw(curves, key)
            shown.append(page.save([curves], drawing, folder, key, _query(curves, [key])))
        keys = [key for key in figures.OVERVIEW if key in series.available(curves)]
        if keys:
            drawing = figures.overview(curves, keys)
            page.write([curves], drawing, folder, "overview", _query(curves, keys))
        _save_tables(data, frame, compared, folder)
        write_json(folder / "claims.json", claims.to_json(verdicts))
        shown.sort(key=_place)
        tokens = _token_ledger(curves, folder)
        html = _page(data, curves, found, frame, compared, verdicts, shown, problems, tokens)
        (folder / "index.html").write_text(html, encoding="utf-8")
    text = (found.text + "\n" if found else "") + tables.to_terminal(frame)
    if verdicts:
        text += "\n" + claims.to_terminal(verdicts)
    return ReportResult(Path(out) / name / "index.html", text, problems)


def _drawn(data: SweepData, found: SearchPart | None) -> SweepData:
    """The arms with curves: of a search the fixed ones and the best, else all."""
    arms = [arm for arm in data.arms if found and arm.name in found.curves]
    started = set(data.steps["arm"])
    return data.only(arms) if any(arm.name in started for arm in arms) else data


def _token_ledger(data: SweepData, folder: Path) -> dict[str, Any]:
    """The token ledger's figures, saved, and its tables; empty where no run has logged it."""
    if not ledger.arms(data):
        return {}
    drawings = {
        "ledger_mass": ledger_figures.mass(data),
        "ledger_entropy": ledger_figures.entropy(data),
    }
    query = {"metrics": "ledger/*", "smoothing_steps": series.smoothing_windows(data)}
    return {
        "figures": [page.save([data], d, folder, key, query) for key, d in drawings.items()],
        "sections": ledger.sections(data),
        "explanation": ledger.explanation(),
    }


def _place(figure: Mapping[str, str]) -> int:
    return ON_PAGE.index(figure["key"])


def _not_drawn(data: SweepData) -> list[str]:
    missing = [key for key in series.PANELS if key not in series.available(data)]
    return [f"There is no {key} figure: no run has logged its numbers." for key in missing]


def _query(data: SweepData, keys: list[str]) -> dict[str, Any]:
    return {
        "metrics": {key: series.PANELS[key].metric or "evals: accuracy" for key in keys},
        "smoothing_steps": series.smoothing_windows(data),
    }


def _save_tables(data: SweepData, frame: Any, compared: Any, folder: Path) -> None:
    (folder / "results.md").write_text(tables.to_markdown(frame), encoding="utf-8")
    (folder / "results.csv").write_text(tables.to_csv(frame), encoding="utf-8")
    (folder / "comparisons.md").write_text(comparisons.to_markdown(compared), encoding="utf-8")
    (folder / "comparisons.csv").write_text(comparisons.to_csv(compared), encoding="utf-8")
    query = {
        key: {"metric": q.metric or "evals: accuracy", "where": q.where, "paired": q.versus}
        for key, q in tables.QUANTITIES.items()
    }
    write_json(folder / "results.json", artifacts.record(data, "Results", query))
    compared_by = {"quantities": list(comparisons.COMPARED), "wanted": comparisons.WANTED}
    made_by = artifacts.record(data, "Comparisons", compared_by)
    write_json(folder / "comparisons.json", made_by)


def _page(
    data: SweepData,
    curves: SweepData,
    found: SearchPart | None,
    frame: Any,
    compared: Any,
    verdicts: list[claims.Verdict],
    shown: list[dict[str, str]],
    problems: list[str],
    tokens: dict[str, Any],
) -> str:
    manifest = data.manifest
    reading = line_notes(curves, [figure["key"] for figure in shown])
    if curves is not data:
        reading.append("Of the search's points, only the best have curves: see Search.")
    return page.render(
        "sweep.html.j2",
        name=data.name,
        question=manifest.get("question", ""),
        answer=answer(data),
        notes=manifest.get("notes", []),
        problems=problems,
        figures=shown,
        search=found,
        reading=" ".join([*reading, *endings(curves), *switches(curves)]),
        sections=tables.sections(frame),
        explanation=tables.explanation(frame),
        comparisons=comparisons.sections(compared),
        compared=comparisons.sentences(compared),
        tokens=tokens,
        ledger=claims.rows_for_page(verdicts),
        judged=claims.explanation(),
        arms=page.arm_rows(data),
        shared=page.shared_settings(data),
        trials=data.trials.to_dict("records"),
        provenance=page.provenance_rows(data),
        rerun=page.rerun(manifest),
        started=datetime.fromtimestamp(manifest["created"], UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
