"""Commands that look after the store of runs."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.filesize import decimal

from cegppo_lab.cli.common import EXIT_FAILED, path_option, runtime
from cegppo_lab.store import RunStore

if TYPE_CHECKING:
    from cegppo_lab.housekeeping.status import SweepStatus, TrialStatus


def _store(paths: Mapping[str, str | None]) -> RunStore:
    return RunStore(runtime(**paths).store)


@click.command()
@click.argument("sweeps", nargs=-1, metavar="[SWEEP]...")
@click.option("--json", "as_json", is_flag=True, help="Print it all as JSON: every trial.")
@path_option("store")
def status(sweeps: tuple[str, ...], as_json: bool, **paths: str | None) -> None:
    """Show what the store holds: sweeps, trials by state, disk; all sweeps, or those named."""
    from cegppo_lab.housekeeping.status import disk_of_store
    from cegppo_lab.housekeeping.status import status as look

    store = _store(paths)
    found = look(store, sweeps)
    disk = disk_of_store(store)
    if as_json:
        tree = [{"states": sweep.states, "disk": sweep.disk, **asdict(sweep)} for sweep in found]
        click.echo(json.dumps({"store": str(store.root), "disk": disk, "sweeps": tree}, indent=1))
        return
    for sweep in found:
        _tell_sweep(sweep)
    click.echo(f"{store.root}: {_sizes(disk)}")


def _tell_sweep(sweep: SweepStatus) -> None:
    states = ", ".join(f"{count} {state}" for state, count in sweep.states.items())
    changed = (
        time.strftime("%Y-%m-%d %H:%M", time.localtime(sweep.changed)) if sweep.changed else ""
    )
    size = decimal(sum(sweep.disk.values()))
    name = sweep.name or "(in no sweep)"
    click.echo(
        f"{name}: {len(sweep.trials)} trials: {states}; {size}; last change {changed or '-'}"
    )
    for trial in sweep.unfinished:
        click.echo(f"  {_trial_line(trial)}")


def _trial_line(trial: TrialStatus) -> str:
    who = f"{trial.arm} seed {trial.seed}" if trial.arm else "-"
    reason = trial.reason.strip().splitlines()
    why = f": {reason[0]}" if reason else ""
    return f"{trial.trial_id}  {who}  {trial.state} at step {trial.step} of {trial.steps}{why}"


def _sizes(disk: Mapping[str, int]) -> str:
    kinds = ", ".join(f"{kind} {decimal(size)}" for kind, size in sorted(disk.items()))
    return f"{decimal(sum(disk.values()))}" + (f" ({kinds})" if kinds else "")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@path_option("store")
def verify(as_json: bool, **paths: str | None) -> None:
    """Read every file of the store and tell what is wrong with it; changes nothing.

    Exit status 1: something is broken. What a kill leaves behind is told as a note.
    """
    from cegppo_lab.housekeeping.verify import verify as check

    store = _store(paths)
    broken = 0
    found = []
    for finding in check(store):
        broken += not finding.harmless
        found.append(asdict(finding))
        if not as_json:
            kind = "note" if finding.harmless else "broken"
            click.echo(f"{kind}: {finding.where}: {finding.told}; type: {finding.mend}")
    if as_json:
        click.echo(json.dumps(found, indent=1))
    else:
        trials, sweeps = len(store.trial_ids()), len(store.manifests())
        told = f"{broken} broken" if broken else "all whole"
        click.echo(f"{store.root}: {trials} trials, {sweeps} sweeps: {told}")
    if broken:
        sys.exit(EXIT_FAILED)


@click.command()
@click.option("--yes", is_flag=True, help="Delete; without it nothing is.")
@click.option(
    "--checkpoints",
    is_flag=True,
    help="Also the last checkpoints of finished trials.",
)
@path_option("store")
def gc(yes: bool, checkpoints: bool, **paths: str | None) -> None:
    """Delete what no sweep needs: old checkpoints, leftovers, trials that no sweep names.

    Lists it, and deletes it with --yes. Trials in training are left alone; MLflow's mirror is never
    touched. Without its last checkpoint a finished trial can be evaluated or branched from only
    after it was trained again (delete its folder, run its sweep).
    """
    from cegppo_lab.housekeeping.gc import collect, find_waste

    store = _store(paths)
    act = collect if yes else find_waste
    total = 0
    for waste in act(store, last_checkpoints=checkpoints):
        total += waste.bytes
        click.echo(f"{decimal(waste.bytes):>9}  {waste.path}  ({waste.why})")
    if checkpoints:
        click.echo("note: evaluating or branching from a trial without checkpoint needs training")
    if yes:
        click.echo(f"deleted: {decimal(total)}")
    else:
        click.echo(f"would delete: {decimal(total)}" + ("; type the same with --yes" * bool(total)))


@click.command("export")
@click.argument("archive", type=click.Path(path_type=Path))
@click.argument("names", nargs=-1, metavar="[SWEEP|TRIAL]...")
@click.option("--checkpoints", is_flag=True, help="Also what resuming and evaluating need.")
@path_option("store")
def export_(archive: Path, names: tuple[str, ...], checkpoints: bool, **paths: str | None) -> None:
    """Pack runs into ARCHIVE (*.tar, *.tar.gz, *.tgz), with hashes, for another machine.

    All of the store, or the sweeps and trials named (a trial by the start of its id). The same
    store gives the same bytes. Exit status 1: a trial is broken and was left out.

    \b
    python -m cegppo_lab export quickstart.tar.gz quickstart
    python -m cegppo_lab import quickstart.tar.gz              (on the other machine)
    """
    from cegppo_lab.housekeeping.export import export

    done = export(_store(paths), archive, names, checkpoints=checkpoints)
    for trial_id in done.in_training:
        click.echo(f"note: {trial_id} is in training: packed as it stood, without checkpoints")
    for trial_id, why in done.left_out.items():
        click.echo(f"left out: {trial_id}: {why}; type: python -m cegppo_lab verify")
    click.echo(
        f"{archive}: {len(done.trials)} trials, {len(done.sweeps)} sweeps, {decimal(done.bytes)}"
    )
    if done.left_out:
        sys.exit(EXIT_FAILED)


@click.command("import")
@click.argument("archive", type=click.Path(path_type=Path))
@click.option("--as", "as_name", metavar="NAME", help="Another name for the archive's sweep.")
@path_option("store")
def import_(archive: Path, as_name: str | None, **paths: str | None) -> None:
    """Bring the runs of ARCHIVE into the store, after checking all of it.

    Nothing is overwritten: a trial that is there is skipped, one whose rows the archive goes on
    from is completed, a differing one is refused. A killed import is completed by the next.
    Exit status 1: a trial was refused.
    """
    from cegppo_lab.housekeeping.arrival import import_archive
    from cegppo_lab.housekeeping.merge import REFUSED

    store = _store(paths)
    counts: Counter[str] = Counter()
    for arrival in import_archive(store, archive, as_name):
        counts[arrival.outcome] += 1
        if arrival.told:
            click.echo(f"{arrival.outcome}: {arrival.trial_id} {arrival.told}")
    told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
    click.echo(f"{store.root}: {told or 'no trials in it'}")
    if counts[REFUSED]:
        sys.exit(EXIT_FAILED)
