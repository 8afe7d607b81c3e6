"""The paper's figures, tables and claims from one's own runs: ``report/paper/``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis import artifacts, claims, page, paper_tables, series
from analysis.answer import answer
from analysis.captions import line_notes
from analysis.figures.paper import FIGURES, paper_figure
from analysis.load import Source, SweepData
from cegppo_lab.errors import LabError, unknown
from cegppo_lab.files import write_json

TABLES = {"table1": 1, "table2": 2}
TABLE_FEEDS = ("algorithms", "paper/algorithms")
TARGETS = (*FIGURES, *TABLES, "claims")
ALL = "all"
NOT_MADE = "Not made: "
READ = ("entropy", "accuracy")
"""The panels whose reading the page explains once."""
CLUSTER = "paper/"
"""Sweeps at the paper's scale are named so."""


@dataclass
class Feeds:
    """Which sweeps of ``source`` answer a question, each read once.

    ``names``: use these, whatever they are called (a foreign experiment, a sweep of one's own).
    ``scale``: ``embedded`` or ``paper``, where the source has both; by default the embedded one.
    """

    source: Source
    names: Sequence[str] = ()
    scale: str | None = None
    read: dict[str, SweepData] = field(default_factory=dict)

    def of(self, feeds: Sequence[str], what: str) -> list[SweepData]:
        """The sweeps that answer ``what``; ``LabError`` when there is none."""
        return [self._sweep(name) for name in self.names or self._present(feeds, what)]

    def _present(self, feeds: Sequence[str], what: str) -> list[str]:
        there = set(self.source.names())
        small = [name for name in feeds if not name.startswith(CLUSTER)]
        large = [name for name in feeds if name.startswith(CLUSTER)]
        order = {"embedded": [small], "paper": [large], None: [small, large]}[self.scale]
        for group in order:
            if found := [name for name in group if name in there]:
                return found
        wanted = order[0] or feeds
        raise LabError(
            f"{what} needs sweep {' or '.join(wanted)}, which {self.source.where} does not have "
            f"(there: {', '.join(sorted(there)) or 'none'}); "
            f"type: python -m cegppo_lab sweep {wanted[0]}, name your own with --sweep, or read "
            "runs made elsewhere with --experiment and --mapping"
        )

    def _sweep(self, name: str) -> SweepData:
        if name not in self.read:
            self.read[name] = self.source.sweep(name)
        return self.read[name]

    def claims(self) -> list[SweepData]:
        """Every sweep that some claim asks for and the source has."""
        there = self.source.names()
        found = []
        for name in self.names or [name for name in claims.sweeps_asked() if name in there]:
            try:
                found.append(self._sweep(name))
            except LabError:  # started, and no step yet: the claim is untested
                continue
        return found


@dataclass(frozen=True)
class PaperResult:
    """What was written, in order; ``text`` for the terminal; ``problems``: what is not whole."""

    paths: list[Path]
    text: str
    problems: list[str]


def write_paper(feeds: Feeds, target: str, out: Path, *, published: bool = False) -> PaperResult:
    """Write one of ``TARGETS``, or ``all`` of them and a page, into the folder ``out``.

    With ``all``, a target that cannot be made is told in ``problems``; ``LabError`` when none can,
    when the single target cannot, and for an unknown target. Nothing is written then.
    """
    if target not in (*TARGETS, ALL):
        raise unknown("target", target, (*TARGETS, ALL))
    wanted = TARGETS if target == ALL else (target,)
    with artifacts.staged(out) as folder:
        made = _Made(feeds, folder, published)
        for name in wanted:
            made.make(name, tolerant=target == ALL)
        if not made.done:
            raise LabError(made.problems[0].removeprefix(NOT_MADE))
        problems = made.all_problems()
        if target == ALL:
            (folder / "index.html").write_text(_page(made, problems), encoding="utf-8")
        names = sorted(path.name for path in folder.iterdir())
    return PaperResult([out / name for name in names], "\n".join(made.texts), problems)


