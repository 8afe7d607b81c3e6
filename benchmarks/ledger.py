"""What the token ledger costs: steps of training with it beside steps without it.

The same experience is trained on by the same policy at the paper's batch geometry (8 mini-batches),
with and without the ledger in turns; the peer is the same step without it. The ledger acts in the
update only, so the whole step's share comes from adding one measured time of generation to both.
"""

from __future__ import annotations

import statistics
from pathlib import Path

import click

from benchmarks.table import RESULTS, circumstances, seconds, write
from cegppo_lab.compose import resolve
from cegppo_lab.diagnostics import TokenLedger
from cegppo_lab.trainers.embedded.experience import collect
from cegppo_lab.trainers.embedded.malloc import keep_freed_memory
from cegppo_lab.trainers.embedded.policy import Policy
from cegppo_lab.trainers.embedded.update import make_optimizer, update

_COLUMNS = ("case", "repeats", "seconds", "ratio")
_PEER = "without the ledger"


@click.command()
@click.option("--quick", is_flag=True, help="A small batch, twice.")
@click.option("--out", type=Path, default=RESULTS / "ledger.csv")
def main(quick: bool, out: Path) -> None:
    """Print the medians of update and step and their ratio to the peer; write them as CSV."""
    small = {"trainer.train_batch_size": 4, "trainer.mini_batches": 2} if quick else {}
    config, repeats = resolve({"seed": 11, **small}), 2 if quick else 30
    keep_freed_memory()
    policy = Policy.load(config.model.path, head_scale=config.model.head_scale)
    optimizer = make_optimizer(policy, config)
    experience = collect(policy, config, 0)
    common = (policy, None, optimizer, config, experience, 0, None)
    update(*common, TokenLedger())  # the first call of anything is slow
    plain, told, generate = [], [], []
    for turn in range(repeats):
        pair = [(plain, None), (told, TokenLedger())]
        for times, ledger in pair if turn % 2 else reversed(pair):
            times.append(seconds(update, *common, ledger))
        if turn % 5 == 0:
            generate.append(seconds(collect, policy, config, 0))
    # Ratios of neighbours in time: a machine that others load changes both alike.
    update_ratio = statistics.median(b / a for a, b in zip(plain, told, strict=True))
    base, other = statistics.median(plain), statistics.median(generate)
    step_ratio = (base * update_ratio + other) / (base + other)
    rows = [
        _row(f"update, {_PEER}", repeats, base, 1.0),
        _row("update, with it", repeats, statistics.median(told), update_ratio),
        _row(f"step, {_PEER}", repeats, base + other, 1.0),
        _row("step, with it", repeats, base * update_ratio + other, step_ratio),
    ]
    notes = circumstances(
        "ledger", f"ratio: median over pairs of neighbouring turns, to the same {_PEER}"
    )
    print(*notes, sep="\n")
    for row in rows:
        print("  ".join(f"{key}={row[key]}" for key in _COLUMNS))
    write(out, _COLUMNS, rows, notes)
    print(f"written: {out}")


def _row(case: str, repeats: int, measured: float, ratio: float) -> dict[str, str]:
    return {
        "case": case, "repeats": str(repeats), "seconds": f"{measured:.4f}",
        "ratio": f"{ratio:.4f}",
    }  # fmt: skip


if __name__ == "__main__":
    main()
