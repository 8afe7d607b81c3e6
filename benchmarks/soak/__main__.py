"""Kill a 12-trial sweep's driver and its workers, and compare with the sweep that ran undisturbed.

Three runs of one command, each in a folder of its own: the reference; one whose driver is killed,
and started again; one whose workers are killed while the MLflow server it mirrors to goes away
twice. A sweep that ends before all its kills fell is checked and run anew, in a fresh store.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import click

from benchmarks.soak import checks
from benchmarks.soak.kills import DRIVER, WORKER, Kill, Soak, draw
from benchmarks.soak.results import COLUMNS, kill_rows, save
from benchmarks.soak.server import Server
from benchmarks.table import RESULTS, Row, circumstances
from tests.e2e.lab import lab, processes_in, start, steps_done, wait_for

EVAL_EVERY = 4
SIZES = (
    *("trainer.train_batch_size=8", "trainer.rollout_n=4", "trainer.mini_batches=2"),
    *(f"trainer.eval_every={EVAL_EVERY}", "trainer.eval_samples=4", "runtime.checkpoint_every=3"),
)
ARMS, AFTER = 4, -1
_REST_S = 60.0

Mirrored = Callable[[Path, int], Iterator[tuple[str, Path, Callable[[int], None]]]]
"""Makes where a sweep is mirrored to: its URI, its database, and what to call before each kill
(and with ``AFTER``, when the sweep has ended)."""


@dataclass
class Plan:
    """``seeds``, ``steps``: of the sweep; ``kills``: by kind."""

    seeds: int
    steps: int
    kills: dict[str, int]
    seed: int

    def words(self, uri: str) -> list[str]:
        """The command: retries for as many kills as may fall on one trial."""
        seeds = ",".join(map(str, range(1, self.seeds + 1)))
        retries = f"runtime.retries={max(self.kills.values())}"
        words = ["sweep", "quickstart", f"seeds=[{seeds}]", f"trainer.steps={self.steps}", *SIZES]
        return [*words, retries, "runtime.retry_backoff_s=0.01", "--mlflow", uri]

    def soak(self, folder: Path, uri: str, before: Callable[[int], None]) -> Soak:
        """The sweep in ``folder``, to be killed."""
        folder.mkdir()
        dice = random.Random(f"{self.seed} {folder.name}")
        return Soak(folder, self.words(uri), ARMS * self.seeds, EVAL_EVERY, dice, before)


@dataclass
class Result:
    """``rows``: one a kill; ``told``: lines for the page; ``flaws``: what is wrong."""

    rows: list[Row]
    told: list[str]
    flaws: list[str]


def run(root: Path, plan: Plan) -> Result:
    """All of it, in folders below ``root``."""
    result = Result([], [], [])
    reference = root / "reference"
    wall_s, started_s = _undisturbed(reference, plan)
    steps = steps_done(reference)
    result.told.append(
        f"undisturbed: {ARMS * plan.seeds} trials, {steps} steps, {wall_s:.0f} s, the first step "
        f"after {started_s:.0f} s"
    )
    for kind, mirrored in ((DRIVER, _to_a_file), (WORKER, _to_a_server)):
        span_s = {DRIVER: 2.5, WORKER: 1.0}[kind] * started_s
        left = draw(kind, plan.kills[kind], span_s, random.Random(f"{plan.seed} {kind}"))
        number = 0
        while left:
            number += 1
            folder = root / f"{kind}_{number}"
            fallen = _one(folder, left, mirrored, plan, reference, result, wall_s)
            left = left[fallen:]
            if not fallen:  # the first moment lay beyond the sweep's end
                left = [replace(kill, delay_s=kill.delay_s / 2) for kill in left]
    return result


def _undisturbed(folder: Path, plan: Plan) -> tuple[float, float]:
    """Run the reference: its wall time, and the time until the first step was stored, seconds."""
    folder.mkdir()
    begin = time.monotonic()
    driver = start(folder, *plan.words("sqlite:///mlflow.db"))
    wait_for(lambda: steps_done(folder) > 0 or driver.poll() is not None, timeout=900)
    started_s = time.monotonic() - begin
    assert driver.wait(1800) == 0, (folder / "log").read_text()
    wall_s = time.monotonic() - begin
    lab(folder, "sync")
    return wall_s, started_s


def _one(
    folder: Path,
    kills: list[Kill],
    mirrored: Mirrored,
    plan: Plan,
    reference: Path,
    result: Result,
    wall_s: float,
) -> int:
    """One sweep under ``kills``, checked; how many of them fell before it ended."""
    with contextmanager(mirrored)(folder, len(kills)) as (uri, database, before):
        soak = plan.soak(folder, uri, before)
        left = soak.run(kills)
        before(AFTER)
        fallen = kills[: len(kills) - len(left)]
        lab(folder, "sync", "--mlflow", uri)
        flaws = checks.told(partial(checks.differences, folder, database, reference))
        flaws += _not_clean(folder)
    rows = kill_rows(folder.name, folder, fallen)
    result.rows += rows
    result.flaws += [f"{folder.name}: {flaw}" for flaw in flaws]
    again = sum(row["steps_recomputed"] for row in rows)
    result.told.append(
        f"{folder.name}: {len(fallen)} kills, {soak.calls} calls of the command, "
        f"{soak.wall_s:.0f} s, {soak.wall_s - wall_s:.0f} s of them lost to the kills; "
        f"{again} of {steps_done(folder)} steps recomputed; {len(flaws)} differences"
    )
    print(result.told[-1], *flaws, sep="\n  ", flush=True)
    return len(fallen)


def _not_clean(folder: Path) -> Iterator[str]:
    """Processes that do not end, and what the command `verify` says."""
    end = time.monotonic() + _REST_S
    while processes_in(folder) and time.monotonic() < end:
        time.sleep(0.2)
    yield from (f"never ended: {each}" for each in processes_in(folder))
    try:
        lab(folder, "verify")
    except AssertionError as error:
        yield f"verify: {error}"


def _to_a_file(folder: Path, count: int) -> Iterator[tuple[str, Path, Callable[[int], None]]]:
    yield "sqlite:///mlflow.db", folder / "mlflow.db", lambda number: None


def _to_a_server(folder: Path, count: int) -> Iterator[tuple[str, Path, Callable[[int], None]]]:
    """A server that is away during the second quarter of the kills, and after the last."""
    server = Server(folder.with_name(f"server_{folder.name}"))
    acts = {count // 4: server.down, count // 2: server.up, count: server.down, AFTER: server.up}
    server.up()
    try:
        yield server.uri, server.database, lambda number: acts.get(number, _nothing)()
    finally:
        server.down()


def _nothing() -> None: ...


@contextmanager
def scratch(keep: bool) -> Iterator[Path]:
    """A folder with a short path (Ray's sockets lie in it), for the calls' temporary files too."""
    root = Path(tempfile.mkdtemp(prefix="soak-"))
    (root / "tmp").mkdir()
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = str(root / "tmp")
    try:
        yield root
    finally:
        os.environ.pop("TMPDIR")
        if before:
            os.environ["TMPDIR"] = before
        if not keep:
            shutil.rmtree(root, ignore_errors=True)


def left_in(folder: Path) -> str:
    """What the calls left among the temporary files."""
    kinds = {"Ray session logs": "ray/session_2*", "Tune folders": "cegppo-lab-tune-*"}
    found = {kind: list(folder.glob(pattern)) for kind, pattern in kinds.items()}
    sizes = {kind: sum(_bytes(path) for path in paths) / 1e6 for kind, paths in found.items()}
    shared = sum(1 for path in Path("/dev/shm").glob("*plasma*"))
    told = [f"{len(found[kind])} {kind} ({sizes[kind]:.1f} MB)" for kind in kinds]
    return f"left in the temporary folder: {', '.join(told)}; in /dev/shm: {shared} of Ray's"


def _bytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


@click.command()
@click.option("--driver-kills", default=20, show_default=True)
@click.option("--worker-kills", default=20, show_default=True)
@click.option("--seeds", default=3, show_default=True, help="Of the sweep: four trials each.")
@click.option("--steps", default=24, show_default=True, help="Of each trial.")
@click.option("--seed", default=1, show_default=True, help="What the moments are drawn from.")
@click.option("--out", type=Path, default=RESULTS.with_name("soak"))
@click.option("--keep", is_flag=True, help="Leave the folders where it all happened.")
def main(
    driver_kills: int, worker_kills: int, seeds: int, steps: int, seed: int, out: Path, keep: bool
) -> None:
    """Print and write what was killed and what it cost; exit 1 where anything differs."""
    plan = Plan(seeds, steps, {DRIVER: driver_kills, WORKER: worker_kills}, seed)
    notes = circumstances("soak")
    print(*notes, sep="\n", flush=True)
    with scratch(keep) as root:
        result = run(root, plan)
        result.told.append(left_in(root / "tmp"))
    result.told.append(f"differences from the undisturbed sweep: {len(result.flaws)}")
    result.told += result.flaws
    for row in save(out, result.rows, notes, result.told):
        print("  ".join(f"{key}={row[key]}" for key in COLUMNS if key in row))
    print(*result.told[-2:], f"written: {out}", sep="\n")
    sys.exit(bool(result.flaws))


if __name__ == "__main__":
    main()
