"""The measures that claims are made of: frames of one model and arms in, an estimate out.

Pure functions, looked up by name. The first parameter is the frames, the other positional ones are
arms, the keyword-only ones are options that ``claims.yaml`` sets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from analysis.claims import values
from analysis.load import Arm, SweepData
from analysis.stats import (
    LEVEL,
    Estimate,
    hierarchical_difference,
    mean_estimate,
    paired_difference,
    slope_estimate,
)

Coefficient = Literal["beta1", "beta2"]


def change(
    data: SweepData, arm: Arm, *, metric: str, to: Literal["mid", "end"] = "end"
) -> Estimate:
    """The metric at the end (or half-way) over its value at step 1, mean over seeds."""
    start = values.positive(values.at(data, arm, metric, "start"))
    return mean_estimate(values.at(data, arm, metric, to) / start).within(0, math.inf)


def farthest(data: SweepData, arm: Arm, *, metric: str) -> Estimate:
    """The largest ``|x / start - 1|`` along each seed's smoothed curve, mean over seeds."""
    curves = values.smoothed(data, arm, metric)
    start = values.positive(curves.reindex(columns=[1])[1])
    away = curves.div(start, axis=0).sub(1).abs().max(axis=1)
    return mean_estimate(away).within(0, math.inf)


def level(data: SweepData, arm: Arm, *, metric: str) -> Estimate:
    """The mean of the metric over all steps, mean over seeds."""
    return mean_estimate(values.whole(data, arm, metric).mean(axis=1))


def spike(data: SweepData, arm: Arm, *, metric: str) -> Estimate:
    """The largest value of a run over the run's own median, mean over seeds."""
    table = values.whole(data, arm, metric)
    return mean_estimate(table.max(axis=1) / values.positive(table.median(axis=1)))


def share(data: SweepData, arm: Arm, *, metric: str, whole: str) -> Estimate:
    """The sum of ``metric`` over the sum of ``whole``, of which it is a part; mean over seeds."""
    part, total = (values.whole(data, arm, name).sum(axis=1) for name in (metric, whole))
    return mean_estimate(part / values.positive(total)).within(0, 1)


def ratio(data: SweepData, arm: Arm, reference: Arm, *, metric: str) -> Estimate:
    """The metric's mean over the steps that both runs of a seed have, arm over reference.

    The geometric mean over seeds, with a t interval over the logarithms: twice and half are as far.
    """
    own, other = (values.whole(data, each, metric) for each in (arm, reference))
    own, other = own.align(other, join="inner")
    both = own.notna() & other.notna()
    means = [values.positive(table.where(both).mean(axis=1)) for table in (own, other)]
    logs = mean_estimate(np.log(means[0] / means[1]))
    if logs.low is None:
        return replace(logs, value=math.exp(logs.value))
    low, value, high = (math.exp(number) for number in (logs.low, logs.value, logs.high))
    return replace(logs, value=value, low=low, high=high, method=f"{logs.method}, of logarithms")


def difference(data: SweepData, arm: Arm, reference: Arm, *, metric: str) -> Estimate:
    """The metric at the end, arm minus reference, paired by seed."""
    return _unequal(data, arm, reference) or paired_difference(
        *(values.at(data, each, metric, "end") for each in (arm, reference))
    )


def accuracy_difference(data: SweepData, arm: Arm, reference: Arm) -> Estimate:
    """Held-out accuracy at the last evaluation, mean over the benchmarks, arm minus reference.

    Over seeds and problems where the answers were kept, over seeds otherwise; always paired.
    """
    arms = arm, reference
    if unequal := _unequal(data, arm, reference):
        return unequal
    if values.knows_problems(data, *arms):
        estimate = hierarchical_difference(*(values.end_problems(data, each) for each in arms))
    else:
        estimate = paired_difference(*(values.end_accuracies(data, each) for each in arms))
    if estimate.n_seeds == 0:
        return _nothing("no evaluation in the last tenth of the steps")
    return estimate


def slope(data: SweepData, arms: list[Arm], *, metric: str, over: Coefficient) -> Estimate:
    """The slope of the metric at the end on a coefficient, a line a seed."""
    ends = _by_level(data, arms, metric, over)
    return slope_estimate(ends) if isinstance(ends, Mapping) else ends


def contrary_step(
    data: SweepData,
    arms: list[Arm],
    *,
    metric: str,
    over: Coefficient,
    expected: Literal["falls", "rises"],
) -> Estimate:
    """How far the metric's end goes against ``expected`` between neighbouring coefficients.

    Of all neighbouring pairs, the one that goes surest against it: the change from the smaller to
    the larger coefficient, counted positive against. Bonferroni over the pairs, so that all of
    their intervals hold together.
    """
    ends = _by_level(data, arms, metric, over)
    if isinstance(ends, Estimate):
        return ends
    sign = 1 if expected == "falls" else -1
    pairs = list(pairwise(sorted(ends)))
    steps = [_step(ends, pair, sign, len(pairs)) for pair in pairs]
    told = [step for step in steps if step.low is not None]
    return max(told, key=lambda step: step.low) if told else steps[0]


def _step(
    ends: Mapping[float, pd.Series], pair: tuple[float, float], sign: int, pairs: int
) -> Estimate:
    lower, higher = pair
    plain = paired_difference(sign * ends[higher], sign * ends[lower])
    if plain.low is None:
        return plain
    seeds = (sign * (ends[higher] - ends[lower])).dropna().to_numpy()
    interval = stats.ttest_1samp(seeds, 0).confidence_interval(1 - (1 - LEVEL) / pairs)
    method = f"{plain.method}, Bonferroni over {pairs} pairs, {higher:g} against {lower:g}"
    return Estimate(plain.value, float(interval.low), float(interval.high), len(seeds), method)


def _by_level(
    data: SweepData, arms: list[Arm], metric: str, over: Coefficient
) -> dict[float, pd.Series] | Estimate:
    """The metric's end by coefficient, or the refusal where there is no one arm for each."""
    levels = [arm.coefficient(over) for arm in arms]
    if len(set(map(str, levels))) < len(levels):
        return _nothing(f"two arms have the same {over}")
    if len({data.length(arm.name) for arm in arms}) > 1:
        return _nothing("the arms' runs differ in length")
    return dict(zip(levels, (values.at(data, arm, metric, "end") for arm in arms), strict=True))


def _unequal(data: SweepData, arm: Arm, reference: Arm) -> Estimate | None:
    """The refusal to compare the ends of runs of different lengths."""
    lengths = [data.length(each.name) for each in (arm, reference)]
    if lengths[0] == lengths[1]:
        return None
    return _nothing(f"the arms' runs differ in length ({lengths[0]} and {lengths[1]} steps)")


def _nothing(reason: str) -> Estimate:
    return Estimate(np.nan, None, None, 0, reason)


MEASURES: Mapping[str, Callable[..., Estimate]] = {
    function.__name__: function
    for function in (
        change, farthest, level, spike, share, ratio, difference, accuracy_difference, slope,
        contrary_step,
    )
}  # fmt: skip
