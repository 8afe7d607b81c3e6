"""Commands about what the suite brings: its algorithms and its tiny policies."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cegppo_lab.cli.common import EXIT_FAILED, shown_path
from cegppo_lab.errors import LabError

if TYPE_CHECKING:
    from cegppo_lab.algorithms import Algorithm


@click.command()
@click.argument("name", required=False)
@click.option("--check", is_flag=True, help="Hold its loss to its own formula, by autograd.")
@click.option("--markdown", is_flag=True, help="Print the table that the README has.")
def algorithms(name: str | None, check: bool, markdown: bool) -> None:
    """List the algorithms, or explain one: equation, source, assumption, options.

    NAME is one of the list, a preset in ./conf/algorithm, or MODULE:CLASS in a file of your own.
    """
    if check and name is None:
        raise LabError("--check: of which algorithm? type python -m cegppo_lab algorithms NAME")
    if markdown:
        click.echo(algorithms_table())
    elif name is None:
        _list()
    elif check:
        _check(name)
    else:
        _explain(name)


def _list() -> None:
    from cegppo_lab.own_presets import own_names

    for cls in _all_classes():
        click.echo(f"{cls.name:8} {_line(cls)}")
    if own := own_names():
        click.echo("\nyour own:")
    for name in own:
        try:
            click.echo(f"{name:8} {_line(type(_found(name)))}")
        except LabError as error:  # one that is broken hides none of the others
            click.echo(f"{name:8} error: {error}")
    click.echo("\nmore on one: python -m cegppo_lab algorithms NAME")


def _explain(name: str) -> None:
    algorithm = _found(name)
    click.echo(inspect.cleandoc(type(algorithm).__doc__ or ""))
    click.echo(f"\nmaximises: {algorithm.equation}\nsource: {algorithm.source}")
    if ":" in algorithm.name:
        click.echo(f"found at: {algorithm.name}")
    click.echo("options and defaults:")
    for key, value in algorithm.model_dump(mode="json").items():
        click.echo(f"  algorithm.{key}={'null' if value is None else value}")


def _check(name: str) -> None:
    from cegppo_lab.algorithms.check import findings

    marks = {True: "holds    ", False: "FAILS    ", None: "note     "}
    failed = False
    for finding in findings(_found(name)):
        click.echo(f"{marks[finding.holds]}  {finding.text}")
        failed |= finding.holds is False
    if failed:
        sys.exit(EXIT_FAILED)


def _found(name: str) -> Algorithm:
    from cegppo_lab.compose import resolve

    return resolve({"algorithm": name}).algorithm


def algorithms_table() -> str:
    """The registered algorithms as a markdown table, from the classes themselves."""
    rows = [f"| `{c.name}` | {c.title} | {c.equation} | {c.source} |" for c in _all_classes()]
    return "\n".join(
        ["| name | algorithm | maximises | source |", "| --- | --- | --- | --- |", *rows]
    )


def _line(cls: type[Algorithm]) -> str:
    return f"{cls.title:8} {cls.equation}   [{cls.source}]"


def _all_classes() -> list[type[Algorithm]]:
    from cegppo_lab.algorithms import algorithm_class, algorithm_names

    return [algorithm_class(name) for name in algorithm_names()]


@click.command()
@click.argument("task", default="table_walk")
@click.option("--out", type=click.Path(path_type=Path), help="Folder; default policies/TASK.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
def pretrain(task: str, out: Path | None, seed: int) -> None:
    """Make the tiny policy of a task anew, by supervised training on its demonstrations.

    The shipped policies come from this command, with seed 0. Use the result with
    model.path=policies/TASK.
    """
    from transformers.utils.logging import disable_progress_bar

    from cegppo_lab.pretrain import pretrain as make
    from cegppo_lab.tasks import make_task

    disable_progress_bar()
    folder = out or Path("policies") / task
    card = make(make_task(task), folder, seed=seed)
    for key, value in card.items():
        click.echo(f"{key}: {value:.4g}" if isinstance(value, float) else f"{key}: {value}")
    click.echo(f"policy: {shown_path(folder)}")
