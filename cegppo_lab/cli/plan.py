"""The command that says what a sweep would run, and what stands in its way."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from cegppo_lab.cli.common import path_option, path_values, split_name, words_argument
from cegppo_lab.cli.describe import needs, resolved_text, search_lines
from cegppo_lab.cli.runs import FINISHED
from cegppo_lab.errors import LabError

if TYPE_CHECKING:
    from cegppo_lab.sweep.nodes import Node
    from cegppo_lab.sweep.plan import Plan
    from cegppo_lab.trial import Trial


@dataclass(frozen=True)
class _Told:
    """A sweep before it starts: ``plan`` has its known trials, ``asked`` those it would finish."""

    plan: Plan
    asked: list[Trial]
    checked: Plan
    """What must have no confounds."""
    unsuggested: Sequence[Trial] = ()
    """Stand-ins for the runs of a search's points that are not suggested yet."""
    at_most: int | None = None
    """Trials that are started at a time."""
    search: Mapping[str, Any] | None = None


@click.command()
@words_argument
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
@click.option(
    "--config", "shown", metavar="TRIAL", help="Print one trial's resolved configuration."
)
@path_option("store")
def plan(words: tuple[str, ...], as_json: bool, shown: str | None, **paths: str | None) -> None:
    """Show a sweep's trials, which are done, confounds and the price; starts nothing.

    A confound is a difference between arms that the sweep does not declare; it blocks the launch.
    The price comes from step times in the store, and is unknown where none were measured. Of a
    search: the points so far, and how many are still to be suggested.

    \b
    python -m cegppo_lab plan beta_grid
    python -m cegppo_lab plan quickstart algorithm.clip_low=0.1 --json
    python -m cegppo_lab plan paper/beta_grid_7b --config 3f2a   (verl's, whole)
    """
    from cegppo_lab.sweep.plan import make_plan, state_of
    from cegppo_lab.sweep.price import price

    name, overrides = split_name(words)
    made = make_plan(name, overrides, path_values(**paths))
    told = _searched(made) if made.spec.search else _Told(made, made.trials, made)
    trials = told.plan.trials
    if shown is not None:
        click.echo(resolved_text(told.plan, shown))
        return
    store = made.store()
    states = {trial.trial_id: state_of(store, trial, told.plan.spec.stop) for trial in trials}
    missing = [trial for trial in told.asked if states[trial.trial_id] not in FINISHED]
    priced = [*missing, *told.unsuggested]
    cost = price(store, priced, made.runtime, _nodes(made), told.at_most)
    confounds = told.checked.confounds()
    if as_json:
        manifest = told.plan.manifest()
        rows = [{**row, "state": states[row["trial_id"]]} for row in manifest.pop("trials")]
        configs = {trial.trial_id: trial.stored_config() for trial in trials}
        full = [{**row, "config": configs[row["trial_id"]]} for row in rows]
        found = {"price": asdict(cost), "confounds": [asdict(item) for item in confounds]}
        searched = {"search": told.search} if told.search else {}
        click.echo(json.dumps({**manifest, **searched, **found, "trials": full}, indent=1))
        return
    click.echo(made.spec.question.strip())
    width = max((len(trial.arm) for trial in trials), default=0)
    for trial in trials:
        click.echo(
            f"{trial.trial_id}  {trial.arm:{width}}  seed {trial.seed}  "
            f"{needs(trial)}  {states[trial.trial_id]}"
        )
    to_come = f", {len(told.unsuggested)} of points to come" if told.unsuggested else ""
    click.echo(f"{len(trials)} trials, {len(missing)} to run{to_come}")
    for line in search_lines(told.search) if told.search else ():
        click.echo(line)
    click.echo(cost.text())
    for confound in confounds:
        click.echo(f"confound, blocks the launch: {confound.text()}")


def _searched(made: Plan) -> _Told:
    """A search as it stands; ``LabError`` for what is wrong anywhere in its space."""
    from cegppo_lab.sweep.search.definition import Search
    from cegppo_lab.sweep.search.outlook import outlook, stand_ins
    from cegppo_lab.sweep.search.summary import summarize

    search = Search(made, made.spec.search)
    checked, study = search.checked(), search.stored()
    now = outlook(search, study)
    found = summarize(search, study.points() if study else [])
    told = {**found, "unsuggested": now.unsuggested, "rungs": search.rungs()[:-1]}
    to_come = stand_ins(search, now.unsuggested)
    at_most = search.settings.parallel * len(made.spec.seeds)
    return _Told(now.plan, now.left, checked, to_come, at_most, told)


def _nodes(made: Plan) -> list[Node] | None:
    """What the trials are placed on; this machine where the cluster is not to be reached."""
    from cegppo_lab.sweep.cluster import nodes_of

    try:
        return nodes_of(made.spec.cluster, made.runtime)
    except LabError as error:
        click.echo(f"note: priced as on this machine; {error}", err=True)
        return None
