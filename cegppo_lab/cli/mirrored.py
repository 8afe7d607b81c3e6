"""What every command that trains a sweep does around it: the MLflow mirror, and the report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cegppo_lab.cli.common import tell_report
from cegppo_lab.errors import LabError

if TYPE_CHECKING:
    from cegppo_lab.sweep.cluster import Cluster
    from cegppo_lab.sweep.dispatch import Outcome
    from cegppo_lab.sweep.meter import Meter
    from cegppo_lab.sweep.plan import Plan
    from cegppo_lab.tracking import Mirror
    from cegppo_lab.trial import Trial

MIRROR_PATIENCE_S = 60.0


@contextmanager
def mirrored(plan: Plan) -> Iterator[Mirror]:
    """Mirror the sweep to MLflow for the time of the context; MLflow never stands in its way.

    At the end the report's folder goes there too, and it is said what MLflow lacks, if anything.
    """
    from cegppo_lab.tracking import Mirror

    store, name, uri = plan.store(), plan.spec.name, plan.runtime.mlflow
    artifacts = Path(plan.runtime.report) / name
    mirror = Mirror(store, name, uri, artifacts=artifacts, say=click.echo)
    mirror.start()
    try:
        yield mirror
    finally:
        problems = mirror.stop(MIRROR_PATIENCE_S)
    for problem in problems:
        click.echo(f"note: {problem}")
    click.echo(f"runs in MLflow: python -m cegppo_lab ui   ({uri})")


def run(
    plan: Plan,
    trials: list[Trial],
    nudge: Callable[[], None] = lambda: None,
    meter: Meter | None = None,
    held: Cluster | None = None,
) -> Outcome:
    """Train those of ``trials`` that are not finished, with their progress on the terminal.

    ``nudge``: called when there is something new to mirror.
    """
    from rich.console import Console

    from cegppo_lab.sweep.dispatch import run_trials
    from cegppo_lab.sweep.progress import Progress

    def progress(concurrent: int) -> Progress:
        return Progress(plan.store(), trials, concurrent, Console())

    return run_trials(plan, trials, progress, nudge, meter, held)


def draw(plan: Plan) -> None:
    """Write and tell the sweep's report, or why there is none: the store is what counts."""
    try:
        tell_report(plan.store(), plan.spec.name, Path(plan.runtime.report))
    except (LabError, OSError) as error:  # no trial has a step yet, or no room
        click.echo(f"note: no report: {error}")
