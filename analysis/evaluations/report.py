"""A folder with the table, the figure and the page of final evaluations."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis import artifacts, page, paper_tables
from analysis.evaluations import measure, texts
from analysis.evaluations.entry import Entry, Evaluated, read
from analysis.evaluations.figure import passk_figure
from analysis.evaluations.published import published_rows, withheld
from analysis.evaluations.table import AccuracyTable, notes_of
from cegppo_lab.files import write_json

TITLES = {
    "accuracy": "Mean score, majority vote and pass@k of all samples",
    "responses": "Length (tokens) and truncation of responses",
    "differences": "avg@k minus that of the first policy",
}
"""Of the sidecars; that of pass@k is the figure's."""


@dataclass(frozen=True)
class Result:
    """What was made: ``text`` for the terminal, what is not whole, the page."""

    text: str
    problems: list[str]
    path_to_index: Path


@dataclass(frozen=True)
class Report:
    """The evaluations of a report with the numbers that several of its files show."""

    name: str
    root: Path
    found: list[Evaluated]
    table: AccuracyTable
    problems: list[str]

    @property
    def provenance(self) -> dict[str, list[dict[str, Any]]]:
        """The attempts at each evaluation; what ``analysis.page.provenance_rows`` asks for."""
        return {d.entry.evaluation_id: d.config.get("provenance", []) for d in self.found}

    def text(self) -> str:
        """The mean scores for the terminal, with how to read them."""
        own = self.table.frame[self.table.frame["measure"] == "avg"]
        notes = notes_of(self.found, own, self.table.quoted)
        return texts.to_terminal(self.table, notes)

    def record(self, title: str, query: dict[str, Any]) -> dict[str, Any]:
        """The sidecar of an artifact."""
        rows = [
            {
                **vars(done.entry),
                "trial_id": done.config.get("policy", {}).get("trial_id"),
                "step": done.config.get("policy", {}).get("step"),
                "identity": done.config.get("identity", {}),
                "responses": len(done.rows),
            }
            for done in self.found
        ]
        code = artifacts.code_versions(self)
        return artifacts.evaluation_record(self.name, str(self.root), rows, code, title, query)


def write_evaluations(root: Path, name: str, entries: Sequence[Entry], out: Path) -> Result:
    """Write the report of named final evaluations into the folder ``out``.

    ``root``: the store's folder ``_evaluations``. Files: accuracy.{md,tex,csv,json},
    passk.{csv,png,pdf,json}, responses.{csv,json}, differences.{csv,json}, index.html; percent
    throughout. Those of an earlier report are replaced one by one, whole; on an error none is
    touched. The same store gives the same bytes. Nothing is loaded but files of the store.

    Raises:
        LabError: see ``analysis.evaluations.entry.read``.
    """
    root, out = Path(root), Path(out)
    report = prepare(root, name, entries)
    with artifacts.staged(out) as folder:
        html = _files(report, folder, _again(root, name, out))
        (folder / "index.html").write_text(html, encoding="utf-8")
    return Result(report.text(), report.problems, out / "index.html")


def prepare(root: Path, name: str, entries: Sequence[Entry]) -> Report:
    """The numbers of ``write_evaluations``, with nothing drawn or written; errors as there."""
    found = read(root, entries)
    frame, quoted = measure.accuracy_frame(found), published_rows(found)
    title = f"Evaluation {name}: accuracy (%)"
    gaps = [gap for done in found if (gap := done.gap())]
    table = AccuracyTable(title, frame, quoted, [*notes_of(found, frame, quoted), *gaps])
    return Report(name, root, found, table, [*gaps, *withheld(found)])


def _again(root: Path, name: str, out: Path) -> str:
    words = ["python", "-m", "analysis", "evaluations"]
    words += ["--store", str(root.parent), "--name", name, "--out", str(out)]
    return shlex.join(words)


def _files(report: Report, folder: Path, again: str) -> str:
    """Write all but the page, which is returned."""
    found, table = report.found, report.table
    curves, responses = measure.passk_frame(found), measure.response_frame(found)
    differences = measure.difference_frame(found)
    writers: dict[str, Callable[[Any], str]] = {
        "md": paper_tables.to_markdown,
        "tex": paper_tables.to_latex,
        "csv": paper_tables.to_csv,
    }
    for suffix, write in writers.items():
        (folder / f"accuracy.{suffix}").write_text(write(table), encoding="utf-8")
    frames = {"passk": curves, "responses": responses, "differences": differences}
    for stem, frame in frames.items():
        (folder / f"{stem}.csv").write_text(frame.to_csv(index=False), encoding="utf-8")
    for stem, title in TITLES.items():
        write_json(folder / f"{stem}.json", report.record(title, {"unit": "percent"}))
    drawing = passk_figure(curves)
    query = {"unit": "percent", "caption": drawing.caption}
    artifacts.save_figure(drawing.figure, folder, "passk", report.record(drawing.title, query))
    return page.render(
        "evaluations.html.j2",
        name=report.name,
        answer=texts.answer(table.frame, differences),
        problems=report.problems,
        sections=table.sections(),
        notes=table.notes,
        difference=texts.difference_section(differences),
        responses=texts.response_section(responses),
        figures=[page.shown(drawing, "passk")],
        benchmarks=texts.benchmark_rows(found),
        policies=texts.policy_section(found),
        examples=texts.examples(found),
        again=again,
        provenance=page.provenance_rows(report),
    )
