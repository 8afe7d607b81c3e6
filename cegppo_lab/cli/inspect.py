"""Commands about what the suite brings: its algorithms and its tiny policies."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cegppo_lab.cli.common import shown_path

if TYPE_CHECKING:
    from cegppo_lab.algorithms import Algorithm


@click.command()
@click.argument("name", required=False)
@click.option("--markdown", is_flag=True, help="Print the table that the README has.")
def algorithms(name: str | None, markdown: bool) -> None:
    """List the algorithms, or explain one: equation, source, assumption, options."""
    from cegppo_lab.algorithms import algorithm_class

    if markdown:
        click.echo(algorithms_table())
        return
    if name is None:
        for cls in _all_classes():
            click.echo(f"{cls.name:8} {cls.title:8} {cls.equation}   [{cls.source}]")
        click.echo("\nmore on one: python -m cegppo_lab algorithms NAME")
        return
    cls = algorithm_class(name)
    click.echo(inspect.cleandoc(cls.__doc__ or ""))
    click.echo(f"\nmaximises: {cls.equation}\nsource: {cls.source}\noptions and defaults:")
    for key, field in cls.model_fields.items():
        click.echo(f"  algorithm.{key}={'null' if field.default is None else field.default}")


def algorithms_table() -> str:
    """The registered algorithms as a markdown table, from the classes themselves."""
    rows = [f"| `{c.name}` | {c.title} | {c.equation} | {c.source} |" for c in _all_classes()]
    return "\n".join(
        ["| name | algorithm | maximises | source |", "| --- | --- | --- | --- |", *rows]
    )


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
