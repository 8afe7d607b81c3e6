"""Ray Tune runs the trials that are missing; their records go to the store, not through Ray.

Workers are reused between trials. Tune decides what runs where; what was computed is known from
the store alone, so a killed driver loses nothing and the next call goes on from there.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ray
from ray import tune

from cegppo_lab.execute import is_finished
from cegppo_lab.processes import watched
from cegppo_lab.sentinel import StopRules
from cegppo_lab.store import RunStore
from cegppo_lab.sweep.budget import Budget
from cegppo_lab.sweep.follow import Follower, id_of
from cegppo_lab.sweep.meter import Meter
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
    budget: Budget | None = None,
) -> Outcome:
    """Train those of ``trials`` that are not finished; returns when no more can be done.

    ``progress`` makes the display for so many trials at a time; ``nudge`` is called when there is
    something new to mirror. Ctrl-C stops the trials so that the next call resumes them, and so
    does the end of ``budget``. A trial that another process trains is left to it, and taken up
    when that process ends without finishing it.
    """
    store = plan.store()
    missing = [trial for trial in trials if not is_finished(store, trial.trial_id, plan.spec.stop)]
    unfinished, meter = False, None
    if missing:
        with _cluster() as cpus:
            concurrent = 1 if plan.runtime.nodes > 1 else max(1, int(cpus // plan.runtime.cpus))
            with progress(concurrent) as display:
                meter = Meter(budget, plan.runtime) if budget else None
                by_id = {trial.trial_id: trial for trial in missing}
                follower = Follower(
                    store, by_id, plan.runtime, display, nudge, meter, plan.spec.stop
                )
                unfinished = _fit_all(plan, by_id, follower)
    states = {trial.trial_id: state_of(store, trial, plan.spec.stop) for trial in trials}
    over_budget = unfinished and meter is not None and meter.exhausted
    return Outcome(states, unfinished and not over_budget, over_budget)


def _fit_all(plan: Plan, trials: dict[str, Trial], follower: Follower) -> bool:
    """Run all, those that other processes train when these let go; whether it was broken off."""
    now = set(trials)
    while now:
        if _fit(plan, [trial for key, trial in trials.items() if key in now], follower):
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


def _fit(plan: Plan, missing: list[Trial], follower: Follower) -> bool:
    """Run Tune over ``missing``; whether it ended before they did."""
    # A trial that spans nodes asks the running cluster for its GPUs itself, one trial at a time.
    spans_nodes = plan.runtime.nodes > 1
    resources = {"cpu": plan.runtime.cpus, "gpu": 0 if spans_nodes else plan.runtime.gpus}
    messages = [message(plan.store(), trial, plan.spec.stop) for trial in missing]
    with tempfile.TemporaryDirectory(prefix="cegppo-lab-tune-") as scratch:
        tuner = tune.Tuner(
            tune.with_resources(TuneTrial, resources),
            param_space={"trial": tune.grid_search(messages)},
            tune_config=tune.TuneConfig(
                reuse_actors=True,
                max_concurrent_trials=1 if spans_nodes else None,
                trial_name_creator=id_of,
                trial_dirname_creator=id_of,
            ),
            run_config=tune.RunConfig(
                storage_path=scratch,
                stop=follower.meter,
                failure_config=tune.FailureConfig(max_failures=plan.runtime.retries),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                callbacks=[follower],
                verbose=0,
            ),
        )
        results = tuner.fit()
    ended = [result for result in results if result.error or result.metrics.get("done")]
    return len(ended) < len(missing)


@contextmanager
def _cluster() -> Iterator[float]:
    """A Ray cluster: the one that RAY_ADDRESS names, or a local one for the time of the call."""
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Failures of trials are told by the progress display, in one line each.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    # Said outright: without an address Ray joins whatever cluster was started on this machine.
    address = os.environ.get("RAY_ADDRESS") or "local"
    ray.init(address, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    try:
        with watched():
            yield ray.cluster_resources().get("CPU", 1.0)
    finally:
        ray.shutdown()
