"""The answer in two sentences, composed from the numbers and from nothing else."""

from __future__ import annotations

from itertools import pairwise

import pandas as pd

from analysis.captions import unbroken
from analysis.load import SweepData
from analysis.stats import LEVEL, Estimate, mean_estimate, paired_difference
from analysis.stops import mark, stopped_out
from analysis.tables import QUANTITIES, seed_values


def answer(data: SweepData) -> list[str]:
    """How the arms order by end entropy, and what accuracy did, each with what is not decided."""
    return [_entropy(data), *(_accuracy(data, benchmark) for benchmark in data.benchmarks())]


def _entropy(data: SweepData) -> str:
    quantity = QUANTITIES["entropy_end"]
    values = {arm.name: seed_values(data, arm.name, quantity) for arm in data.arms}
    means = {name: mean_estimate(seeds).value for name, (seeds, _) in values.items()}
    names = sorted((name for name in means if means[name] == means[name]), key=means.__getitem__)
    if not names:
        return "No run has reached the last tenth of its steps, so end entropies are not known yet."
    if len(names) == 1:
        return f"Only {names[0]} has an end entropy so far: {means[names[0]]:.3f} nats."
    shown = {name: _shown(data, name, values[name][0]) for name in names}
    order, apart = [shown[names[0]]], []
    for lower, higher in pairwise(names):
        difference = paired_difference(values[higher][0], values[lower][0])
        sign = "<" if difference.excludes_zero and difference.value > 0 else "~"
        order.append(f"{sign} {shown[higher]}")
        if sign == "<":
            told = difference.text(2, signed=True)
            apart.append(f"{unbroken(higher)} minus {unbroken(lower)}: {told}")
    pairs = len(names) - 1
    rest = ', the others ("~") are undecided with these seeds' if len(apart) < pairs else ""
    return (
        f"Policy entropy at the end ({values[names[0]][1]}, nats per token) orders the arms "
        f"{' '.join(order)}; the paired {LEVEL:.0%} interval excludes 0 for {len(apart)} of the "
        f"{pairs} neighbouring differences"
        f"{' (' + '; '.join(apart) + ')' if apart else ''}{rest}."
    )


def _shown(data: SweepData, arm: str, values: pd.Series) -> str:
    """The arm with its mean, and how many of its runs are not in it because they were stopped."""
    stops = mark(stopped_out(data, [arm], values))
    return f"{unbroken(arm)} ({mean_estimate(values).value:.2f}{stops})"


def _accuracy(data: SweepData, benchmark: str) -> str:
    end, start = QUANTITIES["accuracy_end"], QUANTITIES["accuracy_start"]
    values = {arm.name: seed_values(data, arm.name, end, benchmark) for arm in data.arms}
    means = {name: mean_estimate(seeds).value for name, (seeds, _) in values.items()}
    means = {name: mean for name, mean in means.items() if mean == mean}
    if not means:
        return f"No run has its last evaluation on {benchmark} yet."
    worst, best = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
    reference = data.arms[0].name
    versus = {
        name: paired_difference(values[name][0], values[reference][0])
        for name in means
        if name != reference
    }
    gains = [
        name
        for name in means
        if paired_difference(
            values[name][0], seed_values(data, name, start, benchmark)[0]
        ).excludes_zero
    ]
    return (
        f"Accuracy on held-out problems ({benchmark}, {values[best][1]}) lies between "
        f"those of {_shown(data, worst, values[worst][0])} and "
        f"{_shown(data, best, values[best][0])}; its "
        f"change since the start has an interval that excludes 0 in {len(gains)} of {len(means)} "
        f"arms, {_against(reference, versus)}."
    )


def _against(reference: str, versus: dict[str, Estimate]) -> str:
    apart = [
        f"{unbroken(name)} {difference.text(2, signed=True)}"
        for name, difference in versus.items()
        if difference.excludes_zero
    ]
    if not versus:
        return f"and there is no other arm to compare with {reference}"
    if not apart:
        return f"and no arm's difference to {reference} does"
    return f"and so, each on its own, has the difference to {reference} of {', '.join(apart)}"
