"""Throughput of the verifier against math-verify called in-process on the same pairs.

Run: python benchmarks/verifier.py [--repeats N]. The pairs are those that the tests judge by hand;
bombs are not among them, as math-verify in-process would hang. In-process verdicts are often wrong
where text rules settle ours, so "algebra only" is the ratio of like to like.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import yaml

from cegppo_lab.tasks.verifier import readings_of, verify, verify_batch

_PAIRS = Path(__file__).parents[1] / "tests" / "unit" / "verifier_pairs.yaml"

Pairs = list[tuple[str, str]]
Judge = Callable[[Pairs], list[bool]]


def load_pairs() -> Pairs:
    """(response, reference) pairs, right and wrong."""
    judged = yaml.safe_load(_PAIRS.read_text())
    return [
        (rf"Hence the answer is $\boxed{{{given}}}$.", gold)
        for gold, given in [*judged["right"], *judged["wrong"]]
    ]


def in_process(pairs: Pairs) -> list[bool]:
    """math-verify as its manual shows it, its alarms off as ours are."""
    from math_verify import parse
    from math_verify import verify as equal

    return [
        bool(
            equal(
                parse(rf"\boxed{{{gold}}}", parsing_timeout=None),
                parse(response, parsing_timeout=None),
                timeout_seconds=None,
            )
        )
        for response, gold in pairs
    ]


def rates(judges: Sequence[Judge], pairs: Pairs, repeats: int) -> list[float]:
    """Pairs a second of each judge: the best of ``repeats`` rounds, taken in turns, warmed up."""
    best = [float("inf")] * len(judges)
    for judge in judges:
        judge(pairs)
    for _ in range(repeats):
        for index, judge in enumerate(judges):
            begin = time.perf_counter()
            judge(pairs)
            best[index] = min(best[index], time.perf_counter() - begin)
    return [len(pairs) / seconds for seconds in best]


@click.command()
@click.option("--repeats", default=5, show_default=True)
def main(repeats: int) -> None:
    """Print pairs a second and the ratio to math-verify in-process."""
    logging.disable(logging.WARNING)
    everything = load_pairs()
    algebra = [pair for pair in everything if not isinstance(readings_of(*pair), bool)]
    judges: dict[str, Judge] = {
        "math-verify in-process": in_process,
        "verify_batch": verify_batch,
        "verify, one by one": lambda some: [verify(*pair) for pair in some],
    }
    for name, pairs in {"all pairs": everything, "algebra only": algebra}.items():
        peer, *ours = rates(list(judges.values()), pairs, repeats)
        print(f"{name} ({len(pairs)}): math-verify in-process {peer:.0f} pairs/s")
        for label, speed in zip(list(judges)[1:], ours, strict=True):
            print(f"  {label}: {speed:.0f} pairs/s, {speed / peer:.2f} x math-verify in-process")


if __name__ == "__main__":
    main()
