"""Ray Tune runs the trials that are missing; their records go to the store, not through Ray.

Workers are reused between trials. Tune decides what runs where; what was computed is known from
the store alone, so a killed driver loses nothing and the next call goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from ray import tune

from cegppo_lab.config import RuntimeConfig
from cegppo_lab.execute import is_finished
from cegppo_lab.processes import temporary_folder
from cegppo_lab.sentinel import StopRules
from cegppo_lab.store import RunStore
from cegppo_lab.sweep.cluster import Cluster, cluster
from cegppo_lab.sweep.follow import Follower, id_of
from cegppo_lab.sweep.meter import Meter
from cegppo_lab.sweep.nodes import concurrency, needs
from cegppo_lab.sweep.plan import Plan, state_of
from cegppo_lab.sweep.progress import Progress
from cegppo_lab.sweep.worker import TuneTrial, message
from cegppo_lab.trial import Trial

_POLL_S = 1.0


@dataclass(frozen=True)
class Outcome:
    """How a sweep's call ended: trials by state, after it."""

    states: dict[str, str]
    interrupted: bool
    over_budget: bool = False

    def count(self, state: str) -> int:
        """How many trials are in ``state``."""
        return list(self.states.values()).count(state)


def run_trials(
    plan: Plan,
    trials: list[Trial],
    progress: Callable[[int], Progress],
    nudge: Callable[[], None] = lambda: None,
    meter: Meter | None = None,
    held: Cluster | None = None,
) -> Outcome:
    """Train those of ``trials`` that are not finished; returns when no more can be done.

    ``progress`` makes the display for so many trials at a time; ``nudge`` is called when there is
    something new to mirror. Ctrl-C stops the trials so that the next call resumes them, and so
    does the end of ``meter``'s budget. A trial that another process trains is left to it, and taken
    up when that process ends without finishing it. ``held``: the cluster to run on, by default the
    one that the sweep names, for the time of the call.

    Raises ``LabError`` when there is no cluster, or it cannot run the trials, before any starts.
    """
    store = plan.store()
    missing = [trial for trial in trials if not is_finished(store, trial.trial_id, plan.spec.stop)]
    unfinished = False
    if missing and meter and meter.exhausted:
        unfinished = True
    elif missing:
        with nullcontext(held) if held else cluster(plan.spec.cluster) as used:
            used.check(store, missing)
            if not used.local:
                for trial in missing:
                    store.enter(trial.trial_id, trial.stored_config())
            runtimes = [trial.config.runtime for trial in missing]
            with progress(concurrency(runtimes, used.nodes())) as display:
                by_id = {trial.trial_id: trial for trial in missing}
                follower = Follower(
                    store, by_id, plan.runtime, display, nudge, meter, plan.spec.stop
                )
                unfinished = _fit_all(plan, by_id, follower, entered=not used.local)
    states = {trial.trial_id: state_of(store, trial, plan.spec.stop) for trial in trials}
    over_budget = unfinished and meter is not None and meter.exhausted
    return Outcome(states, unfinished and not over_budget, over_budget)


def _fit_all(plan: Plan, trials: dict[str, Trial], follower: Follower, *, entered: bool) -> bool:
    """Run all, those that other processes train when these let go; whether it was broken off."""
    now = set(trials)
    while now:
        wanted = [trial for key, trial in trials.items() if key in now]
        messages = [message(plan.store(), each, plan.spec.stop, entered=entered) for each in wanted]
        if _fit(plan, messages, follower):
            return True
        try:
            now = _let_go(plan.store(), follower, plan.spec.stop)
        except KeyboardInterrupt:
            return True
        if follower.busy and not now:
            return True
    return False


def _let_go(store: RunStore, follower: Follower, rules: StopRules) -> set[str]:
    """Wait for the trials that others train: those to take up now, none when all are finished.

    Also none, with some still busy, when the budget ends meanwhile.
    """
    while follower.busy and not (follower.meter and follower.meter.exhausted):
        # Asked in this order: what a process does last is to let go.
        free = {key for key in follower.busy if not store.run(key).locked()}
        finished = {key for key in free if is_finished(store, key, rules)}
        follower.busy -= free
        for key in sorted(finished):
            follower.settled(key)
        if free - finished:
            return free - finished
        if follower.busy:
            time.sleep(_POLL_S)
    return set()


def _fit(plan: Plan, messages: list[dict[str, Any]], follower: Follower) -> bool:
    """Run Tune over the trials in ``messages``; whether it ended before they did."""
    spans_nodes = any(packed["tree"]["runtime"]["nodes"] > 1 for packed in messages)
    with temporary_folder("cegppo-lab-tune-") as scratch:
        tuner = tune.Tuner(
            tune.with_resources(TuneTrial, _resources),
            param_space={"trial": tune.grid_search(messages)},
            tune_config=tune.TuneConfig(
                reuse_actors=True,
                max_concurrent_trials=1 if spans_nodes else None,
                trial_name_creator=id_of,
                trial_dirname_creator=id_of,
            ),
            run_config=tune.RunConfig(
                storage_path=str(scratch),
                stop=follower.meter,
                failure_config=tune.FailureConfig(max_failures=plan.runtime.retries),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                callbacks=[follower],
                verbose=0,
            ),
        )
        results = tuner.fit()
    ended = [result for result in results if result.error or result.metrics.get("done")]
    return len(ended) < len(messages)


def _resources(config: dict[str, Any]) -> tune.PlacementGroupFactory:
    """What Ray sets aside for the trial of one message."""
    runtime = RuntimeConfig.model_validate(config["trial"]["tree"]["runtime"])
    return tune.PlacementGroupFactory([needs(runtime)])
