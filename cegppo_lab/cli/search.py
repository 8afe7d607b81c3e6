"""What `sweep` does with a sweep that has a search."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cegppo_lab.cli.common import EXIT_FAILED, EXIT_INTERRUPTED, tell_report
from cegppo_lab.errors import LabError

if TYPE_CHECKING:
    from cegppo_lab.sweep.plan import Plan
    from cegppo_lab.sweep.search.driver import Run, Search
    from cegppo_lab.sweep.search.study import Study
    from cegppo_lab.tracking import Mirror
    from cegppo_lab.trial import Trial


def search(plan: Plan, **refused: object) -> None:
    """Search from where the study stands: suggest, train, mirror to MLflow, write the report.

    ``refused``: options of ``sweep`` that a search does not take, by name.
    Raises ``LabError`` before anything starts for what is wrong anywhere in the space.
    """
    from cegppo_lab.cli.runs import check_trials
    from cegppo_lab.sweep.confounds import refuse_confounds
    from cegppo_lab.sweep.search.driver import Search

    for option in [name for name, given in refused.items() if given]:
        raise LabError(
            f"--{option}: a search does not take it; say search.points=N, which stops it"
        )
    made = Search(plan, plan.spec.search)
    corners = made.checked()
    refuse_confounds(corners.confounds())
    plan.check_writable()
    check_trials(corners, corners.trials)
    with made.study() as study:
        whole = _run_and_report(made, study)
        failed = sum(point.state.name == "FAIL" for point in study.points())
    if not whole:
        click.echo("stopped; the same command goes on from here")
        sys.exit(EXIT_INTERRUPTED)
    if failed:
        click.echo(f"{failed} of {plan.spec.search.points} points failed")
        sys.exit(EXIT_FAILED)


def _run_and_report(made: Search, study: Study) -> bool:
    """Search, draw and mirror; whether the search came to its end."""
    from cegppo_lab.cli.runs import MIRROR_PATIENCE_S
    from cegppo_lab.sweep.search.driver import run_search
    from cegppo_lab.tracking import Mirror

    plan = made.fixed
    store, name, out = plan.store(), plan.spec.name, Path(plan.runtime.report)
    if name not in store.manifests():
        store.write_manifest(plan.manifest())
    mirror = Mirror(store, name, plan.runtime.mlflow, artifacts=out / name, say=click.echo)
    mirror.start()
    try:
        whole = run_search(made, study, _runner(mirror), click.echo)
        _tell_results(made, study, out)
    finally:
        problems = mirror.stop(MIRROR_PATIENCE_S)
    for problem in problems:
        click.echo(f"note: {problem}")
    click.echo(f"runs in MLflow: python -m cegppo_lab ui   ({plan.runtime.mlflow})")
    return whole


def _runner(mirror: Mirror) -> Run:
    from rich.console import Console

    from cegppo_lab.sweep.dispatch import run_trials
    from cegppo_lab.sweep.progress import Progress

    def run(plan: Plan, trials: list[Trial]) -> bool:
        outcome = run_trials(
            plan,
            trials,
            lambda concurrent: Progress(plan.store(), trials, concurrent, Console()),
            mirror.nudge,
        )
        return not outcome.interrupted

    return run


def _tell_results(made: Search, study: Study, out: Path) -> None:
    """The sweep's report, and beside it what the search found."""
    from cegppo_lab.sweep.search.summary import summarize

    store, name = made.fixed.store(), made.fixed.spec.name
    try:
        tell_report(store, name, out)
    except LabError as error:  # no trial has a step yet
        click.echo(f"note: {error}")
    found = summarize(made, study)
    click.echo(found.text())
    for path in found.write(out / name):
        click.echo(f"written: {path}")
