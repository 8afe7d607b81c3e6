"""Runs that were stopped early: which numbers they are not in, so that no mean hides them."""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd

from analysis.load import SweepData
from cegppo_lab.store import STOPPED


def stopped_out(data: SweepData, arms: Collection[str], values: pd.Series) -> int:
    """How many seeds have no number in ``values`` (by seed) and a stopped run in one of ``arms``.

    A mean over ``values`` is then one over the runs that went on.
    """
    trials = data.trials
    rows = trials[(trials["state"] == STOPPED) & trials["arm"].isin(arms)]
    return len(set(rows["seed"]) - set(values.dropna().index))


def mark(stopped: int) -> str:
    """What follows a count of seeds: ``, 1 stopped``, or nothing."""
    return f", {stopped} stopped" if stopped else ""


def mark_of(rows: pd.DataFrame, told: int) -> str:
    """The mark for ``told`` seeds, of those ``rows`` of a table that are over so many."""
    return mark(rows.loc[rows["n_seeds"] == told, "n_stopped"].max())


EXPLANATION = (
    "Stopped: that many runs were ended before these steps for what they did. The number is of the "
    "runs that went on, and may flatter the arm; what the others did is in the figures, up to "
    "their cross."
)
