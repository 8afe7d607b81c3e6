"""The command that runs what the paper's figures need, and draws them."""

from __future__ import annotations

from pathlib import Path

import click

from cegppo_lab.cli.common import path_option, path_values, shown_path
from cegppo_lab.cli.runs import check_trials, end, tell_states
from cegppo_lab.errors import LabError

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
    from rich.console import Console

    from cegppo_lab.sweep.dispatch import run_trials
    from cegppo_lab.sweep.plan import make_plan
    from cegppo_lab.sweep.progress import Progress

    if words and "=" not in words[0]:
        raise LabError(
            f"figures takes key=value words, not {words[0]!r}; to run a sweep: sweep NAME"
        )
    plans = [make_plan(name, list(words), path_values(**paths)) for name in SWEEPS]
    first = plans[0]
    first.check_writable()
    for plan in plans:
        check_trials(plan, plan.trials)
    for plan in plans:
        first.store().write_manifest(plan.manifest())
    trials = list({trial.trial_id: trial for plan in plans for trial in plan.trials}.values())
    outcome = run_trials(
        first,
        trials,
        lambda concurrent: Progress(first.store(), trials, concurrent, Console()),
    )
    tell_states(outcome)
    _draw(first.store().root, Path(first.runtime.report) / "paper", published)
    _mirror(first.store().root, first.runtime.mlflow)
    end(outcome, trials)


def _draw(root: Path, out: Path, published: bool) -> None:
    from analysis.load import StoreSource
    from analysis.paper import ALL, Feeds, write_paper
    from cegppo_lab.store import RunStore

    try:
        result = write_paper(Feeds(StoreSource(RunStore(root))), ALL, out, published=published)
    except LabError as error:  # no trial has a step yet: the outcome says why
        click.echo(f"note: {error}")
        return
    click.echo(result.text)
    for problem in result.problems:
        click.echo(f"note: {problem}")
    click.echo(f"report: {shown_path(out / 'index.html')}")


def _mirror(root: Path, uri: str) -> None:
    from cegppo_lab.store import RunStore
    from cegppo_lab.tracking import sync

    try:
        sync(RunStore(root), SWEEPS, uri)
    except LabError as error:
        click.echo(f"note: {error}")
    else:
        click.echo(f"runs in MLflow: python -m cegppo_lab ui   ({uri})")
