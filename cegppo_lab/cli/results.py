"""Commands that look at what was trained."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click

from cegppo_lab.cli.common import path_option, runtime, tell_report
from cegppo_lab.store import RunStore
from cegppo_lab.sweep.spec import DEFAULT_SWEEP


@click.command()
@click.argument("name", default=DEFAULT_SWEEP)
@path_option("store")
@path_option("report")
def report(name: str, **paths: str | None) -> None:
    """Draw a sweep's figures and tables again, from the store alone."""
    settings = runtime(**paths)
    tell_report(RunStore(settings.store), name, Path(settings.report))


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@path_option("store")
@path_option("mlflow")
@path_option("report")
def sync(names: tuple[str, ...], **paths: str | None) -> None:
    """Fill the MLflow mirror in from the store: all sweeps, or those named."""
    from cegppo_lab.tracking import sync as mirror

    settings = runtime(**paths)
    reports = Path(settings.report)
    store = RunStore(settings.store)
    for done in mirror(store, list(names) or None, settings.mlflow, reports=reports):
        click.echo(
            f"{done.name}: {done.created} runs new, {done.updated} updated, {done.unchanged} "
            f"unchanged; {done.steps} steps written to {done.uri}"
        )
        for trial_id in done.foreign:
            click.echo(f"note: another store mirrors {trial_id} to {done.uri}; left as it is")


@click.command()
@path_option("mlflow")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=5000, show_default=True, type=click.IntRange(1, 65535))
def ui(mlflow: str | None, host: str, port: int) -> None:
    """Open the MLflow UI on this machine, over the right store."""
    from cegppo_lab.tracking import UI_ENVIRONMENT, ui_command

    uri = runtime(mlflow=mlflow).mlflow
    click.echo(f"{uri} on http://{host}:{port}   (Ctrl-C stops it)")
    try:
        environment = {**UI_ENVIRONMENT, **os.environ}
        sys.exit(subprocess.call(ui_command(uri, host, port), env=environment))
    except KeyboardInterrupt:
        click.echo("stopped")
