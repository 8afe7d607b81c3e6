"""Final evaluations of policies on benchmarks: table, pass@k figure and page, from the store."""

from analysis.evaluations.entry import Entry
from analysis.evaluations.report import Result, write_evaluations

__all__ = ["Entry", "Result", "write_evaluations"]
