"""One number a run: what the measures of the claims average and compare. All indexed by seed."""

from __future__ import annotations

import pandas as pd

from analysis.load import Arm, SweepData
from analysis.load.experiments import MEAN_PROBLEM
from analysis.series import smooth, smoothing_window
from analysis.tables import Quantity, seed_values, window
from cegppo_lab.store import DONE, STOPPED


def at(data: SweepData, arm: Arm, metric: str, where: str) -> pd.Series:
    """The metric at the ``start`` (step 1), or over a tenth of the run at its ``mid`` or ``end``.

    NaN for a run that lacks any of these steps.
    """
    return seed_values(data, arm.name, Quantity("", "", metric, where))[0]


def whole(data: SweepData, arm: Arm, metric: str) -> pd.DataFrame:
    """The metric as a seed x step table, of the runs that have all the steps they will ever have.

    A run that a rule stopped is in with the steps it made: it was stopped for what it did, and
    without it the others would look better than the arm is. A failed run may have died of its
    machine, and one that still runs will have more; both are left out.
    """
    table = data.metric(arm.name, metric)
    own = data.trials[(data.trials["arm"] == arm.name) & data.trials["state"].isin([DONE, STOPPED])]
    return table[table.index.isin(own["seed"])]


def smoothed(data: SweepData, arm: Arm, metric: str) -> pd.DataFrame:
    """``whole``, smoothed as the figures are."""
    return smooth(whole(data, arm, metric), smoothing_window(data.length(arm.name)))


def positive(values: pd.Series) -> pd.Series:
    """The values with NaN where they cannot be what a ratio is taken to."""
    return values.where(values > 0)


def knows_problems(data: SweepData, *arms: Arm) -> bool:
    """Whether the arms' evaluations are known problem by problem, not as a mean only."""
    own = data.evals[data.evals["arm"].isin([arm.name for arm in arms])]
    return not (own["problem_id"] == MEAN_PROBLEM).any()


def end_problems(data: SweepData, arm: Arm) -> pd.DataFrame:
    """Correctness at the last evaluation, seed x problem; empty where a benchmark lacks it.

    With several benchmarks a problem weighs more where its benchmark has fewer, so that the mean
    over the problems is the mean over the benchmarks.
    """
    tables = [
        data.correctness(arm.name, benchmark, _last(data, arm, benchmark)).add_prefix(
            f"{benchmark}: "
        )
        for benchmark in data.benchmarks()
    ]
    counts = [table.shape[1] for table in tables]
    if not counts or 0 in counts:
        return pd.DataFrame(dtype=float)
    fair = sum(counts) / len(counts)
    return pd.concat(
        [table * (fair / count) for table, count in zip(tables, counts, strict=True)], axis=1
    )


def end_accuracies(data: SweepData, arm: Arm) -> pd.Series:
    """Accuracy at the last evaluation, mean over the benchmarks; NaN where a seed lacks one."""
    ends = [
        data.accuracy(arm.name, benchmark)
        .reindex(columns=[_last(data, arm, benchmark)])
        .set_axis([benchmark], axis=1)
        for benchmark in data.benchmarks()
    ]
    return pd.concat(ends, axis=1).mean(axis=1, skipna=False) if ends else pd.Series(dtype=float)


def _last(data: SweepData, arm: Arm, benchmark: str) -> int:
    """The last step of an evaluation in the last tenth of the arm's runs; -1: none."""
    steps = data.evals.loc[data.evals["benchmark"] == benchmark, "step"]
    steps = steps[steps.between(*window(data.length(arm.name), "end"))]
    return int(steps.max()) if len(steps) else -1
