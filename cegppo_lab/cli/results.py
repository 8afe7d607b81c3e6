"""Commands that look at what was trained."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click

from cegppo_lab.cli.common import path_option, runtime, shown_path
from cegppo_lab.store import RunStore
from cegppo_lab.sweep.spec import DEFAULT_SWEEP


@click.command()
@click.argument("name", default=DEFAULT_SWEEP)
@path_option("store")
@path_option("report")
def report(name: str, **paths: str | None) -> None:
    """Draw a sweep's figures and tables again, from the store alone."""
    from analysis.report import write_report

    settings = runtime(**paths)
    result = write_report(RunStore(settings.store), name, Path(settings.report))
    click.echo(result.table_text)
    for problem in result.problems:
        click.echo(f"note: {problem}")
    click.echo(f"report: {shown_path(result.path_to_index)}")


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
        click.echo(str(done))


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
