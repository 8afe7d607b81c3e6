"""The command that says what this machine and its cluster lack."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import click

from cegppo_lab.cli.common import EXIT_FAILED, path_option, path_values


@click.command()
@click.argument("words", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--ray", "start_ray", is_flag=True, help="Start a Ray cluster on this machine too.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@path_option("store")
@path_option("mlflow")
def doctor(words: tuple[str, ...], start_ray: bool, as_json: bool, **paths: str | None) -> None:
    """Check what a run needs here: packages, GPUs, Ray, MLflow, store, weights, disk.

    Checks the run that the words describe, by default the embedded trainer's. With RAY_ADDRESS
    set it joins that cluster and reads the store from every node. Exit status 1: something that
    the run needs is missing.

    \b
    python -m cegppo_lab doctor
    python -m cegppo_lab doctor trainer=verl model=r1-distill-qwen-1.5b
    """
    from cegppo_lab.compose import parse_overrides, resolve
    from cegppo_lab.doctor import MISSING, Finding, examine

    config = resolve({**parse_overrides(words), **path_values(**paths)})
    findings: list[Finding] = []
    for finding in examine(config, start_ray=start_ray):
        findings.append(finding)
        if not as_json:
            click.echo(f"{finding.state:7}  {finding.name}: {finding.told}")
            if finding.mend:
                click.echo(f"{'':7}  type: {finding.mend}")
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=1))
    missing = [finding.name for finding in findings if finding.state == MISSING]
    if missing:
        click.echo(f"missing for trainer={config.trainer.name}: {', '.join(missing)}", err=True)
        sys.exit(EXIT_FAILED)
