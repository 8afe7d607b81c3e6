"""What the statistics are given, made ready: duplicates refused, gaps dropped, order settled.

Everything is sorted by label here, so that no seeded draw depends on the order of rows.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cegppo_lab.errors import LabError

ROUND_OFF = 1e-12
"""Numbers closer than this part of their size differ by rounding only."""


def seed_values(values: pd.Series) -> pd.Series:
    """The finite values, sorted by seed. Raises ``LabError`` where a seed comes twice."""
    _unique(values.index, "seed")
    numbers, order = values.to_numpy(dtype=float), _order(values.index)
    order = order[np.isfinite(numbers[order])]
    return pd.Series(numbers[order], index=values.index[order])


def shared_values(a: pd.Series, b: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Both at the seeds that both have, in the same order."""
    a, b = seed_values(a), seed_values(b)
    seeds = a.index[a.index.isin(b.index)]
    return a.loc[seeds], b.loc[seeds]


def shared_differences(a: pd.Series, b: pd.Series) -> NDArray[np.float64]:
    """``a - b`` at the shared seeds, settled: see ``settle``."""
    a, b = shared_values(a, b)
    return settle(a.to_numpy() - b.to_numpy(), size_of(a, b)) if len(a) else a.to_numpy()


def size_of(*tables: pd.Series | pd.DataFrame) -> float:
    """The largest absolute value in any of them (none empty): what rounding is relative to."""
    return max(float(np.abs(table.to_numpy()).max()) for table in tables)


def settle(values: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    """The values, made equal where they differ by the rounding of numbers of size ``scale`` only.

    0.3 - 0.1 and 0.4 - 0.2 differ in the last bit: that is no spread to build an interval on.
    """
    if np.ptp(values) > ROUND_OFF * scale:
        return values
    middle = float(values.mean())
    return np.full_like(values, middle if abs(middle) > ROUND_OFF * scale else 0.0)


def complete_cells(table: pd.DataFrame) -> pd.DataFrame:
    """Seeds x columns without a gap, sorted both ways.

    A column that no seed has is dropped first, then every seed that lacks a column. Raises
    ``LabError`` where a seed or a column comes twice.
    """
    _unique(table.index, "seed")
    _unique(table.columns, "column")
    cells = table.to_numpy(dtype=float)
    finite = np.isfinite(cells)
    columns = _order(table.columns)
    columns = columns[finite.any(axis=0)[columns]]
    rows = _order(table.index)
    rows = rows[finite[:, columns].all(axis=1)[rows]]
    return pd.DataFrame(cells[np.ix_(rows, columns)], table.index[rows], table.columns[columns])


def shared_cells(a: pd.DataFrame, b: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both at the seeds and columns that both have, without a gap, in the same order."""
    for table in (a, b):
        _unique(table.index, "seed")
        _unique(table.columns, "column")
    seeds = a.index[a.index.isin(b.index)]
    columns = a.columns[a.columns.isin(b.columns)]
    a, b = (table.reindex(index=seeds, columns=columns).astype(float) for table in (a, b))
    both = complete_cells(a - b)
    return a.loc[both.index, both.columns], b.loc[both.index, both.columns]


def level_table(values: Mapping[float, pd.Series], fewest: int) -> pd.DataFrame:
    """Seeds x levels in rising order, the seeds that have every level.

    Raises ``LabError`` for fewer than ``fewest`` levels, or one that is not a finite number.
    """
    levels = list(values)
    if not all(np.isfinite(level) for level in levels):
        raise LabError(f"levels {levels} are not all finite numbers. Leave out the others.")
    if len(levels) < fewest:
        raise LabError(
            f"a trend over {len(levels)} level(s) was asked for; at least {fewest} are needed. "
            "Add levels to the sweep."
        )
    columns = {level: seed_values(values[level]) for level in sorted(levels)}
    return pd.DataFrame(columns).dropna()


def _order(labels: pd.Index) -> NDArray[np.intp]:
    """Positions of the labels in the order of their text: they may be of several types."""
    return np.argsort([str(label) for label in labels])


def _unique(index: pd.Index, kind: str) -> None:
    if not index.is_unique:
        twice = index[index.duplicated()][0]
        raise LabError(
            f"{kind} {twice} comes more than once; each {kind} has one value. Average its rows, "
            "or drop the ones that are not meant."
        )
