"""A table of the paper, as numbers with all that belongs to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.paper_tables.layout import Part, parts
from analysis.tables import Section

COLUMNS = [
    "table", "block", "source", "model", "method", "benchmark", "value", "low", "high", "n_seeds",
    "n_planned", "mark", "method_of_interval", "at", "over", "sweep", "trials",
]  # fmt: skip
SUBJECTS = {
    1: "GRPO, DAPO and CE-GPPO",
    2: "CISPO, GSPO and CE-GPPO",
}


@dataclass(frozen=True)
class PaperTable:
    """Table ``number``: a row of ``frame`` is a cell, in percent; NaN where there is none.

    Columns of ``frame``: ``COLUMNS``. ``block``: "measured" holds runs whose model or benchmark is
    not the paper's, "measured and published" those where both are, "published" the rest of the
    paper's table. ``source``: measured or published. ``at``: the step. ``over``: the benchmarks
    that an Avg or IQM is over. ``mark``: best, tie or "". ``trials``: ids with blanks between.
    ``method_of_interval`` also says why there is no interval, or no value. ``notes``: sentences
    that belong under every print. ``made_by``: the record of its provenance.
    """

    number: int
    frame: pd.DataFrame
    notes: list[str]
    made_by: dict[str, Any]

    @property
    def title(self) -> str:
        """``Table 1: GRPO, DAPO and CE-GPPO, accuracy (%)``."""
        return f"Table {self.number}: {SUBJECTS[self.number]}, accuracy (%)"

    def parts(self) -> list[Part]:
        """The blocks to print."""
        return parts(self.frame)

    def sections(self) -> list[Section]:
        """The blocks in plain text, as the pages print tables."""
        return [part.section() for part in self.parts()]
