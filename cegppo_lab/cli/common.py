"""What several commands share."""

from __future__ import annotations

from pathlib import Path

import click

from cegppo_lab.compose import resolve
from cegppo_lab.config import RuntimeConfig
from cegppo_lab.store import RunStore
from cegppo_lab.sweep.spec import DEFAULT_SWEEP

EXIT_FAILED, EXIT_INTERRUPTED = 1, 130

words_argument = click.argument("words", nargs=-1, metavar="[NAME] [KEY=VALUE]...")
_PATHS = {
    "store": ("--store", "Folder of the runs.", "CEGPPO_LAB_STORE"),
    "mlflow": ("--mlflow", "MLflow tracking URI.", "MLFLOW_TRACKING_URI"),
    "report": ("--out", "Folder of the reports.", None),
}


def path_option(key: str) -> click.Option:
    """An option that sets ``runtime.KEY``, e.g. ``--store DIR``."""
    flag, help_text, envvar = _PATHS[key]
    return click.option(flag, key, help=help_text, envvar=envvar, metavar=key.upper())


def split_name(words: tuple[str, ...]) -> tuple[str, list[str]]:
    """``([NAME] [KEY=VALUE]...)`` as the sweep's name, by default the quickstart, and the rest."""
    if words and "=" not in words[0]:
        return words[0], list(words[1:])
    return DEFAULT_SWEEP, list(words)


def path_values(**paths: str | None) -> dict[str, str]:
    """The options that were given, as ``runtime.*`` values."""
    return {f"runtime.{key}": value for key, value in paths.items() if value is not None}


def runtime(**paths: str | None) -> RuntimeConfig:
    """The runtime settings of ``conf/run.yaml`` with the options that were given over them."""
    return resolve(path_values(**paths)).runtime


def shown_path(path: Path) -> str:
    """``path`` as short as it can be typed from here."""
    path = path.resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def tell_report(store: RunStore, name: str, out: Path) -> None:
    """Write a sweep's report below ``out``; print its table, what is not whole, and its path."""
    from analysis.load import StoreSource
    from analysis.report import write_report

    result = write_report(StoreSource(store), name, out)
    click.echo(result.table_text)
    for problem in result.problems:
        click.echo(f"note: {problem}")
    click.echo(f"report: {shown_path(result.path_to_index)}")
