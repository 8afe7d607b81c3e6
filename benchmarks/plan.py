"""How long a plan takes, and a resume with everything finished, as the number of trials grows.

The sweep is a grid of beta1, beta2 and seeds over the embedded task; the store holds one small run
a trial, all finished, as training would have left them but for their few steps. The peer reads
each run's three small files and parses them with ``json`` alone: no decision about a stored trial
can be made from less, so its seconds are the floor that the file system and the parser set.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import click
import yaml

from benchmarks.table import RESULTS, Row, circumstances, write
from benchmarks.table import seconds as seconds_of
from cegppo_lab import metrics as names
from cegppo_lab.cli.plan import plan as plan_command
from cegppo_lab.provenance import resources
from cegppo_lab.store import DONE, RunStore, StepRecord
from cegppo_lab.sweep.dispatch import run_trials
from cegppo_lab.sweep.plan import Plan, make_plan
from cegppo_lab.sweep.price import price

_PEER = "json.loads of every run's config, status and provenance"
_COLUMNS = ("case", "trials", "seconds", "ms_per_trial", "ratio")
_SEEDS = 10
_STEPS = 3


def sweep_file(folder: Path, trials: int) -> Path:
    """A sweep of so many trials: (trials / 10) points of beta1 and beta2, ten seeds each."""
    points = trials // _SEEDS
    tree = {
        "question": "How long does a plan take?",
        "base": {"task": "table_walk", "algorithm": "cegppo", "trainer.steps": _STEPS},
        "grid": {
            "algorithm.beta1": [place / 1000 for place in range(points // 10)],
            "algorithm.beta2": [1 + place / 10 for place in range(10)],
        },
        "seeds": list(range(_SEEDS)),
    }
    path = folder / "scale.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


def fill(plan: Plan) -> None:
    """Give the plan's store a finished run of every trial.

    The first one is written as training does it; the others are copies with configurations of
    their own, which no disk is waited for.
    """
    first, *others = plan.trials
    with plan.store().writer(first.trial_id, first.stored_config()) as run:
        run.add_provenance({"resources": resources(plan.runtime), "started": time.time()})
        for step in range(1, _STEPS + 1):
            run.append(StepRecord(step, {names.TIME_STEP: 1.5, names.ENTROPY: 1.0 / step}))
        run.set_status(DONE, step=_STEPS, steps=_STEPS)
    for trial in others:
        folder = plan.store().root / trial.trial_id
        shutil.copytree(run.path, folder)
        content = json.dumps(trial.stored_config(), indent=1, sort_keys=True) + "\n"
        (folder / "config.json").write_text(content, encoding="utf-8")


def read_all(store: RunStore) -> int:
    """The peer: every run's small files, read and parsed; how many there were."""
    found = 0
    for folder in filter(lambda entry: entry.name[0] != "_", os.scandir(store.root)):
        for name in ("config.json", "status.json", "provenance.json"):
            with open(f"{folder.path}/{name}", encoding="utf-8") as file:
                json.loads(file.read())
                found += 1
    return found


def measure(trials: int, rounds: int) -> Iterator[Row]:
    """Rows of one size: the best of ``rounds`` of each case, in turns."""
    with tempfile.TemporaryDirectory(prefix="cegppo-lab-scale-") as scratch:
        file = sweep_file(Path(scratch), trials)
        words = [f"runtime.store={scratch}/runs"]
        plan = make_plan(str(file), words)
        assert len(plan.trials) == trials
        fill(plan)
        cases: list[tuple[str, Callable[[], Any]]] = [
            (_PEER, lambda: read_all(plan.store())),
            ("make_plan, confounds, manifest", lambda: _planned(file, words)),
            ("price, as if all were missing", lambda: _priced(plan)),
            ("command plan, all finished", lambda: _command(file, words)),
            ("resume: plan, then run_trials finds all finished", lambda: _resumed(file, words)),
        ]
        best = [float("inf")] * len(cases)
        for _ in range(rounds):
            for place, (_, act) in enumerate(cases):
                best[place] = min(best[place], seconds_of(act))
    for (case, _), seconds in zip(cases, best, strict=True):
        yield {
            "case": case,
            "trials": trials,
            "seconds": f"{seconds:.3f}",
            "ms_per_trial": f"{1000 * seconds / trials:.4f}",
            "ratio": f"{seconds / best[0]:.2f}",
        }


def _planned(file: Path, words: Sequence[str]) -> Plan:
    plan = make_plan(str(file), words)
    assert not plan.confounds()
    plan.manifest()
    return plan


def _priced(plan: Plan) -> None:
    assert not price(plan.store(), plan.trials, plan.runtime).unknown


def _command(file: Path, words: Sequence[str]) -> None:
    with redirect_stdout(StringIO()) as told:
        plan_command.main([str(file), *words], standalone_mode=False)
    assert "0 to run" in told.getvalue()


def _resumed(file: Path, words: Sequence[str]) -> None:
    plan = _planned(file, words)
    plan.store().write_manifest(plan.manifest())
    outcome = run_trials(plan, plan.trials, _nothing_to_show)
    assert outcome.count(DONE) == len(plan.trials)


def _nothing_to_show(concurrent: int) -> Any:
    raise AssertionError("a finished trial was to be run again")


@click.command()
@click.option("--quick", is_flag=True, help="A hundred and two hundred trials, once.")
@click.option("--out", type=Path, default=RESULTS / "plan.csv")
def main(quick: bool, out: Path) -> None:
    """Print seconds, milliseconds a trial and the ratio to the peer; write them as CSV."""
    notes = circumstances(
        "plan",
        f"ratio: seconds over those of {_PEER}, in the same run",
        "linear growth: ms_per_trial of a case stays the same from size to size",
    )
    print(*notes, sep="\n")
    rows: list[Row] = []
    sizes, rounds = ((100, 200), 1) if quick else ((1000, 3000, 10_000), 2)
    for trials in sizes:
        for row in measure(trials, rounds):
            rows.append(row)
            print("  ".join(f"{key}={row[key]}" for key in _COLUMNS), flush=True)
    write(out, _COLUMNS, rows, notes)
    print(f"written: {out}")


if __name__ == "__main__":
    main()
