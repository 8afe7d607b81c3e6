"""Statistics of fixed policies over the problems of a benchmark: the unit is the problem.

The samples of a problem share its difficulty, so they are averaged first: the interval over
problem means is that with errors clustered by problem (Miller 2024, arXiv 2411.00640, section 2.2).
It holds for other problems of the same kind and for this policy; it says nothing about what
training again gives.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from analysis.stats.compare import holm, permutation_p
from analysis.stats.estimate import LEVEL, Estimate, refused
from analysis.stats.inputs import settle, shared_differences
from analysis.stats.intervals import mean_estimate
from analysis.stats.passk import SOLVED, majority, pass_at_k
from cegppo_lab.errors import unknown


def per_problem(samples: pd.DataFrame) -> pd.DataFrame:
    """One row a problem, in the order of their first rows.

    ``samples``: a row a response with problem, answer, correct, length, truncated. Columns: ``n``
    responses, ``right`` of them with a score of 1, and the means ``avg`` (score), ``maj`` (see
    ``majority``), ``length`` (tokens) and ``truncated`` (share).
    """
    groups = samples.groupby("problem", sort=False)
    return pd.DataFrame({
        "n": groups.size(),
        "right": groups["correct"].agg(lambda scores: int((scores >= SOLVED).sum())),
        "avg": groups["correct"].mean(),
        "maj": pd.Series({name: majority(list(g["answer"]), list(g["correct"]))
                          for name, g in groups}, dtype=float),
        "length": groups["length"].mean(),
        "truncated": groups["truncated"].mean(),
    })  # fmt: skip


def pass_at(problems: pd.DataFrame, k: int) -> pd.Series:
    """pass@k of each problem of ``per_problem``; ``k`` at most the smallest ``n``."""
    return pd.Series(
        pass_at_k(problems["n"], problems["right"])[:, k - 1], problems.index, name="pass"
    )


def problem_estimate(values: ArrayLike) -> Estimate:
    """The mean over problems; ``values``: (problems,), e.g. the mean score of each.

    Student's t over problems, not cut to a range. Where all are 0, or all are 1, their spread was
    not measured: the exact Clopper-Pearson interval of so many problems without a success (a
    failure) instead, which holds for scores within [0, 1] of any kind. Refused for one problem,
    and for problems that all have another value. ``n_seeds`` counts problems.

    Measured coverage (scores of 4 samples, 20,000 tables a case), difficulty beta(2, 2) and
    beta(0.5, 1): 0.93 with 6 problems, 0.94 to 0.95 with 20 and 60. Hard benchmarks, beta(0.5, 8),
    mean 0.06: 0.94 with 20, 0.92 with 60, as the spread of so few successes is seldom seen whole.
    """
    values = np.asarray(values, dtype=float)
    if values.size == 0:
        return Estimate(math.nan, None, None, 0, "no problem")
    if values.size == 1:
        return refused(float(values[0]), 1, "1 problem")
    values = settle(values, float(np.abs(values).max()))
    if np.ptp(values) == 0:
        return _alike(float(values[0]), values.size)
    found = mean_estimate(values)
    return Estimate(
        found.value, found.low, found.high, values.size,
        f"{LEVEL:.0%} t interval over {values.size} problems",
    )  # fmt: skip


def _alike(value: float, n: int) -> Estimate:
    if value not in (0.0, 1.0):
        return refused(value, n, f"same in all {n} problems")
    exact = stats.binomtest(round(value * n), n).proportion_ci(LEVEL, method="exact")
    method = f"{LEVEL:.0%} Clopper-Pearson interval over {n} problems"
    return Estimate(value, float(exact.low), float(exact.high), n, method)


def average_estimate(parts: Sequence[Estimate]) -> Estimate:
    """The plain mean of independent estimates, one a benchmark, for these benchmarks.

    Each part's distances to its limits stand for its own standard error at that limit, and add up
    in squares ("variance recovery", Zou and Donner 2008, Stat Med 27:1693), so that parts with t
    and with exact intervals go together. Refused where a part has no interval; no value where a
    part has none. ``n_seeds`` counts the problems of all parts.
    """
    values = [part.value for part in parts]
    n = sum(part.n_seeds for part in parts)
    if not parts or any(math.isnan(value) for value in values):
        return Estimate(math.nan, None, None, 0, "not every benchmark was evaluated")
    value = float(np.mean(values))
    if any(part.low is None or part.high is None for part in parts):
        return refused(value, n, "a benchmark has no interval")
    below = math.hypot(*(part.value - part.low for part in parts)) / len(parts)
    above = math.hypot(*(part.high - part.value for part in parts)) / len(parts)
    method = f"{LEVEL:.0%} interval from those of {len(parts)} benchmarks, over {n} problems"
    return Estimate(value, value - below, value + above, n, method)


@dataclass(frozen=True)
class ProblemComparison:
    """A policy against the reference: ``difference`` is policy minus reference on shared problems.

    ``p``: two-sided sign-flip test over problems; ``p_holm``: adjusted over the policies compared.
    """

    name: str
    reference: str
    difference: Estimate
    p: float
    p_holm: float


def compare_on_problems(
    values: Mapping[str, pd.Series], reference: str, *, rng_seed: int = 0
) -> list[ProblemComparison]:
    """Every other policy against ``reference`` on the same problems, in the order given.

    ``values``: by policy, a Series indexed by problem. Paired t interval over problems; sign flips
    are exact up to 13 problems, then 9,999 seeded random patterns (``permutation_p``); Holm over
    the policies. Raises ``LabError`` for an unknown reference or a problem that comes twice.
    """
    if reference not in values:
        raise unknown("policy", reference, values)
    base = values[reference]
    others = {name: own for name, own in values.items() if name != reference}
    p = {name: permutation_p(own, base, rng_seed=rng_seed) for name, own in others.items()}
    adjusted = holm(p)
    return [
        ProblemComparison(name, reference, _difference(own, base), p[name], adjusted[name])
        for name, own in others.items()
    ]


def _difference(own: pd.Series, base: pd.Series) -> Estimate:
    away = shared_differences(own, base)
    if away.size == 0:
        return Estimate(math.nan, None, None, 0, "no shared problem")
    if away.size == 1:
        return refused(float(away[0]), 1, "1 shared problem")
    if np.ptp(away) == 0:
        return refused(float(away[0]), away.size, f"same in all {away.size} problems")
    found = mean_estimate(away)
    method = f"{LEVEL:.0%} paired t interval over {away.size} problems"
    return Estimate(found.value, found.low, found.high, away.size, method)
