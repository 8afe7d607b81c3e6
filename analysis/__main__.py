"""``python -m analysis TARGET``: the paper's figures, tables, claims; final evaluations."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from analysis.evaluations import Entry, write_evaluations
from analysis.load import SCALES, ForeignSource, MlflowSource, Source, StoreSource, load_mapping
from analysis.paper import ALL, TARGETS, Feeds, write_paper
from cegppo_lab.errors import LabError
from cegppo_lab.store import RunStore

EVALUATIONS = "evaluations"


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("target", metavar=f"{{{','.join((*TARGETS, ALL, EVALUATIONS))}}}")
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
@click.option("--name", metavar="NAME", help="Which evaluations.  [default: evaluate]")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder to write to.  [default: report/paper; of evaluations report/NAME]",
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
    name: str | None,
    out: Path | None,
) -> None:
    """Draw the paper's figures, tables and claims from one's own runs, or final evaluations.

    \b
    python -m analysis all
    python -m analysis figure3 --sweep my_grid --out figures
    python -m analysis claims --mlflow sqlite:///mlflow.db
    python -m analysis figure4 --mlflow http://localhost:5000 --experiment verl --mapping arms.yaml
    python -m analysis evaluations --name evaluate
    """
    if target == EVALUATIONS:
        if mlflow or experiment or mapping or names or scale or published:
            raise LabError(
                "evaluations are drawn from a store; of the options give --store, --name, --out"
            )
        _evaluations(RunStore(store), name or "evaluate", out)
        return
    if name:
        raise LabError(f"--name is for the target {EVALUATIONS}; a sweep is named by --sweep")
    source = _source(store, mlflow, experiment, mapping)
    if experiment:
        names = names or (experiment,)
    out = out or Path("report/paper")
    result = write_paper(Feeds(source, names, scale), target, out, published=published)
    if result.text:
        click.echo(result.text)
    for problem in result.problems:
        click.echo(f"note: {problem}")
    for path in result.paths:
        click.echo(path)


def _evaluations(store: RunStore, name: str, out: Path | None) -> None:
    from cegppo_lab.evaluate.reports import read_manifest  # seconds: it knows all policies

    entries = [Entry(**entry) for entry in read_manifest(store, name)["entries"]]
    result = write_evaluations(store.evaluations, name, entries, out or Path("report") / name)
    click.echo(result.text)
    for problem in result.problems:
        click.echo(f"note: {problem}")
    click.echo(result.path_to_index)


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
