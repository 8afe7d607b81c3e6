"""Commands that train, or say what would be trained."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING

import click

from cegppo_lab.cli.common import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    path_option,
    path_values,
    split_name,
    words_argument,
)
from cegppo_lab.cli.describe import trial_text
from cegppo_lab.cli.mirrored import draw, mirrored, run
from cegppo_lab.errors import LabError

if TYPE_CHECKING:
    from cegppo_lab.sweep.budget import Budget
    from cegppo_lab.sweep.dispatch import Outcome
    from cegppo_lab.sweep.plan import Plan
    from cegppo_lab.trial import Trial

FINISHED = ("done", "stopped")


@click.command()
@words_argument
@click.option("--limit", type=click.IntRange(min=1), help="Run the first N trials of the plan.")
@click.option(
    "--budget", metavar="HOURS", help="Stop when used up, e.g. 40gpuh, 12cpuh, 8h (wall time)."
)
@click.option(
    "--rehearse", is_flag=True, help="Run a verl sweep small and short on this machine's CPU."
)
@path_option("store")
@path_option("mlflow")
@path_option("report")
def sweep(
    words: tuple[str, ...],
    limit: int | None,
    budget: str | None,
    rehearse: bool,
    **paths: str | None,
) -> None:
    """Run a sweep: train what is missing, mirror it to MLflow, write the report.

    NAME is a file of sweeps/ (default: quickstart) or a path to one. Words reach the sweep's own
    keys and every trial's. Trials that were run before, by any sweep, are not run again.

    \b
    python -m cegppo_lab sweep
    python -m cegppo_lab sweep beta_grid seeds=[1,2,3,4,5]
    python -m cegppo_lab sweep quickstart trainer.steps=20 name=short --limit 4
    python -m cegppo_lab sweep paper/beta_grid_1p5b --rehearse --limit 1
    python -m cegppo_lab sweep paper/beta_grid_1p5b --budget 40gpuh
    """
    from cegppo_lab.sweep.budget import parse_budget
    from cegppo_lab.sweep.confounds import refuse_confounds
    from cegppo_lab.sweep.plan import make_plan

    name, overrides = split_name(words)
    plan = make_plan(name, overrides, path_values(**paths))
    if plan.spec.search:
        from cegppo_lab.cli.search import search

        return search(plan, limit=limit, budget=budget, rehearse=rehearse)
    refuse_confounds(plan.confounds())
    if rehearse:
        plan = _rehearsal(plan)
    allowed = parse_budget(budget, plan.runtime) if budget else None
    plan.check_writable()
    trials = plan.first(limit)
    check_trials(plan, trials)
    plan.store().write_manifest(plan.manifest())
    end(_run_and_report(plan, trials, allowed), trials, allowed)


def end(outcome: Outcome, trials: list[Trial], budget: Budget | None = None) -> None:
    """Say what is left to do, with the exit status that tells it to a script."""
    if outcome.over_budget and budget:
        left = [trial for trial in trials if outcome.states[trial.trial_id] not in FINISHED]
        click.echo(f"budget of {budget.text()} used up; {len(left)} of {len(trials)} left out:")
        for trial in left:
            click.echo(f"  {trial_text(trial, outcome.states[trial.trial_id])}")
        click.echo("the same command goes on from here, with a budget of its own")
        return
    if outcome.interrupted:
        click.echo("stopped; the same command goes on from here")
        sys.exit(EXIT_INTERRUPTED)
    if failed := len(trials) - outcome.count("done") - outcome.count("stopped"):
        click.echo(f"{failed} of {len(trials)} trials failed; the same command tries them again")
        sys.exit(EXIT_FAILED)


def check_trials(plan: Plan, trials: list[Trial]) -> None:
    """Let the trainer of every arm that has something to run say what would fail it."""
    from cegppo_lab.execute import is_finished
    from cegppo_lab.trainers.base import make_trainer

    missing = [
        trial for trial in trials if not is_finished(plan.store(), trial.trial_id, plan.spec.stop)
    ]
    for arm, trial in {trial.arm: trial for trial in missing}.items():
        try:
            make_trainer(trial.config.trainer.name).check(trial.config)
        except LabError as error:
            raise LabError(f"arm {arm!r}: {error}") from None


def _rehearsal(plan: Plan) -> Plan:
    from cegppo_lab.sweep.rehearsal import changes_in_verl, rehearse

    rehearsed, changes = rehearse(plan)
    listed = {"rehearsed otherwise than on the cluster (ours):": changes}
    listed["and in verl's config:"] = changes_in_verl(plan)
    for title, found in listed.items():
        click.echo(title)
        for change in found:
            click.echo(f"  {change.key}: {change.was} -> {change.now}   ({change.why})")
    return rehearsed


def tell_states(outcome: Outcome) -> None:
    """Print how many trials ended how."""
    counts = Counter(outcome.states.values())
    click.echo(", ".join(f"{count} {state}" for state, count in sorted(counts.items())))


def _run_and_report(plan: Plan, trials: list[Trial], budget: Budget | None) -> Outcome:
    """Train, draw and mirror."""
    from cegppo_lab.sweep.meter import Meter

    meter = Meter(budget, plan.runtime) if budget else None
    with mirrored(plan) as mirror:
        outcome = run(plan, trials, mirror.nudge, meter)
        tell_states(outcome)
        draw(plan)
    return outcome


@click.command()
@click.argument("words", nargs=-1, metavar="[KEY=VALUE]...")
@path_option("store")
@path_option("mlflow")
def train(words: tuple[str, ...], **paths: str | None) -> None:
    """Train one run in this process, without Ray; it joins the sweep `train` of the store.

    \b
    python -m cegppo_lab train
    python -m cegppo_lab train algorithm=dapo seed=3 trainer.steps=20
    python -m cegppo_lab train task=chain model=chain algorithm.beta1='{0:0.0,32:0.5}'
    """
    from cegppo_lab.faults import limited_attempt
    from cegppo_lab.sweep.single import single_run, stop_rules
    from cegppo_lab.tracking import sync

    if words and "=" not in words[0]:
        raise LabError(f"train takes key=value words, not {words[0]!r}; to run a sweep: sweep NAME")
    rules, words = stop_rules(words)
    trial, store, mlflow = single_run(words, path_values(**paths))
    click.echo(f"trial {trial.trial_id}  {trial.arm}  seed {trial.seed}")
    for record in limited_attempt(store, trial, rules):
        _tell_record(record, trial.config.trainer.steps)
    status = store.run(trial.trial_id).status()
    click.echo(f"{status.state} {status.reason}".strip())
    try:
        sync(store, ["train"], mlflow)
    except LabError as error:
        click.echo(f"note: {error}")
    click.echo("report: python -m cegppo_lab report train")


def _tell_record(record: object, steps: int) -> None:
    from cegppo_lab import metrics as names

    columns = {
        "reward": names.REWARD_MEAN,
        "entropy": names.ENTROPY,
        "kl": names.PPO_KL,
        "grad": names.GRAD_NORM,
    }
    values = "".join(
        f"  {title} {record.metrics[key]:.4g}"
        for title, key in columns.items()
        if key in record.metrics
    )
    for evaluation in record.evals:
        mean = sum(evaluation.correct) / len(evaluation.correct)
        values += f"  {evaluation.benchmark} {mean:.3f}"
    click.echo(f"step {record.step}/{steps}{values}")