class _Made:
    """The targets as they are made, with what the page needs of them."""

    def __init__(self, feeds: Feeds, folder: Path, published: bool) -> None:
        self.feeds, self.folder, self.published = feeds, folder, published
        self.done: list[str] = []
        self.problems: list[str] = []
        self.texts: list[str] = []
        self.figures: list[dict[str, str]] = []
        self.tables: list[Any] = []
        self.verdicts: list[claims.Verdict] = []

    def make(self, target: str, *, tolerant: bool) -> None:
        """Write the files of one target."""
        makers: dict[str, Callable[[str], None]] = {
            **dict.fromkeys(FIGURES, self._figure),
            **dict.fromkeys(TABLES, self._table),
            "claims": self._claims,
        }
        try:
            makers[target](target)
        except LabError as error:
            if not tolerant:
                raise
            self.problems.append(f"{NOT_MADE}{error}")
        else:
            self.done.append(target)

    def all_problems(self) -> list[str]:
        """What is not whole in the sweeps that were read, after what could not be made."""
        several = len(self.feeds.read) > 1
        told = [
            f"{name}: {problem}" if several else problem
            for name, data in self.feeds.read.items()
            for problem in data.problems
        ]
        return list(dict.fromkeys([*self.problems, *told]))

    def _figure(self, key: str) -> None:
        sweeps = self.feeds.of(FIGURES[key].feeds, key)
        drawing = paper_figure(key, sweeps, published=self.published)
        query = {
            "figure": key,
            "panels": {p: getattr(series.PANELS.get(p), "metric", p) for p in FIGURES[key].panels},
            "arms": [dict(selector) for selector in FIGURES[key].arms] or "all",
            "smoothing_steps": series.smoothing_windows(*sweeps),
        }
        self.figures.append(page.save(sweeps, drawing, self.folder, key, query))

    def _table(self, key: str) -> None:
        sweeps = self.feeds.of(TABLE_FEEDS, key)
        table = paper_tables.paper_table(TABLES[key], sweeps)
        self.tables.append(table)
        writers = {
            "md": paper_tables.to_markdown,
            "tex": paper_tables.to_latex,
            "csv": paper_tables.to_csv,
        }
        for suffix, write in writers.items():
            (self.folder / f"{key}.{suffix}").write_text(write(table), encoding="utf-8")
        write_json(self.folder / f"{key}.json", table.made_by)

    def _claims(self, _: str) -> None:
        sweeps = self.feeds.claims()
        self.verdicts = claims.evaluate_sweeps(sweeps)
        write_json(self.folder / "claims.json", claims.to_json(self.verdicts))
        self.texts.append(claims.to_terminal(self.verdicts))


def _page(made: _Made, problems: list[str]) -> str:
    sweeps = list(made.feeds.read.values())
    scales = " and ".join(sorted({data.scale for data in sweeps}))
    notes = [note for data in sweeps for note in data.manifest.get("notes", [])]
    trials = {row["trial_id"]: row for data in sweeps for row in data.trials.to_dict("records")}
    return page.render(
        "paper.html.j2",
        scales=scales,
        answer=_answer(made),
        problems=problems,
        figures=made.figures,
        reading=" ".join(dict.fromkeys(n for d in sweeps for n in line_notes(d, READ))),
        tables=[(table.title, table.sections(), table.notes) for table in made.tables],
        ledger=claims.rows_for_page(made.verdicts),
        judged=claims.explanation(),
        notes=list(dict.fromkeys(notes)),
        sweeps=[(data, page.arm_rows(data), page.rerun(data.manifest)) for data in sweeps],
        shared=page.shared_settings(*sweeps),
        trials=list(trials.values()),
        provenance=page.provenance_rows(*sweeps),
        sources=sorted({data.source for data in sweeps}),
    )


def _answer(made: _Made) -> list[str]:
    """Two sentences from the numbers: the ledger's count, and how the algorithms compare."""
    sentences = []
    by_verdict: dict[str, list[str]] = {}
    for verdict in made.verdicts:
        by_verdict.setdefault(verdict.verdict, []).append(verdict.id)
    if made.verdicts:
        scales = " and ".join(dict.fromkeys(v.scale for v in made.verdicts if v.scale))
        told = [
            f"{kind}: {len(set(ids))} ({', '.join(dict.fromkeys(ids))})"
            for kind, ids in by_verdict.items()
        ]
        sentences.append(
            f"The paper's {len({v.id for v in made.verdicts})} claims, tested at "
            f"{scales or 'no'} scale: {'; '.join(told)}."
        )
    for name in TABLE_FEEDS:
        if data := made.feeds.read.get(name):
            sentences.append(answer(data)[-1])
    return sentences
