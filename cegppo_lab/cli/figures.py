"""The command that runs what the paper's figures need, and draws them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cegppo_lab.cli.common import path_option, path_values, shown_path
from cegppo_lab.cli.mirrored import run
from cegppo_lab.cli.runs import check_trials, end, tell_states
from cegppo_lab.errors import LabError

if TYPE_CHECKING:
    from cegppo_lab.store import RunStore
    from cegppo_lab.sweep.plan import Plan

SWEEPS = ("missing_gradients", "algorithms", "beta_switch", "entropy_mitigation", "beta_grid")
"""The sweeps that feed Figures 1 to 6 and both tables at the embedded scale."""


@click.command()
@click.argument("words", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--published", is_flag=True, help="Lay the paper's own values over Figures 1 and 2.")
@path_option("store")
@path_option("mlflow")
@path_option("report")
def figures(words: tuple[str, ...], published: bool, **paths: str | None) -> None:
    """Run what is missing for the paper's figures at embedded scale, then draw them all.

    Trains the sweeps missing_gradients, algorithms, beta_switch, entropy_mitigation and beta_grid,
    every shared trial once; writes figure1 to figure6, table1, table2, claims.json and index.html
    to OUT/paper; mirrors the sweeps to MLflow. To draw again without training: python -m analysis.

    \b
    python -m cegppo_lab figures
    python -m cegppo_lab figures seeds=[1,2,3] --out mine
    """
    if words and "=" not in words[0]:
        raise LabError(
            f"figures takes key=value words, not {words[0]!r}; to run a sweep: sweep NAME"
        )
    plans = _plans(words, path_values(**paths))
    store, runtime = plans[0].store(), plans[0].runtime
    trials = list({trial.trial_id: trial for plan in plans for trial in plan.trials}.values())
    outcome = run(plans[0], trials)  # in one go: all plans share one runtime
    tell_states(outcome)
    _draw(store, Path(runtime.report) / "paper", published)
    _mirror(store, runtime.mlflow)
    end(outcome, trials)


def _plans(words: tuple[str, ...], paths: dict[str, str]) -> list[Plan]:
    """The plan of every sweep, checked whole before the first one is entered in the store."""
    from cegppo_lab.sweep.confounds import refuse_confounds
    from cegppo_lab.sweep.plan import make_plan

    plans = [make_plan(name, list(words), paths) for name in SWEEPS]
    plans[0].check_writable()
    for plan in plans:
        refuse_confounds(plan.confounds())
        check_trials(plan, plan.trials)
    for plan in plans:
        plan.store().write_manifest(plan.manifest())
    return plans


def _draw(store: RunStore, out: Path, published: bool) -> None:
    from analysis.load import StoreSource
    from analysis.paper import ALL, Feeds, write_paper

    try:
        result = write_paper(Feeds(StoreSource(store)), ALL, out, published=published)
    except LabError as error:  # no trial has a step yet: the outcome says why
        click.echo(f"note: {error}")
        return
    click.echo(result.text)
    for problem in result.problems:
        click.echo(f"note: {problem}")
    click.echo(f"report: {shown_path(out / 'index.html')}")


def _mirror(store: RunStore, uri: str) -> None:
    from cegppo_lab.tracking import sync

    try:
        sync(store, SWEEPS, uri)
    except LabError as error:
        click.echo(f"note: {error}")
    else:
        click.echo(f"runs in MLflow: python -m cegppo_lab ui   ({uri})")
