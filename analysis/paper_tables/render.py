"""A table as markdown, LaTeX and CSV, all from its one frame."""

from __future__ import annotations

from analysis.paper_tables.layout import Cell, Part
from analysis.paper_tables.measure import BEST, TIE
from analysis.paper_tables.table import PaperTable

_LATEX = str.maketrans({
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "_": r"\_", "%": r"\%", "&": r"\&",
    "#": r"\#", "$": r"\$", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"$<$", ">": r"$>$", "[": "{[}", "]": "{]}",
    "\N{EN DASH}": "--", "\N{DAGGER}": r"$\dagger$", "\N{BLACK STAR}": r"$\star$",
})  # fmt: skip
"""Brackets are wrapped: after ``\\\\`` LaTeX takes a bare one for an option."""
_LATEX_MARKS = {BEST: r"$^\star$", TIE: r"$^\dagger$", "": ""}


def to_markdown(table: PaperTable) -> str:
    """GitHub-flavoured markdown: a table a block, the notes below."""
    lines = [f"### {table.title}", ""]
    for part in table.parts():
        body = [[_escaped(head) for head in part.header], ["---"] * len(part.header)]
        body += [[_markdown_cell(cell) for cell in row] for row in part.rows]
        lines += [f"**{_escaped(part.title)}**", "", *(f"| {' | '.join(r)} |" for r in body), ""]
    return "\n".join([*lines, *(f"- {_escaped(note)}" for note in table.notes), ""])


def _escaped(text: str) -> str:
    for character in "\\|*<":
        text = text.replace(character, f"\\{character}")
    return text


def _markdown_cell(cell: Cell) -> str:
    text = _escaped(cell.text)
    return f"**{text}**" if cell.mark == BEST else text


def to_latex(table: PaperTable) -> str:
    """A float for a document with ``booktabs`` and nothing else: a tabular a block, then notes.

    Intervals stand below their values, so that nine benchmarks fit a page.
    """
    lines = [
        "% needs \\usepackage{booktabs}",
        r"\begin{table}[p]",
        r"\centering\footnotesize",
        r"\setlength{\tabcolsep}{3pt}",
        rf"\caption{{{_latex(table.title)}}}",
    ]
    for part in table.parts():
        lines += _latex_part(part)
    notes = [rf"{_latex(note)}\par" for note in table.notes]
    return "\n".join([
        *lines, r"\par\medskip", r"\begin{minipage}{\linewidth}\scriptsize", *notes,
        r"\end{minipage}", r"\end{table}", "",
    ])  # fmt: skip


def _latex_part(part: Part) -> list[str]:
    rows = [" & ".join(_latex_cell(cell) for cell in row) + r" \\" for row in part.rows]
    return [
        r"\par\medskip",
        rf"\textbf{{{_latex(part.title)}}}\par\smallskip",
        rf"\begin{{tabular}}{{l{'c' * (len(part.header) - 1)}}}",
        r"\toprule",
        " & ".join(_latex(head) for head in part.header) + r" \\",
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
    ]


def _latex_cell(cell: Cell) -> str:
    value = _latex(cell.value)
    value = (rf"\textbf{{{value}}}" if cell.mark == BEST else value) + _LATEX_MARKS[cell.mark]
    if not cell.interval:
        return value
    return rf"\shortstack{{{value}\\{{\tiny {_latex(cell.interval)}}}}}"


def _latex(text: str) -> str:
    return text.translate(_LATEX)


def to_csv(table: PaperTable) -> str:
    """The frame as CSV: long and numeric; empty where there is no value or no interval."""
    return table.frame.to_csv(index=False)
