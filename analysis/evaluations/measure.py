"""The numbers of an evaluation: every policy on every benchmark, averages, differences."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.evaluations.entry import Evaluated
from analysis.paper_tables.measure import BEST, TIE
from analysis.published import AVERAGE
from analysis.stats import (
    Estimate,
    average_estimate,
    best_of,
    compare_on_problems,
    pass_at,
    powers_up_to,
    problem_estimate,
)

COLUMNS = [
    "policy", "benchmark", "measure", "k", "value", "low", "high", "problems", "responses", "mark",
    "method", "evaluation_id",
]  # fmt: skip
DIFFERENCE_COLUMNS = [
    "policy", "reference", "benchmark", "difference", "low", "high", "p", "p_holm", "method",
]  # fmt: skip
PERCENT = 100.0


@dataclass(frozen=True)
class Measure:
    """A score of a problem in [0, 1]: its values by problem, and the words for it."""

    label: str
    of: Callable[[Evaluated], pd.Series]

    def estimate(self, done: Evaluated) -> Estimate:
        """The mean over problems, in [0, 1], its interval not cut."""
        if done.rows.empty:
            return Estimate(math.nan, None, None, 0, "no response yet")
        return problem_estimate(self.of(done))


MEASURES = {
    "avg": Measure("avg@k, the mean score", lambda done: done.problems["avg"]),
    "maj": Measure("maj@k, the commonest answer's score", lambda done: done.problems["maj"]),
    "pass": Measure("pass@k, one of all k right", lambda done: pass_at(done.problems, done.k)),
}


def accuracy_frame(found: Sequence[Evaluated]) -> pd.DataFrame:
    """A row a policy, benchmark and measure (``COLUMNS``), then averages; values in percent.

    ``mark``: best where a policy is significantly better than every other one on the benchmark,
    tie for the best and those not told apart from it (``best_of`` over problems); averages have
    none. ``low`` and ``high`` are NaN where an interval is refused, and ``method`` says why.
    """
    several_k = any(done.k > 1 for done in found)
    rows = [
        row
        for key in MEASURES
        if key == "avg" or several_k
        for row in _rows(key, MEASURES[key], found)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _rows(key: str, measure: Measure, found: Sequence[Evaluated]) -> Iterator[dict]:
    columns = list(dict.fromkeys(done.column for done in found))
    estimates: dict[tuple[str, str], Estimate] = {}
    for column in columns:
        own = [done for done in found if done.column == column]
        marks = _marks({done.entry.policy: measure.of(done) for done in own if len(done.rows)})
        for done in own:
            policy = done.entry.policy
            estimates[policy, column] = measure.estimate(done)
            yield {
                **_numbers(estimates[policy, column]), "policy": policy, "benchmark": column,
                "measure": key, "k": done.k, "responses": len(done.rows),
                "mark": marks.get(policy, ""), "evaluation_id": done.entry.evaluation_id,
            }  # fmt: skip
    for policy in dict.fromkeys(done.entry.policy for done in found):
        own = [estimates[policy, column] for column in columns if (policy, column) in estimates]
        if len(columns) > 1:
            whole = average_estimate(own if len(own) == len(columns) else [])
            yield {**_numbers(whole), "policy": policy, "benchmark": AVERAGE, "measure": key,
                   "mark": "", "evaluation_id": ""}  # fmt: skip


def _numbers(found: Estimate) -> dict:
    """The estimate in percent, its interval cut to 0 to 100."""
    found = found.within(0, 1)
    low, high = (math.nan if side is None else PERCENT * side for side in (found.low, found.high))
    return {
        "value": PERCENT * found.value,
        "low": low,
        "high": high,
        "problems": found.n_seeds,
        "method": found.method,
    }


def _marks(values: dict[str, pd.Series]) -> dict[str, str]:
    if len(values) < 2:
        return {}
    best, not_worse = best_of(values)
    return dict.fromkeys([best, *not_worse], TIE) if not_worse else {best: BEST}


def passk_frame(found: Sequence[Evaluated]) -> pd.DataFrame:
    """pass@k of every policy, benchmark and k: policy, benchmark, k, value, low, high, method.

    In percent; k: powers of two up to the samples that every problem has, and these.
    """
    rows = []
    for done in found:
        for k in powers_up_to(done.k):
            numbers = _numbers(problem_estimate(pass_at(done.problems, k)))
            rows.append({**numbers, "policy": done.entry.policy, "benchmark": done.column, "k": k})
    return pd.DataFrame(
        rows, columns=["policy", "benchmark", "k", "value", "low", "high", "method"]
    )


def response_frame(found: Sequence[Evaluated]) -> pd.DataFrame:
    """Mean response length and the share that was cut: policy, benchmark, quantity, unit, ..."""
    rows = []
    for done in (done for done in found if len(done.rows)):
        length = problem_estimate(done.problems["length"]).within(0, math.inf)
        cut = problem_estimate(done.problems["truncated"]).within(0, 1)
        for quantity, unit, estimate, scale in (
            ("length", "tokens", length, 1.0),
            ("truncated", "percent", cut, PERCENT),
        ):
            low, high = (None if s is None else scale * s for s in (estimate.low, estimate.high))
            rows.append((
                done.entry.policy, done.column, quantity, unit, scale * estimate.value, low, high,
                estimate.n_seeds, len(done.rows), estimate.method,
            ))  # fmt: skip
    names = ["policy", "benchmark", "quantity", "unit", "value", "low", "high", "problems",
             "responses", "method"]  # fmt: skip
    return pd.DataFrame(rows, columns=names)


def difference_frame(found: Sequence[Evaluated]) -> pd.DataFrame:
    """avg@k of every other policy minus the first one's, on the same problems, in percent points.

    ``DIFFERENCE_COLUMNS``; Holm over the policies of each benchmark.
    """
    rows = []
    for column in dict.fromkeys(done.column for done in found):
        own = {d.entry.policy: d.problems["avg"] for d in found if d.column == column and d.k}
        if found[0].entry.policy not in own:
            continue
        for one in compare_on_problems(own, found[0].entry.policy):
            d = one.difference
            sides = (None if side is None else PERCENT * side for side in (d.low, d.high))
            rows.append((one.name, one.reference, column, PERCENT * d.value, *sides, one.p,
                         one.p_holm, d.method))  # fmt: skip
    return pd.DataFrame(rows, columns=DIFFERENCE_COLUMNS)
