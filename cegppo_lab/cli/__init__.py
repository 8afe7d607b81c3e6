"""The command line: ``python -m cegppo_lab COMMAND``.

Heavy packages are imported by the commands that need them, so that mistakes are told at once.
"""

from __future__ import annotations

import os
import sys

import click

from cegppo_lab.cli import (
    data,
    doctor,
    evaluate,
    explain,
    figures,
    harness,
    inspect,
    plan,
    results,
    runs,
    store,
)
from cegppo_lab.errors import LabError, unknown
from cegppo_lab.trainers.base import TrainerError


class _Commands(click.Group):
    """Click's group, with the nearest name for a mistyped command."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that ``args`` begin with."""
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            raise unknown("command", args[0], self.commands)
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which they are used."""
        return list(self.commands)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="cegppo-lab")
def cli() -> None:
    """Does one policy-optimisation algorithm beat another? Ask a sweep.

    \b
    python -m cegppo_lab sweep                    the default question, on this machine
    python -m cegppo_lab plan beta_grid           what a sweep would run
    python -m cegppo_lab sweep quickstart seeds=[1,2,3] trainer.steps=32 name=short
    python -m cegppo_lab train algorithm=cegppo algorithm.beta1=0.5
    python -m cegppo_lab ui                       compare the runs in MLflow

    Settings are key=value words, as Hydra has them; conf/ holds every key with its default.
    Exit status: 0 success, 1 a failure of ours (or of a trial), 2 a mistake to mend, 130 Ctrl-C.
    """


for _command in (
    *(runs.sweep, plan.plan, runs.train, evaluate.evaluate, harness.harness),
    *(figures.figures, results.report, results.sync, results.ui),
    *(store.status, store.verify, store.gc, store.export_, store.import_),
    *(doctor.doctor, explain.explain, inspect.algorithms, data.data, inspect.pretrain),
):
    cli.add_command(_command)


def main() -> None:
    """Entry point: turns a ``LabError`` into one line and exit status 2."""
    # Read once, when mlflow is imported, by us or by a library.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        cli(prog_name="python -m cegppo_lab")
    except LabError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    except TrainerError as error:
        click.echo(f"failed: {error}", err=True)
        sys.exit(1)
