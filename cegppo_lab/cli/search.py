"""What `sweep` does with a sweep that has a search."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from cegppo_lab.cli.common import EXIT_FAILED, EXIT_INTERRUPTED
from cegppo_lab.cli.describe import trial_text
from cegppo_lab.cli.mirrored import draw, mirrored, run
from cegppo_lab.errors import LabError
from cegppo_lab.sweep.budget import parse_budget

if TYPE_CHECKING:
    from cegppo_lab.sweep.cluster import Cluster
    from cegppo_lab.sweep.meter import Meter
    from cegppo_lab.sweep.plan import Plan
    from cegppo_lab.sweep.search.definition import Search
    from cegppo_lab.sweep.search.study import Study
    from cegppo_lab.tracking import Mirror
    from cegppo_lab.trial import Trial


def search(plan: Plan, limit: int | None, budget: str | None, rehearse: bool) -> None:
    """Search from where the study stands: suggest, train, mirror to MLflow, write the report.

    ``limit``: points that this call tries at most; ``budget``: hours that it may use.
    Raises ``LabError`` before anything starts for what is wrong anywhere in the space.
    """
    from cegppo_lab.cli.runs import check_trials
    from cegppo_lab.sweep.confounds import refuse_confounds
    from cegppo_lab.sweep.meter import Meter
    from cegppo_lab.sweep.search.definition import Search

    if rehearse:
        raise LabError("--rehearse: a search does not take it; rehearse a sweep of such runs")
    allowed = parse_budget(budget, plan.runtime) if budget else None
    made = Search(plan, plan.spec.search)
    corners = made.checked()
    refuse_confounds(corners.confounds())
    plan.check_writable()
    check_trials(corners, corners.trials)
    meter = Meter(allowed, plan.runtime) if allowed else None
    with made.study() as study:
        ended = _run_and_report(made, study, limit, meter)
        _end(made, study, ended, limit, meter)


def _run_and_report(made: Search, study: Study, limit: int | None, meter: Meter | None) -> bool:
    """Search, draw and mirror; whether the search came to its end, or to ``limit``."""
    from cegppo_lab.sweep.search.driver import run_search

    plan = made.fixed
    if plan.spec.name not in plan.store().manifests():
        plan.store().write_manifest(made.plan([]).manifest())
    with mirrored(plan) as mirror:
        try:
            with ExitStack() as stack:
                runner = _Runner(mirror, meter, stack)
                ended = run_search(made, study, runner, click.echo, limit)
        except KeyboardInterrupt:  # between two batches; Tune takes it while it trains
            ended = False
        draw(plan)
    return ended


class _Runner:
    """Trains batch after batch on one cluster, joined in ``stack`` when there is work for it."""

    def __init__(self, mirror: Mirror, meter: Meter | None, stack: ExitStack) -> None:
        self._mirror, self._meter, self._stack = mirror, meter, stack
        self._held: Cluster | None = None

    def __call__(self, plan: Plan, trials: list[Trial]) -> bool:
        """Train those of ``trials`` that are not finished; False when stopped before their end."""
        from cegppo_lab.execute import is_finished
        from cegppo_lab.sweep.cluster import cluster

        store, rules = plan.store(), plan.spec.stop
        if all(is_finished(store, trial.trial_id, rules) for trial in trials):
            return True
        if self._held is None and not (self._meter and self._meter.exhausted):
            self._held = self._stack.enter_context(cluster(plan.spec.cluster, click.echo))
        outcome = run(plan, trials, self._mirror.nudge, self._meter, self._held)
        return not (outcome.interrupted or outcome.over_budget)


def _end(made: Search, study: Study, ended: bool, limit: int | None, meter: Meter | None) -> None:
    """Say what is left to do, with the exit status that tells it to a script."""
    points, total = study.points(), made.settings.points
    tried = len(points) - len(study.open())
    if not ended and meter and meter.exhausted:
        click.echo(f"budget of {meter.budget.text()} used up; {tried} of {total} points tried")
        return _tell_left_out(made, study)
    if not ended:
        click.echo("stopped; the same command goes on from here")
        sys.exit(EXIT_INTERRUPTED)
    if limit and tried < total:
        click.echo(f"{tried} of {total} points tried; the same command goes on")
    if failed := sum(point.state.name == "FAIL" for point in points):
        click.echo(f"{failed} of {total} points failed")
        sys.exit(EXIT_FAILED)


def _tell_left_out(made: Search, study: Study) -> None:
    """The runs and the number of points that a budget did not reach."""
    from cegppo_lab.sweep.plan import state_of
    from cegppo_lab.sweep.search.outlook import outlook

    now = outlook(made, study)
    click.echo("left out:")
    for trial in now.left:
        state = state_of(now.plan.store(), trial, now.plan.spec.stop)
        click.echo(f"  {trial_text(trial, state)}")
    click.echo(f"  {now.unsuggested} points that are not suggested yet")
    click.echo("the same command goes on from here, with a budget of its own")
