"""Throughput of the verifier beside math-verify, called in process with its own timeouts.

Both judge the same pairs in the same run, in turns: those that text settles and those that need
algebra, for one worker and more; then answers that never end. The pairs are those that the tests
judge by hand, so that wrong verdicts are counted as well.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import click
import yaml

from benchmarks.table import RESULTS, Row, circumstances, write
from benchmarks.table import seconds as seconds_of
from cegppo_lab.tasks.verifier import readings_of, verify, verify_batch
from cegppo_lab.tasks.verifier.pool import Pool

_ROOT = Path(__file__).parents[1]
_FILES = [
    path
    for path in sorted((_ROOT / "tests" / "unit").glob("verifier_pairs*.yaml"))
    if "hostile" not in path.name  # they would stop the peer
]
_PEER = "math-verify in process"
_HANGING = {"a product of 10^9 factors": r"\prod_{i=1}^{10^9} i", "9^9^9^9": "9^{9^{9^{9}}}"}
_COLUMNS = ("case", "judge", "workers", "pairs", "wrong", "seconds", "pairs_per_s", "ratio")

Pair = tuple[str, str]
Judge = Callable[[Sequence[Pair]], list[bool]]


def judged_pairs() -> list[tuple[Pair, bool]]:
    """((response, reference), verdict by hand)."""
    trees = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in _FILES]
    return [
        ((rf"Hence the answer is $\boxed{{{given}}}$.", gold), verdict == "right")
        for tree in trees
        for verdict in ("right", "wrong")
        for gold, given in tree[verdict]
    ]


def peer(pairs: Sequence[Pair], limit: int = 5) -> list[bool]:
    """math-verify as its manual shows it; ``limit`` seconds (an integer) for each of its steps."""
    from math_verify import parse
    from math_verify import verify as equal

    read = partial(parse, parsing_timeout=limit)
    return [
        bool(equal(read(rf"\boxed{{{gold}}}"), read(response), timeout_seconds=limit))
        for response, gold in pairs
    ]


def throughput(
    case: str, judged: Sequence[tuple[Pair, bool]], workers: Sequence[int], rounds: int
) -> Iterator[Row]:
    """The best of ``rounds`` of each judge, taken in turns after one round to warm up."""
    pairs, expected = [pair for pair, _ in judged], [verdict for _, verdict in judged]
    pools = [Pool(size) for size in workers]
    judges: list[tuple[str, int, Judge]] = [(_PEER, 1, peer)]
    for pool in pools:
        judges.append(("verify_batch", pool.size, partial(verify_batch, pool=pool)))
    wrong = [_differences(judge(pairs), expected) for _, _, judge in judges]
    best = [float("inf")] * len(judges)
    for _ in range(rounds):
        for place, (_, _, judge) in enumerate(judges):
            best[place] = min(best[place], seconds_of(judge, pairs))
    for pool in pools:
        pool.close()
    for (name, size, _), errors, seconds in zip(judges, wrong, best, strict=True):
        yield {
            "case": case,
            "judge": name,
            "workers": size,
            "pairs": len(pairs),
            "wrong": errors,
            "seconds": f"{seconds:.4f}",
            "pairs_per_s": f"{len(pairs) / seconds:.1f}",
            "ratio": f"{best[0] / seconds:.2f}",
        }


def hanging(case: str, answer: str, limit: int, patience: float) -> Iterator[Row]:
    """Seconds that one endless answer costs; the peer is killed after ``patience`` seconds."""
    pair = (rf"\boxed{{{answer}}}", r"2\sqrt{3}")
    context = multiprocessing.get_context("spawn")
    taken = context.SimpleQueue()
    child = context.Process(target=_hang, args=([pair], limit, taken))
    verify(r"\boxed{\sqrt{12}}", pair[1])  # the worker is there
    ours = seconds_of(lambda some: [verify(*some[0], timeout=limit)], [pair])
    child.start()
    child.join(patience)
    ended = child.exitcode is not None
    theirs = patience if not ended or taken.empty() else taken.get()
    if not ended:
        child.kill()
        child.join()
    name = f"{case}, limit {limit} s"
    yield {
        "case": name,
        "judge": _PEER if ended else f"{_PEER} (no end; killed)",
        "workers": 1,
        "pairs": 1,
        "seconds": f"{theirs:.1f}",
    }
    row = {"case": name, "judge": "verify", "workers": 1, "pairs": 1, "seconds": f"{ours:.1f}"}
    yield row | {"ratio": f"{theirs / ours:.2f}"}


def _hang(pairs: Sequence[Pair], limit: int, taken: SimpleQueue[float]) -> None:
    logging.disable(logging.WARNING)
    peer([(r"\boxed{\sqrt{12}}", r"2\sqrt{3}")], limit)  # imports and first uses are not counted
    taken.put(seconds_of(partial(peer, limit=limit), pairs))


def _differences(verdicts: Sequence[bool], expected: Sequence[bool]) -> int:
    return sum(a is not b for a, b in zip(verdicts, expected, strict=True))


@click.command()
@click.option("--quick", is_flag=True, help="A few pairs, once, and one endless answer.")
@click.option("--out", type=Path, default=RESULTS / "verifier.csv")
def main(quick: bool, out: Path) -> None:
    """Print pairs a second of both, and their ratio; write them as CSV."""
    logging.disable(logging.WARNING)
    cores = os.cpu_count() or 1
    notes = circumstances(
        "verifier",
        f"ratio: speed over that of {_PEER}; wrong: verdicts that differ from those by hand",
        "our rules were written with these very pairs, the peer was not: no comparison of accuracy",
    )
    text, algebra = [], []
    for pair, verdict in judged_pairs():
        (text if isinstance(readings_of(*pair), bool) else algebra).append((pair, verdict))
    share = slice(None, None, 20) if quick else slice(None)
    rounds, limit, patience = (1, 1, 4.0) if quick else (2, 5, 60.0)
    workers = range(1, 2 if quick else min(4, cores) + 1)
    rows: list[Row] = []

    def tell(some: Iterator[Row]) -> None:
        for row in some:
            rows.append(row)
            print("  ".join(f"{key}={row[key]}" for key in _COLUMNS if key in row), flush=True)

    print(*notes, sep="\n")
    tell(throughput("settled by text", text[share], workers, rounds))
    tell(throughput("needs algebra", algebra[share], workers, rounds))
    for case, answer in list(_HANGING.items())[: 1 if quick else None]:
        tell(hanging(case, answer, limit, patience))
    write(out, _COLUMNS, rows, notes)
    print(f"written: {out}")


if __name__ == "__main__":
    main()
