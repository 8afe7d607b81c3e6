"""Final evaluations of trials: their verdicts in the place of the training loop's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from analysis.load.frames import SweepData
from cegppo_lab.store import EvalRecord, FinalRecord

_LABELS = 4


def preferred(evals: Sequence[EvalRecord], finals: Sequence[FinalRecord]) -> list[EvalRecord]:
    """``evals`` with a final evaluation instead of the training loop's at its step and benchmark.

    Of several final ones (other seeds, sampling or engines) that with the most responses; of
    equals the newest.
    """
    chosen: dict[tuple[int, str], EvalRecord] = {
        (record.step, record.benchmark): record
        for record in sorted(finals, key=lambda record: (len(record.problem), record.time))
    }
    kept = [record for record in evals if (record.step, record.benchmark) not in chosen]
    return [*kept, *chosen.values()]


def several(label: str, finals: Sequence[FinalRecord]) -> Iterator[str]:
    """A sentence for each step and benchmark at which a run has more than one final evaluation."""
    found: dict[tuple[str, int], list[FinalRecord]] = {}
    for record in finals:
        found.setdefault((record.benchmark, record.step), []).append(record)
    for (benchmark, step), records in found.items():
        if len(records) > 1:
            (used,) = preferred([], records)
            yield (
                f"{label}: {len(records)} final evaluations on {benchmark} at step {step} (other "
                "seed, sampling or engine); the numbers use the one with the most responses, of "
                f"equals the newest: {used.evaluation}."
            )


def sentences(data: SweepData) -> Iterator[str]:
    """What a reader must know where final verdicts are among the accuracies; none without them."""
    finals = data.evals[data.evals["evaluation"] != ""]
    for benchmark, rows in finals.groupby("benchmark", sort=True):
        yield from _partial(data, str(benchmark), set(rows["trial_id"]))
        loops = data.evals[data.evals["benchmark"] == benchmark]
        loops = loops[loops["evaluation"] == ""]
        if len(loops):
            yield (
                f"{benchmark}: verdicts at {_steps(rows['step'])} are of final evaluations, those "
                f"at {_steps(loops['step'])} of the training loop, which may sample otherwise."
            )
        groups = rows.groupby(["trial_id", "step"])
        asked = groups["problem_id"].agg(frozenset)
        samples = groups.size() / groups["problem_id"].nunique()
        if asked.nunique() > 1 or samples.nunique() > 1:
            shapes = sorted({f"{len(a)} x {n:g}" for a, n in zip(asked, samples, strict=True)})
            yield (
                f"{benchmark}: final evaluations differ in their problems or samples a problem "
                f"({', '.join(shapes)}); evaluate all runs with one command."
            )


def _partial(data: SweepData, benchmark: str, having: set[str]) -> Iterator[str]:
    """Which of the runs that have trained lack a final evaluation on the benchmark."""
    used = {*data.steps["trial_id"], *data.evals["trial_id"]}
    runs = data.trials[(data.trials["step"] > 0) & data.trials["trial_id"].isin(used)]
    lacking = runs[~runs["trial_id"].isin(having)]
    if lacking.empty:
        return
    labels = [f"{row['arm']} seed {row['seed']}" for row in lacking.to_dict("records")]
    more = f" and {len(labels) - _LABELS} more" if len(labels) > _LABELS else ""
    yield (
        f"{benchmark}: {len(runs) - len(lacking)} of {len(runs)} runs have a final evaluation; "
        f"{'; '.join(labels[:_LABELS])}{more} count with the training loop's verdicts, if they "
        f"have any; type: python -m cegppo_lab evaluate sweep:{data.name}"
    )


def _steps(steps: Iterable[int]) -> str:
    found = sorted(set(steps))
    if len(found) <= 2:
        return f"step {' and '.join(map(str, found))}"
    return f"steps {found[0]} to {found[-1]}"
