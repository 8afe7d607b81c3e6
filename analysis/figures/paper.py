"""The paper's six figures from one's own runs: what each shows, and the sweeps that feed it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from analysis.figures.curves import CurveCell, published_handle
from analysis.figures.drawing import Cell, Drawing, compose
from analysis.figures.scatter import scatter_cell
from analysis.figures.sweep import curve_cell
from analysis.load import SweepData
from analysis.published import FIGURES as MARKED
from analysis.published import published_curve
from analysis.select import by_model, find, short_named
from analysis.series import PANELS, available
from cegppo_lab.errors import LabError

GRPO, DAPO = {"algorithm": "grpo"}, {"algorithm": "dapo"}
CEGPPO = {"algorithm": "cegppo", "beta1": 0.75, "beta2": 1.0}
"""The paper's setting for the 7B policy, whose curves Figures 2 and 4 show."""
READ = "aime24"
"""The benchmark whose accuracies were read off Figure 2."""
TOKENS = "tokens"
"""The panel of token samples."""


@dataclass(frozen=True)
class PaperFigure:
    """``feeds``: names of the sweeps that answer it, embedded ones before those of the cluster.

    ``arms``: selectors, in the order of the legend; empty: all of the sweep. ``benchmarks``: whose
    accuracy is shown where it was measured, else the first benchmark's that was.
    """

    title: str
    feeds: tuple[str, ...]
    panels: tuple[str, ...]
    arms: tuple[Mapping[str, Any], ...] = ()
    benchmarks: tuple[str, ...] = ("aime25",)
    titles: dict[str, str] = field(default_factory=dict)
    note: str = ""
    needs: Mapping[str, Any] = field(default_factory=dict)
    """A selector of what the figure is about: without ``at_least`` such arms it is not drawn."""
    at_least: int = 1


FIGURES = {
    "figure1": PaperFigure(
        "Figure 1: tokens outside the clip interval, and what entropy does without their gradients",
        ("missing_gradients",),
        (TOKENS, "entropy"),
        needs={"algorithm": "cegppo", "beta1": 0.0},
        titles={"entropy": "Entropy with gradients missing"},
        note="CE-GPPO(1, 0) lacks the PA&LP gradients, CE-GPPO(0, 1) the NA&LP ones, GRPO both.",
    ),
    "figure2": PaperFigure(
        "Figure 2: entropy and accuracy of GRPO, DAPO and CE-GPPO",
        ("algorithms", "paper/algorithms"),
        ("entropy", "accuracy"),
        (GRPO, DAPO, CEGPPO),
        ("aime24", "aime25"),
    ),
    "figure3": PaperFigure(
        "Figure 3: the beta grid",
        ("beta_grid", "paper/beta_grid_1p5b", "paper/beta_grid_7b"),
        ("entropy", "accuracy"),
        needs={"algorithm": "cegppo"},
        at_least=2,
    ),
    "figure4": PaperFigure(
        "Figure 4: KL and gradient norm of GRPO and CE-GPPO",
        ("algorithms", "paper/algorithms"),
        ("kl", "grad_norm"),
        (GRPO, CEGPPO),
    ),
    "figure5": PaperFigure(
        "Figure 5: entropy bonuses, clip-higher and CE-GPPO",
        ("entropy_mitigation", "paper/entropy_mitigation"),
        ("entropy", "accuracy"),
        needs={"algorithm": "grpo", "entropy_coef": "positive"},
    ),
    "figure6": PaperFigure(
        "Figure 6: beta1 switched on during training",
        ("beta_switch", "paper/beta_switch"),
        ("entropy", "accuracy"),
        needs={"algorithm": "cegppo", "beta1": "scheduled"},
    ),
}


