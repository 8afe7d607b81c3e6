"""What must be known to read a table: sentences that belong under every print of it."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from analysis.paper_tables.layout import ALONE, BESIDE, DASH, MARKS, QUOTED, missing
from analysis.paper_tables.measure import BEST, IQM, MEASURED, TIE
from analysis.paper_tables.methods import BASE, Cast
from analysis.published import AVERAGE, SOURCE
from analysis.stats import LEVEL
from cegppo_lab.store import STOPPED


def notes_of(frame: pd.DataFrame, chosen: Cast) -> list[str]:
    """How to read the table, what is not comparable in it, and every gap with its reason."""
    scales = " and ".join(sorted({data.scale for data in chosen.sweeps()}))
    return [
        f"Measured ({scales} scale): mean accuracy in percent at the last evaluation, {BASE} at "
        f"step 0 of the same runs, [{LEVEL:.0%} interval, cut to 0 to 100]: bootstrap over seeds "
        "and problems where the correctness of each problem is known, else Student's t over seeds.",
        *_marks(frame),
        *_averages(frame),
        *_published(frame),
        *_sizes(chosen),
        *_unfinished(chosen, frame),
        *_stopped(chosen),
        *_gaps(frame),
        *chosen.notes,
    ]


def _marks(frame: pd.DataFrame) -> Iterator[str]:
    own = frame[frame["source"] == MEASURED]
    seen = set(own["mark"])
    if BEST in seen:
        yield (
            f"{MARKS[BEST]} and bold: better than every other method that was measured for its "
            "model and benchmark (paired t tests over seeds, on these problems, Holm)."
        )
    if TIE in seen:
        yield (
            f"{MARKS[TIE]}: the best of its model and benchmark, or not told apart from it by "
            "these seeds (paired t tests over seeds, on these problems, Holm); then none is bold."
        )


def _averages(frame: pd.DataFrame) -> Iterator[str]:
    own = frame[(frame["source"] == MEASURED) & frame["benchmark"].isin([AVERAGE, IQM])]
    for over, rows in own.groupby("over", sort=False):
        yield (
            f"{AVERAGE} and {IQM} of {', '.join(rows['model'].unique())} are over {over}, with "
            "intervals over seeds alone, for these problems: the mean (Student's t), and the mean "
            "of the middle half of all seeds and benchmarks (interquartile mean, bootstrap; not "
            "marked)."
        )


def _published(frame: pd.DataFrame) -> Iterator[str]:
    kinds = set(frame["block"])
    table = frame["table"].iloc[0]
    yield (
        f"Published values: {SOURCE}, Table {table}. They have no intervals and no seeds, so none "
        f"is bold or marked, whichever is largest."
    )
    quoted = frame[frame["source"] != MEASURED]
    computed = quoted.loc[quoted["method_of_interval"].str.startswith("computed"), "benchmark"]
    if len(computed):
        names = " and ".join(computed.unique())
        yield f"{names} of published values: computed here where the paper does not print it."
    if ALONE in kinds and kinds & {BESIDE, QUOTED}:
        models = ", ".join(frame.loc[frame["block"] == ALONE, "model"].unique())
        yield (
            f"The measured rows of {models} are not of the paper's model, benchmark or scale: "
            "compare methods with each other, never these accuracies with the published ones."
        )


def _sizes(chosen: Cast) -> Iterator[str]:
    told = {}
    for entry in chosen.entries():
        evals = entry.data.evals
        for benchmark, rows in evals.groupby("benchmark", sort=True):
            problems, samples = rows["problem_id"].nunique(), rows["sample"].nunique()
            if problems > 1:  # else its mean alone is known
                told[benchmark] = f"{benchmark}: {problems} problems x {samples} samples"
    if told:
        yield f"Evaluations: {'; '.join(told.values())}."


def _unfinished(chosen: Cast, frame: pd.DataFrame) -> Iterator[str]:
    steps = frame.loc[frame["at"].str.startswith("step"), ["sweep", "method", "at"]]
    for entry in chosen.entries():
        length = entry.data.length(entry.arm.name)
        own = steps[(steps["sweep"] == entry.sweep.name) & (steps["method"] == entry.method)]
        ends = own["at"].str.removeprefix("step ").astype(int)
        if length and len(ends) and ends.max() < length:
            yield (
                f"{entry.arm.name} of sweep {entry.sweep.name}: the last evaluation so far is at "
                f"step {ends.max()} of {length}."
            )


def _stopped(chosen: Cast) -> Iterator[str]:
    for entry in chosen.entries():
        trials = entry.trials()
        steps = trials.loc[trials["state"] == STOPPED, "step"]
        if len(steps):
            told = ", ".join(str(step) for step in sorted(steps))
            yield (
                f"{entry.arm.name} of sweep {entry.sweep.name}: {len(steps)} of {len(trials)} runs "
                f"stopped early (at step {told}) and are in no value at the last evaluation, which "
                "may flatter the method."
            )


def _gaps(frame: pd.DataFrame) -> Iterator[str]:
    for model, rows in frame[frame["block"] == BESIDE].groupby("model", sort=False):
        own = set(rows.loc[rows["source"] == MEASURED, "benchmark"])
        if lacking := [name for name in rows["benchmark"].unique() if name not in own]:
            yield f"{DASH} measured ({model}): not evaluated here on {', '.join(lacking)}."
    for model, method, reason, benchmarks in missing(frame):
        yield f"{DASH} {method} ({model}, {', '.join(benchmarks)}): {reason}."
