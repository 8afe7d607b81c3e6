"""The command that evaluates policies on benchmarks."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cegppo_lab.cli.common import EXIT_INTERRUPTED, path_option, path_values, shown_path
from cegppo_lab.errors import LabError

if TYPE_CHECKING:
    from analysis.evaluations import Entry
    from analysis.evaluations.entry import Evaluated
    from cegppo_lab.evaluate.plan import Plan
    from cegppo_lab.evaluate.settings import EvaluateConfig
    from cegppo_lab.store import RunStore
    from cegppo_lab.tracking import Scores


@click.command()
@click.argument("words", nargs=-1, metavar="POLICY... [KEY=VALUE]...")
@path_option("store")
@path_option("mlflow")
@path_option("report")
def evaluate(words: tuple[str, ...], **paths: str | None) -> None:
    """Evaluate policies on benchmarks: avg@k, pass@k, maj@k, with every response kept.

    POLICY is a preset of conf/model, a shipped policy, a model folder, an id on the hub, a stored
    trial's id (or how it begins), or sweep:NAME for its finished trials. Settings are those of
    conf/evaluate.yaml; BENCHMARK.KEY=VALUE changes a benchmark's definition. What is stored is not
    computed again: after a kill the same command goes on, a larger samples= adds to it. Without a
    POLICY, the report name=NAME is drawn again.

    \b
    python -m cegppo_lab evaluate table_walk
    python -m cegppo_lab evaluate table_walk sweep:quickstart samples=8
    python -m cegppo_lab evaluate smollm2-135m benchmarks=[aime24] \\
        aime24.task.path=aime24.jsonl problems=20 samples=2 max_tokens=64
    """
    from cegppo_lab.evaluate.settings import read_settings
    from cegppo_lab.store import RunStore
    from cegppo_lab.sweep.plan import check_writable

    policies = [word for word in words if "=" not in word]
    given = [word for word in words if "=" in word]
    settings = read_settings(given, path_values(**paths))
    config = settings.config
    store = RunStore(config.runtime.store)
    if policies:
        from cegppo_lab.evaluate.plan import make_plan
        from cegppo_lab.evaluate.reports import write_manifest

        plan = make_plan(policies, settings, lambda line: click.echo(f"note: {line}"))
        check_writable(config.runtime.store, config.runtime.report)
        _compute(plan, store)
        write_manifest(store, plan)
    sweeps = [word.removeprefix("sweep:") for word in policies if word.startswith("sweep:")]
    _show(store, config, sweeps)


def _compute(plan: Plan, store: RunStore) -> None:
    """Draw the missing samples, one policy in memory at a time."""
    from rich.console import Console

    from cegppo_lab.evaluate.progress import EvaluationProgress
    from cegppo_lab.evaluate.run import Engines, complete

    engines = Engines(plan)
    try:
        with EvaluationProgress(Console()) as progress:
            for evaluation in plan.evaluations:
                name = f"{evaluation.policy.label}  {evaluation.shown_name}"
                complete(
                    evaluation,
                    store,
                    partial(engines.of, evaluation),
                    plan.batch_size,
                    say=progress.say,
                    advance=partial(progress.update, name),
                )
    except KeyboardInterrupt:
        click.echo("stopped; the same command goes on from here")
        sys.exit(EXIT_INTERRUPTED)


def _show(store: RunStore, config: EvaluateConfig, sweeps: list[str]) -> None:
    """Draw the report of a named evaluation and mirror it; MLflow never stands in the way."""
    from analysis.evaluations import Entry
    from cegppo_lab.evaluate.reports import read_manifest

    manifest = read_manifest(store, config.name)
    entries = [Entry(**entry) for entry in manifest["entries"]]
    _tell_report(store, config, entries)
    uri = config.runtime.mlflow
    try:
        _mirror(store, config.name, entries, uri, sweeps)
    except LabError as error:
        click.echo(f"note: {error}")
    else:
        click.echo(f"runs in MLflow: python -m cegppo_lab ui   ({uri})")


def _tell_report(store: RunStore, config: EvaluateConfig, entries: list[Entry]) -> None:
    from analysis.evaluations import write_evaluations

    out = Path(config.runtime.report) / config.name
    result = write_evaluations(store.evaluations, config.name, entries, out)
    click.echo(result.text)
    for problem in result.problems:
        click.echo(f"note: {problem}")
    click.echo(f"report: {shown_path(result.path_to_index)}")


def _mirror(store: RunStore, name: str, entries: list[Entry], uri: str, sweeps: list[str]) -> None:
    """The evaluations, and the sweeps whose trials were given verdicts."""
    from analysis.evaluations.entry import read
    from cegppo_lab.tracking import mirror_evaluations, sync

    scores = [_scores(done) for done in read(store.evaluations, entries)]
    mirror_evaluations(store, name, scores, uri)
    sync(store, sweeps, uri)


def _scores(done: Evaluated) -> Scores:
    from analysis.stats import pass_at
    from cegppo_lab.evaluate.plan import part_name
    from cegppo_lab.tracking import Scores

    entry, problems = done.entry, done.problems
    return Scores(
        policy=entry.policy,
        benchmark=part_name(entry.benchmark, entry.problems),
        evaluation_id=entry.evaluation_id,
        k=done.k,
        average=float(problems["avg"].mean()),
        passed=float(pass_at(problems, done.k).mean()),
        majority=float(problems["maj"].mean()),
        length=float(problems["length"].mean()),
        truncated=float(problems["truncated"].mean()),
    )
