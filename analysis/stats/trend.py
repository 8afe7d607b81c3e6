"""Does a quantity follow a level (a coefficient, a clip width): the slope, and Page's test."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import stats

from analysis.stats.estimate import LEVEL, Estimate
from analysis.stats.inputs import level_table, settle, size_of
from analysis.stats.intervals import mean_estimate


def slope_estimate(values: Mapping[float, pd.Series]) -> Estimate:
    """Mean least-squares slope of the quantity on the level, with a t interval over seeds.

    ``values``: one Series by level, indexed by seed; the unit is the quantity's per unit of level.
    Each seed gets its own line, and the lines' slopes are the numbers that the interval is made of
    (the summary-measures way: Matthews et al. 1990, BMJ 300:230), so that the levels of one seed
    need not be independent. Seeds that lack a level are dropped. Refused as ``mean_estimate``
    does. Raises ``LabError`` for fewer than two levels, one that is not finite, or a duplicate
    seed.
    """
    table = level_table(values, fewest=2)
    if table.empty:
        return Estimate(math.nan, None, None, 0, "no seed with every level")
    levels = np.array(table.columns, dtype=float)
    away = levels - levels.mean()
    slopes = table.to_numpy() @ away / (away @ away)
    result = mean_estimate(settle(slopes, size_of(table) / float(np.abs(away).max())))
    if result.low is None:
        return result
    return replace(result, method=f"{LEVEL:.0%} t interval over the slopes of {len(table)} seeds")


def page_p(values: Mapping[float, pd.Series], decreasing: bool) -> float:
    """One-sided p of Page's test that the quantity falls (``decreasing``) or rises with the level.

    ``values`` as in ``slope_estimate``; NaN with fewer than two seeds that have every level. Only
    the order of the levels counts. The null hypothesis is that within a seed every order is as
    likely; it says that *somewhere* the order holds, not that every step does. Page 1963, JASA
    58:216; ``scipy.stats.page_trend_test``, exact for small tables without ties. Raises
    ``LabError`` for fewer than three levels, one that is not finite, or a duplicate seed.
    """
    table = level_table(values, fewest=3).to_numpy()
    if len(table) < 2:
        return math.nan
    return float(stats.page_trend_test(table[:, ::-1] if decreasing else table).pvalue)
