"""The paper's own values for what was evaluated here, where they were sampled the same way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from analysis.evaluations.entry import Evaluated
from analysis.published import published_benchmark, published_model, published_table
from cegppo_lab.benchmark import Benchmark, benchmark_files, load_benchmark


@dataclass(frozen=True)
class PublishedRow:
    """A row of the paper's Table 1 to be printed after the row of ``policy``.

    ``values``: in percent, by the column of the evaluation.
    """

    policy: str
    label: str
    values: dict[str, float]


def published_rows(found: Sequence[Evaluated]) -> list[PublishedRow]:
    """Table 1's rows of every policy that is a model of the paper, on benchmarks evaluated alike.

    Alike: all problems, the pinned content, and the pinned k, temperature, top-p and token budget.
    """
    rows = []
    for policy in dict.fromkeys(done.entry.policy for done in found):
        model = published_model(policy)
        own = [done for done in found if done.entry.policy == policy]
        columns = {str(_name(done)): done.column for done in own if _name(done) and alike(done)}
        table = published_table(1)
        table = table[(table["model"] == model) & table["benchmark"].isin(columns)]
        for method, cells in table.groupby("method", sort=False):
            pairs = zip(cells["benchmark"], cells["value"], strict=True)
            values = {columns[name]: float(value) for name, value in pairs}
            rows.append(PublishedRow(policy, f"{model}, {method}", values))
    return rows


def withheld(found: Sequence[Evaluated]) -> list[str]:
    """A sentence for each published column that is not shown because it was sampled otherwise."""
    told: dict[str, str] = {}
    for done in found:
        if published_model(done.entry.policy) and _name(done) and not alike(done):
            told[done.column] = (
                f"The paper's values on {_name(done)} are not shown beside {done.column}: it was "
                "not evaluated with the problems, k, temperature, top-p and token budget of its "
                "definition."
            )
    return list(told.values())


def alike(done: Evaluated) -> bool:
    """Whether it was evaluated as the definition of its benchmark says, from end to end."""
    if done.entry.benchmark not in benchmark_files():
        return False
    pinned = load_benchmark(done.entry.benchmark)
    return (
        done.complete
        and done.entry.problems is None
        and done.entry.samples == pinned.samples
        and _content(done, pinned)
        and all(
            done.sampling.get(key) == getattr(pinned, key)
            for key in ("temperature", "top_p", "max_tokens")
        )
    )


def _content(done: Evaluated, pinned: Benchmark) -> bool:
    if not pinned.content_sha256:
        return done.benchmark.get("count") == pinned.count
    return done.sampling.get("content_hash") in pinned.content_sha256


def _name(done: Evaluated) -> str | None:
    return published_benchmark(done.entry.benchmark)
