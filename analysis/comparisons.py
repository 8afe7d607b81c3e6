"""Every arm against the reference arm: how far apart at the end, how sure, how many seeds more."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import pandas as pd

from analysis.load import SweepData
from analysis.select import by_model
from analysis.stats import (
    LEVEL,
    Comparison,
    Estimate,
    SeedsNeeded,
    compare,
    seeds_for_permutation,
    seeds_needed,
    smallest_p,
)
from analysis.stops import EXPLANATION, mark, stopped_out
from analysis.tables import QUANTITIES, Section, seed_values

COLUMNS = [
    "model", "quantity", "benchmark", "at", "arm", "reference", "difference", "low", "high",
    "n_seeds", "n_planned", "n_stopped", "method",
    "p_t", "p_t_holm", "p_permutation", "p_permutation_holm",
    "improvement", "improvement_low", "improvement_high", "improvement_method",
    "wanted", "seeds", "seeds_low", "seeds_high", "seeds_text",
]  # fmt: skip
COMPARED = ("entropy_end", "accuracy_end")
"""The quantities of ``analysis.tables.QUANTITIES`` that arms are compared by."""
WANTED = {"entropy_end": 0.1, "accuracy_end": 0.02}
"""The differences that would matter in practice: 0.1 nats per token, 2 points of accuracy."""
POWER = 0.8
_UNITS = {"entropy_end": "nats per token", "accuracy_end": "in accuracy"}
_SUBJECTS = {"entropy_end": "End entropy (nats per token)", "accuracy_end": "End accuracy"}


def comparisons_table(data: SweepData) -> pd.DataFrame:
    """A row for every arm but the reference, quantity and benchmark: see ``COLUMNS``.

    The reference is the first arm of each model. ``difference`` is arm minus reference, paired over
    the seeds that both have, in nats per token or as a share in [0, 1]. ``_holm``: adjusted over
    the arms of one model, quantity and benchmark. ``improvement``: the probability that the arm's
    run has the higher value. ``seeds``: needed to detect ``wanted`` with 80 % power. NaN where an
    interval, a test or a count is refused; ``method``, ``improvement_method`` and ``seeds_text``
    say why. Empty for a sweep of one arm a model.
    """
    rows = [row for model, part in by_model(data).items() for row in _rows(model, part)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _rows(model: str, data: SweepData) -> Iterator[dict]:
    for key in COMPARED:
        metric = QUANTITIES[key].metric
        if metric is not None and metric not in set(data.steps["metric"]):
            continue
        for benchmark in [""] if metric is not None else data.benchmarks():
            ends = {
                a.name: seed_values(data, a.name, QUANTITIES[key], benchmark) for a in data.arms
            }
            values = {arm: seeds for arm, (seeds, _) in ends.items()}
            for found in compare(values, data.arms[0].name):
                needed = _needed(values, found, WANTED[key])
                yield {
                    "model": model,
                    "quantity": key,
                    "benchmark": benchmark,
                    "at": ends[found.name][1],
                    "n_planned": data.planned(found.name),
                    "n_stopped": _stopped(data, values, found),
                    "wanted": WANTED[key],
                    **_numbers(found),
                    **_seeds(needed),
                }


def _stopped(data: SweepData, values: Mapping[str, pd.Series], found: Comparison) -> int:
    pairs = values[found.name] - values[found.reference]
    return stopped_out(data, [found.name, found.reference], pairs)


def _needed(values: Mapping[str, pd.Series], found: Comparison, wanted: float) -> SeedsNeeded:
    differences = (values[found.name] - values[found.reference]).dropna()
    return seeds_needed(differences, wanted, POWER)


def _numbers(found: Comparison) -> dict:
    difference, improvement = found.difference, found.improvement
    return {
        "arm": found.name,
        "reference": found.reference,
        "difference": difference.value,
        "low": _number(difference.low),
        "high": _number(difference.high),
        "n_seeds": found.n_seeds,
        "method": difference.method,
        "p_t": found.p_t,
        "p_t_holm": found.p_t_holm,
        "p_permutation": found.p_permutation,
        "p_permutation_holm": found.p_permutation_holm,
        "improvement": improvement.value,
        "improvement_low": _number(improvement.low),
        "improvement_high": _number(improvement.high),
        "improvement_method": improvement.method,
    }


def _seeds(needed: SeedsNeeded) -> dict:
    return {
        "seeds": _number(needed.value),
        "seeds_low": _number(needed.low),
        "seeds_high": _number(needed.high),
        "seeds_text": needed.text,
    }


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def sections(frame: pd.DataFrame) -> list[Section]:
    """A printable table for every model, quantity and benchmark."""
    groups = frame.groupby(["model", "quantity", "benchmark"], sort=False)
    several = frame["model"].nunique() > 1
    return [
        _section(key, benchmark, model if several else "", rows)
        for (model, key, benchmark), rows in groups
    ]


def _section(key: str, benchmark: str, model: str, frame: pd.DataFrame) -> Section:
    places = frame["at"].unique()
    at = places[0] if len(places) == 1 else "end of each arm"
    title = ", ".join(filter(None, [_SUBJECTS[key], benchmark, at, model]))
    wanted = f"{frame['wanted'].iloc[0]:g} {_UNITS[key]}"
    header = [
        "arm", "seeds", f"minus {frame['reference'].iloc[0]}", "p, t test", "t test, Holm",
        "p, sign flips", "sign flips, Holm", "P(higher)", f"seeds to detect {wanted}",
    ]  # fmt: skip
    return Section(title, header, [_line(row) for _, row in frame.iterrows()])


def _line(row: pd.Series) -> list[str]:
    counts = f"{row['n_seeds']} of {row['n_planned']}{mark(row['n_stopped'])}"
    tests = ("p_t", "p_t_holm", "p_permutation", "p_permutation_holm")
    return [
        row["arm"],
        counts,
        _estimate(row, "difference", "low", "high", "method").text(3, signed=True),
        *(_p_text(row[key]) for key in tests),
        _estimate(
            row, "improvement", "improvement_low", "improvement_high", "improvement_method"
        ).text(2),
        _count_text(row),
    ]


def _estimate(row: pd.Series, value: str, low: str, high: str, method: str) -> Estimate:
    sides = (None if pd.isna(row[side]) else float(row[side]) for side in (low, high))
    return Estimate(float(row[value]), *sides, int(row["n_seeds"]), row[method])


def _p_text(p: float) -> str:
    if math.isnan(p):
        return "n/a"
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def _count_text(row: pd.Series) -> str:
    if pd.isna(row["seeds"]):
        return f"n/a ({row['seeds_text']})"
    return f"{row['seeds']:.0f} ({row['seeds_low']:.0f} to {row['seeds_high']:.0f})"


def sentences(frame: pd.DataFrame) -> list[str]:
    """What the numbers mean, how many seeds would do, and what so few cannot show."""
    if frame.empty:
        return ["There is one arm, so nothing is compared."]
    return [
        f"Differences are paired over shared seeds [{LEVEL:.0%} paired t interval]; p: paired t "
        "test, and sign flips (a permutation test, exact up to 13 seeds); Holm: adjusted for all "
        "arms of the table. P(higher): the probability that a run of the arm has the higher value "
        "than one of the reference [score interval].",
        *([EXPLANATION] if frame["n_stopped"].any() else []),
        *_power(frame),
        *_least(frame),
    ]


def _power(frame: pd.DataFrame) -> Iterator[str]:
    several = frame["model"].nunique() > 1
    for (model, key, benchmark), rows in frame.groupby(
        ["model", "quantity", "benchmark"], sort=False
    ):
        counted = rows.dropna(subset="seeds")
        what = " on ".join(filter(None, [_SUBJECTS[key].split(" (")[0], benchmark]))
        what += f" ({model})" if several else ""
        wanted = f"{WANTED[key]:g} {_UNITS[key]}"
        if counted.empty:
            reason = rows["seeds_text"].iloc[0]
            yield f"{what}: how many seeds would detect {wanted} is not known ({reason})."
            continue
        worst = counted.loc[counted["seeds"].idxmax()]
        yield (
            f"{what}: to detect a true difference of {wanted} with {POWER:.0%} power between any "
            f"arm and {worst['reference']} takes {worst['seeds']:.0f} seeds "
            f"({worst['seeds_low']:.0f} to {worst['seeds_high']:.0f}), set by {worst['arm']}; "
            f"{int(counted['n_seeds'].min())} were run."
        )


def _least(frame: pd.DataFrame) -> Iterator[str]:
    compared = int(frame.groupby(["model", "quantity", "benchmark"])["arm"].nunique().max())
    seeds = int(frame["n_seeds"].max())
    if seeds < 2:
        shared = "One seed is" if seeds else "No seed is"
        yield f"{shared} shared with the reference, so no test is made: {_verdict(1, compared)}."
        return
    least = smallest_p(seeds)
    first = min(1.0, least * compared)
    yield (
        f"With {seeds} shared seeds the smallest p that sign flips can give is {least:.2g}, and "
        f"{first:.2g} after Holm over {compared} arms: {_verdict(first, compared)}."
    )


def _verdict(first: float, compared: int) -> str:
    size = f"{1 - LEVEL:.2g}"
    if first <= 1 - LEVEL:
        return f"low enough for a finding at {size}"
    needed = seeds_for_permutation(compared)
    return f"for a finding at {size} the sign flips need {needed} seeds"


def to_markdown(frame: pd.DataFrame) -> str:
    """GitHub-flavoured markdown: a table a section, the sentences below."""
    lines = []
    for section in sections(frame):
        body = [section.header, ["---"] * len(section.header), *section.rows]
        lines += [f"**{section.title}**", ""]
        lines += ["| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in body]
        lines.append("")
    return "\n".join([*lines, *(f"- {sentence}" for sentence in sentences(frame)), ""])


def to_csv(frame: pd.DataFrame) -> str:
    """The long numeric table as CSV; empty where an interval, a test or a count is refused."""
    return frame.to_csv(index=False)
