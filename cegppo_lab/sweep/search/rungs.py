"""Rungs: where the runs of a search pause, and which points its pruner gives up there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from cegppo_lab.sentinel import StopRules
from cegppo_lab.store import STOPPED, Status
from cegppo_lab.sweep.plan import Plan
from cegppo_lab.sweep.search.study import Study

if TYPE_CHECKING:
    from cegppo_lab.sweep.search.definition import Search


def until(plan: Plan, rung: int | None) -> Plan:
    """``plan`` with its runs paused at ``rung``."""
    if rung is None:
        return plan
    rules = StopRules(**plan.spec.stop.tree(), at_step={"step": rung})
    return replace(plan, spec=plan.spec.model_copy(update={"stop": rules}))


def prune(
    search: Search, study: Study, numbers: set[int], rung: int, say: Callable[[str], None]
) -> None:
    """Give up those of the points ``numbers`` that the pruner gives up at ``rung``.

    Their runs are marked before the study is told: a kill in between is mended by the next call.
    """
    pruner, store = search.settings.pruner, search.fixed.store()
    for point in [point for point in study.open() if point.number in numbers]:
        if not study.gives_up(point, rung, pruner.make(search.first_rung)):
            continue
        reason = f"pruned at step {rung} by {pruner.name}, search {search.fixed.spec.name}"
        rule = {"pruned": {"search": search.fixed.spec.name}}
        for trial in search.trials(point.params):
            with store.writer(trial.trial_id, trial.stored_config()) as run:
                status = run.status()
                if _paused(status):
                    at = {"step": status.step, "steps": status.steps}
                    run.set_status(STOPPED, reason=reason, rule=rule, **at)
        study.prune(point, reason)
        said = ", ".join(f"{v:.4g} at {step}" for step, v in point.intermediate_values.items())
        say(f"point {point.number + 1} {reason} ({said})")


def _paused(status: Status) -> bool:
    return status.state == STOPPED and "at_step" in status.rule
