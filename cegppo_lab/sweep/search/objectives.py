"""Objectives: what a run measured, as one number, averaged over the seeds of a point."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

from cegppo_lab import metrics as names
from cegppo_lab.config import RunConfig
from cegppo_lab.errors import LabError, unknown
from cegppo_lab.store import DONE, STOPPED, RunDir
from cegppo_lab.sweep.search.settings import Objective

ACCURACY, ENTROPY_DRIFT = "accuracy", "entropy_drift"
_AT: dict[str, Callable[[list[float]], float]] = {
    "end": lambda series: series[-1],
    "mean": statistics.fmean,
    "min": min,
    "max": max,
}


class UnmeasuredError(Exception):
    """A point has no value; the message says why."""


def step_metrics() -> set[str]:
    """The metrics that training steps log, by name."""
    constants = (value for key, value in vars(names).items() if key.isupper())
    return {name for name in constants if isinstance(name, str) and not name.endswith("/")}


def check_objectives(objectives: Sequence[Objective], config: RunConfig) -> None:
    """Raise ``LabError`` for a metric or a benchmark that runs like ``config`` do not have."""
    from cegppo_lab.evaluation import evaluated

    known = {ACCURACY, ENTROPY_DRIFT} | step_metrics()
    for objective in objectives:
        if objective.metric not in known:
            raise unknown("metric of search.objectives", objective.metric, known)
        if objective.metric != ACCURACY:
            if objective.benchmark:
                raise LabError(
                    f"benchmark={objective.benchmark}: {objective.metric} is measured in training, "
                    "on no benchmark; drop it"
                )
            continue
        benchmarks = [problems.name for problems in evaluated(config)]
        if objective.benchmark is None and len(benchmarks) > 1:
            raise LabError(f"accuracy: say on which benchmark: {', '.join(benchmarks)}")
        if objective.benchmark is not None and objective.benchmark not in benchmarks:
            raise unknown("benchmark of search.objectives", objective.benchmark, benchmarks)


def point_values(
    objectives: Sequence[Objective], runs: Sequence[RunDir], last: int | None = None
) -> list[float]:
    """A value per objective: the mean over ``runs``, one run a seed.

    A run that a rule stopped counts with what it measured until then. ``last``: the training step
    up to which they count, whatever was measured after it.

    Raises:
        UnmeasuredError: a run failed, did not measure an objective, or it is not finite.
    """
    for run in runs:
        status = run.status()
        if status.state not in (DONE, STOPPED):
            raise UnmeasuredError(f"trial {run.trial_id}: {status.reason or status.state}")
    end = math.inf if last is None else last
    return [
        statistics.fmean(_value(objective, run, end) for run in runs) for objective in objectives
    ]


def _value(objective: Objective, run: RunDir, last: float) -> float:
    series = _series(objective, run, last)
    value = _AT[objective.at](series) if series else math.nan
    if not math.isfinite(value):
        told = "is not finite" if series else "was not measured"
        raise UnmeasuredError(f"trial {run.trial_id}: {objective.title} {told}")
    return value


def _series(objective: Objective, run: RunDir, last: float) -> list[float]:
    """The objective's values over the run up to step ``last``, in the order of steps."""
    if objective.metric == ACCURACY:
        wanted = {objective.benchmark} - {None}
        return [
            statistics.fmean(record.correct)
            for record in run.evals()
            if record.step <= last and (not wanted or record.benchmark in wanted)
        ]
    if objective.metric == ENTROPY_DRIFT:
        entropy = _logged(names.ENTROPY, run, last)
        return [abs(value / entropy[0] - 1) if entropy[0] else math.nan for value in entropy]
    return _logged(objective.metric, run, last)


def _logged(metric: str, run: RunDir, last: float) -> list[float]:
    return [
        step.metrics[metric] for step in run.steps() if step.step <= last and metric in step.metrics
    ]
