"""``python -m analysis TARGET``: the paper's figures, tables, claims, from a store or MLflow."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from analysis.load import SCALES, ForeignSource, MlflowSource, Source, StoreSource, load_mapping
from analysis.paper import ALL, TARGETS, Feeds, write_paper
from cegppo_lab.errors import LabError
from cegppo_lab.store import RunStore


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("target", metavar=f"{{{','.join((*TARGETS, ALL))}}}")
@click.option("--store", default="runs", show_default=True, help="Folder of the runs.")
@click.option("--mlflow", metavar="URI", help="Read an MLflow tracking URI instead of a store.")
@click.option("--experiment", metavar="NAME", help="MLflow experiment of runs made elsewhere.")
@click.option(
    "--mapping",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="YAML that says which runs of --experiment are which arm and seed.",
)
@click.option("--sweep", "names", multiple=True, metavar="NAME", help="Draw from this sweep.")
@click.option("--scale", type=click.Choice([SCALES[0], SCALES[2]]), help="Where there are both.")
@click.option("--published", is_flag=True, help="Lay the paper's own values over Figures 1 and 2.")
@click.option(
    "--out",
    default="report/paper",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder to write to.",
)
def main(
    target: str,
    store: str,
    mlflow: str | None,
    experiment: str | None,
    mapping: Path | None,
    names: tuple[str, ...],
    scale: str | None,
    published: bool,
    out: Path,
) -> None:
    """Draw the paper's figures, tables and claims from one's own runs.

    \b
    python -m analysis all
    python -m analysis figure3 --sweep my_grid --out figures
    python -m analysis claims --mlflow sqlite:///mlflow.db
    python -m analysis figure4 --mlflow http://localhost:5000 --experiment verl --mapping arms.yaml
    """
    source = _source(store, mlflow, experiment, mapping)
    if experiment:
        names = names or (experiment,)
    result = write_paper(Feeds(source, names, scale), target, out, published=published)
    if result.text:
        click.echo(result.text)
    for problem in result.problems:
        click.echo(f"note: {problem}")
    for path in result.paths:
        click.echo(path)


def _source(store: str, mlflow: str | None, experiment: str | None, mapping: Path | None) -> Source:
    if mlflow is None:
        if experiment or mapping:
            raise LabError("--experiment and --mapping are for --mlflow URI; give that as well")
        return StoreSource(RunStore(store))
    if mapping is None:
        if experiment:
            raise LabError(f"--experiment {experiment} needs --mapping FILE (arm and seed of runs)")
        return MlflowSource(mlflow)
    if experiment is None:
        raise LabError("--mapping needs --experiment NAME")
    return ForeignSource(mlflow, experiment, load_mapping(mapping))


if __name__ == "__main__":
    try:
        main(standalone_mode=True)
    except LabError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
