"""The paper's Tables 1 and 2 from one's own runs, beside what was published."""

from analysis.paper_tables.build import paper_table
from analysis.paper_tables.methods import BASE, METHODS, TABLES
from analysis.paper_tables.render import to_csv, to_latex, to_markdown
from analysis.paper_tables.table import COLUMNS, PaperTable

__all__ = [
    "BASE",
    "COLUMNS",
    "METHODS",
    "TABLES",
    "PaperTable",
    "paper_table",
    "to_csv",
    "to_latex",
    "to_markdown",
]
