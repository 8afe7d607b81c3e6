"""``report/<sweep>/``: the figures, the tables, and one page that holds them all."""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2

from analysis import artifacts, figures, series, tables
from analysis.answer import answer
from analysis.captions import line_notes
from analysis.load import SweepData, load_sweep
from cegppo_lab.files import write_json
from cegppo_lab.store import RunStore

ON_PAGE = ("entropy", "accuracy", "reward", "kl", "grad_norm")


@dataclass(frozen=True)
class ReportResult:
    """What ``write_report`` made: the page, the table for the terminal, and what is not whole."""

    path_to_index: Path
    table_text: str
    problems: list[str]


def write_report(store: RunStore, name: str, out: Path) -> ReportResult:
    """Write ``out/<name>/`` with index.html, figures (PNG, PDF, JSON) and the results table.

    Files of an earlier report are replaced one by one, whole; on an error none is touched.
    Raises ``LabError`` when the sweep is unknown or has no step yet.
    """
    data = load_sweep(store, name)
    frame = tables.results_table(data)
    problems = [*data.problems, *_not_drawn(data)]
    with artifacts.staged(Path(out) / name) as folder:
        shown = []
        for key in series.available(data):
            drawing = figures.draw(data, key)
            shown.append(_save(data, drawing, folder, key, [key]))
        keys = [key for key in figures.OVERVIEW if key in series.available(data)]
        if keys:
            _save(data, figures.overview(data, keys), folder, "overview", keys)
        _save_tables(data, frame, folder)
        page = render(data, frame, sorted(shown, key=_place), problems)
        (folder / "index.html").write_text(page, encoding="utf-8")
    return ReportResult(Path(out) / name / "index.html", tables.to_terminal(frame), problems)


def _place(figure: Mapping[str, str]) -> int:
    return ON_PAGE.index(figure["key"])


def _not_drawn(data: SweepData) -> list[str]:
    missing = [key for key in series.PANELS if key not in series.available(data)]
    return [f"There is no {key} figure: no run has logged its numbers." for key in missing]


def _save(
    data: SweepData, drawing: figures.Drawing, folder: Path, stem: str, keys: list[str]
) -> dict[str, str]:
    """Write a figure's files; returns what the page needs of it."""
    query = {
        "metrics": {key: series.PANELS[key].metric or "evals: accuracy" for key in keys},
        "smoothing_steps": {
            a.name: series.smoothing_window(data.length(a.name)) for a in data.arms
        },
        "caption": drawing.caption,
    }
    made_by = artifacts.record(data, drawing.title, query)
    artifacts.save_figure(drawing.figure, folder, stem, made_by)
    image = base64.b64encode(artifacts.page_png(drawing.figure)).decode("ascii")
    source = f"data:image/png;base64,{image}"
    return {"key": stem, "title": drawing.title, "caption": drawing.own, "alt": drawing.alt,
            "source": source}  # fmt: skip


def _save_tables(data: SweepData, frame: Any, folder: Path) -> None:
    (folder / "results.md").write_text(tables.to_markdown(frame), encoding="utf-8")
    (folder / "results.csv").write_text(tables.to_csv(frame), encoding="utf-8")
    query = {
        key: {"metric": q.metric or "evals: accuracy", "where": q.where, "paired": q.versus}
        for key, q in tables.QUANTITIES.items()
    }
    write_json(folder / "results.json", artifacts.record(data, "Results", query))


def render(data: SweepData, frame: Any, shown: list[dict[str, str]], problems: list[str]) -> str:
    """The page as one self-contained HTML text; everything that comes from outside is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    manifest = data.manifest
    return environment.get_template("report.html.j2").render(
        name=data.name,
        question=manifest.get("question", ""),
        answer=answer(data),
        notes=manifest.get("notes", []),
        problems=problems,
        figures=shown,
        reading=" ".join(line_notes(data, [figure["key"] for figure in shown])),
        sections=tables.sections(frame),
        explanation=tables.explanation(),
        arms=[(arm.name, arm.algorithm, _differences(arm.differs)) for arm in data.arms],
        shared=_shared(data),
        trials=data.trials.to_dict("records"),
        provenance=_provenance(data),
        rerun=_rerun(manifest),
        started=datetime.fromtimestamp(manifest["created"], UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _differences(differs: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={_plain(value)}" for key, value in differs.items()) or "nothing"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _plain(value)


def _shared(data: SweepData) -> list[tuple[str, str]]:
    """The settings that every started trial has alike, as (dotted key, value)."""
    flat = [dict(_flat(config)) for config in data.configs.values() if config]
    first = flat[0] if flat else {}
    return [(k, v) for k, v in first.items() if all(other.get(k) == v for other in flat)]


def _provenance(data: SweepData) -> list[tuple[str, str]]:
    """What ran where: each fact with its distinct values over all attempts, and their counts."""
    facts: dict[str, dict[str, int]] = {}
    for attempt in (a for attempts in data.provenance.values() for a in attempts):
        entry = {
            "cegppo-lab": attempt.get("cegppo_lab"),
            "python": attempt.get("python"),
            **attempt.get("packages", {}),
            **{f"machine: {key}": value for key, value in attempt.get("machine", {}).items()},
        }
        for key, value in entry.items():
            counts = facts.setdefault(key, {})
            counts[str(value)] = counts.get(str(value), 0) + 1
    rows = [("git commit", ", ".join(artifacts.code_versions(data)) or "unknown")]
    for key, counts in facts.items():
        several = len(counts) > 1
        told = [f"{v} ({n} attempts)" if several else v for v, n in counts.items()]
        rows.append((key, ", ".join(told)))
    resumed = sum(
        bool(a.get("resumed_from")) for attempts in data.provenance.values() for a in attempts
    )
    rows.append(("attempts resumed from a checkpoint", str(resumed)))
    rows.append(("figures and tables drawn with", ", ".join(
        f"{package} {version}" for package, version in artifacts.versions().items())))  # fmt: skip
    return rows


def _rerun(manifest: Mapping[str, Any]) -> str:
    words = ["python", "-m", "cegppo_lab", "sweep", manifest["name"], *manifest["overrides"]]
    return shlex.join(words)
