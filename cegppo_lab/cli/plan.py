"""The command that says what a sweep would run, and what stands in its way."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from cegppo_lab.cli.common import path_option, path_values, split_name, words_argument
from cegppo_lab.cli.describe import needs, resolved_text
from cegppo_lab.cli.runs import FINISHED


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
    The price comes from step times in the store, and is unknown where none were measured.

    \b
    python -m cegppo_lab plan beta_grid
    python -m cegppo_lab plan quickstart algorithm.clip_low=0.1 --json
    python -m cegppo_lab plan paper/beta_grid_7b --config 3f2a   (verl's, whole)
    """
    from cegppo_lab.sweep.plan import make_plan, state_of
    from cegppo_lab.sweep.price import price

    name, overrides = split_name(words)
    made = make_plan(name, overrides, path_values(**paths))
    if shown is not None:
        click.echo(resolved_text(made, shown))
        return
    store = made.store()
    states = {trial.trial_id: state_of(store, trial, made.spec.stop) for trial in made.trials}
    missing = [trial for trial in made.trials if states[trial.trial_id] not in FINISHED]
    cost, confounds = price(store, missing, made.runtime), made.confounds()
    if as_json:
        manifest = made.manifest()
        rows = [{**row, "state": states[row["trial_id"]]} for row in manifest.pop("trials")]
        configs = {trial.trial_id: trial.stored_config() for trial in made.trials}
        full = [{**row, "config": configs[row["trial_id"]]} for row in rows]
        told = {"price": asdict(cost), "confounds": [asdict(item) for item in confounds]}
        click.echo(json.dumps({**manifest, **told, "trials": full}, indent=1))
        return
    click.echo(made.spec.question.strip())
    width = max((len(trial.arm) for trial in made.trials), default=0)
    for trial in made.trials:
        click.echo(
            f"{trial.trial_id}  {trial.arm:{width}}  seed {trial.seed}  "
            f"{needs(trial)}  {states[trial.trial_id]}"
        )
    click.echo(f"{len(made.trials)} trials, {len(missing)} to run")
    click.echo(cost.text())
    for confound in confounds:
        click.echo(f"confound, blocks the launch: {confound.text()}")