def paper_figure(key: str, sweeps: Sequence[SweepData], *, published: bool = False) -> Drawing:
    """Figure ``key`` of ``FIGURES``, a row of panels for every policy that the sweeps train.

    ``published``: lay the paper's own values over the curves where it gives them. What no run has
    is left out and said so; ``LabError`` when no panel is left.
    """
    figure = FIGURES[key]
    parts = [short_named(part) for data in sweeps for part in by_model(data).values()]
    notes, rows, missing = [], [], []
    for data in parts:
        chosen, absent = _arms(data, figure)
        notes += [f"Not among the arms of {data.name}: {'; '.join(absent)}."] if absent else []
        if not chosen:
            continue
        cells, without = _row(data.only(chosen), figure, model=len(parts) > 1)
        rows.append(cells)
        missing += without
    cells = [cell for row in rows for cell in row]
    if not cells:
        raise LabError(f"{key} cannot be drawn: {' '.join([*notes, *missing])}")
    marked = published and _lay_marks(key, cells)
    notes = [*filter(None, [figure.note]), *missing, *notes, _scales(parts)]
    if marked:
        notes.append(
            "Hollow diamonds: the paper's values for its 7B policy, read off its figure, at the "
            "paper's own steps."
        )
    columns = max(len(row) for row in rows)
    extra = [published_handle()] if marked else []
    return compose(cells, figure.title, columns, (4.3, 3.0), extra, notes)


def _arms(data: SweepData, figure: PaperFigure) -> tuple[list, list[str]]:
    """The figure's arms in ``data``, and in words those that it has not.

    Where the paper's coefficients were not run, all arms of that algorithm stand in.
    """
    if figure.needs and len(find(data, figure.needs)) < figure.at_least:
        return [], [f"at least {figure.at_least} with {_told(figure.needs)}"]
    if not figure.arms:
        return data.arms, []
    chosen, absent = [], []
    for wanted in figure.arms:
        same = [arm for arm in data.arms if arm.algorithm == wanted["algorithm"]]
        found = find(data, wanted) or (same if len(wanted) > 1 else [])
        chosen += [arm for arm in found if arm not in chosen]
        if not found:
            absent.append(_told(wanted))
    return chosen, absent


def _told(selector: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in selector.items())


def _row(data: SweepData, figure: PaperFigure, *, model: bool) -> tuple[list[Cell], list[str]]:
    """The panels of one policy, and a sentence for each that no run has numbers for."""
    cells: list[Cell] = []
    missing = []
    suffix = f", {data.models()[0]}" if model and data.models()[0] else ""
    for panel in figure.panels:
        letter = f"({'abcdef'[len(cells)]}) "
        if panel == TOKENS:
            try:
                cells.append(_scatter(data, f"{letter}Tokens and the clip interval{suffix}"))
            except LabError as error:
                missing.append(f"{str(error)[0].upper()}{str(error)[1:]}.")
            continue
        if panel not in available(data):
            missing.append(f"No run of {data.name} has logged {_needs(panel)}.")
            continue
        title = figure.titles.get(panel, PANELS[panel].title)
        for benchmark in _benchmarks(data, figure) if panel == "accuracy" else [""]:
            letter = f"({'abcdef'[len(cells)]}) "
            named = f"{title}, {benchmark}" if benchmark else title
            cells.append(curve_cell(data, panel, f"{letter}{named}{suffix}", benchmark))
    return cells, missing


def _needs(panel: str) -> str:
    return PANELS[panel].metric or "accuracies"


def _scatter(data: SweepData, title: str) -> Cell:
    """GRPO's tokens, or those of the first arm."""
    arm = (find(data, GRPO) or data.arms)[0]
    return scatter_cell(data, arm, title)


def _benchmarks(data: SweepData, figure: PaperFigure) -> list[str]:
    wanted = [name for name in figure.benchmarks if name in data.benchmarks()]
    return wanted or data.benchmarks()[:1]


def _scales(parts: Sequence[SweepData]) -> str:
    told = dict.fromkeys(
        f"{part.scale}" + (f" ({', '.join(filter(None, part.models()))})" if any(part.models())
                           else "")
        for part in parts
    )  # fmt: skip
    return f"Scale: {'; '.join(told)}."


def _lay_marks(key: str, cells: list[Cell]) -> bool:
    """Give the curve cells the published values that the paper prints; whether there are any."""
    number = int(key.removeprefix("figure"))
    if number not in MARKED:
        return False
    table, marked = published_curve(number).dropna(), False
    for place, cell in enumerate(cells):
        if not isinstance(cell, CurveCell) or (cell.kind == "accuracy" and cell.benchmark != READ):
            continue
        rows = table[table["quantity"].str.startswith(cell.kind)]
        names = {arm.name for arm in cell.data.arms}
        marks = {name: part for name, part in rows.groupby("series") if name in names}
        marked = marked or bool(marks)
        cells[place] = replace(cell, marks=marks)
    return marked
