"""From the run store to figures, tables and a page that say how sure they are.

``write_report(store, name, out)`` is the whole way; ``load_sweep`` gives the tidy frames.
Imports the store and the metric names only: no trainer, no sweep.
"""

from analysis.load import SweepData, load_sweep
from analysis.report import ReportResult, write_report
from analysis.stats import Estimate

__all__ = ["Estimate", "ReportResult", "SweepData", "load_sweep", "write_report"]
