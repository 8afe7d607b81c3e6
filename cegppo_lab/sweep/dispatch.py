"""Ray Tune runs the trials that are missing; their records go to the store, not through Ray.

Workers are reused between trials. Tune decides what runs where; what was computed is known from
the store alone, so a killed driver loses nothing and the next call goes on from there.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune

from cegppo_lab import metrics as names
from cegppo_lab.config import parse_run
from cegppo_lab.execute import attempt, is_finished
from cegppo_lab.models import portable
from cegppo_lab.processes import watched
from cegppo_lab.store import FAILED, RunStore, StepRecord
from cegppo_lab.sweep.budget import Budget
from cegppo_lab.sweep.meter import Meter
from cegppo_lab.sweep.plan import Plan, state_of
from cegppo_lab.sweep.progress import Progress
from cegppo_lab.trial import Trial

_SHOWN = (names.REWARD_MEAN, names.ENTROPY)


@dataclass(frozen=True)
class Outcome:
    """How a sweep's call ended: trials by state, after it."""

    states: dict[str, str]
    interrupted: bool
    over_budget: bool = False

    def count(self, state: str) -> int:
        """How many trials are in ``state``."""
        return list(self.states.values()).count(state)


class TuneTrial(tune.Trainable):
    """One trial in a Tune worker: each ``step`` is one record of :func:`attempt`."""

    def setup(self, config: dict[str, Any]) -> None:
        """Take up the trial described by ``config``, as :func:`_message` packs it."""
        message = config["trial"]
        store = RunStore(message["store"])
        trial = Trial(parse_run(message["tree"]), message["trial_id"], message["arm"])
        self._records: Iterator[StepRecord] = attempt(store, trial)

    def step(self) -> dict[str, Any]:
        """Train one step; the last call reports ``done``."""
        record = next(self._records, None)
        if record is None:
            return {tune.result.DONE: True}
        shown = {key: record.metrics[key] for key in _SHOWN if key in record.metrics}
        return {"trained": record.step, "shown": shown}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Let go of the trial before and take up the next one in the same process."""
        self.cleanup()
        self.setup(new_config)
        return True

    def cleanup(self) -> None:
        """Release the trial; it can be resumed."""
        self._records.close()


class _Reporter(tune.Callback):
    """Tells the progress display, the MLflow mirror and the budget's meter what happens."""

    def __init__(
        self, store: RunStore, progress: Progress, nudge: Callable[[], None], meter: Meter | None
    ) -> None:
        self._store, self._progress, self._nudge, self.meter = store, progress, nudge, meter

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks to restore them later; what we restore from is the store.
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """A trial has got its resources."""
        if self.meter:
            self.meter.started(_id(trial))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        """A record was stored."""
        if "trained" in result:
            self._progress.update(_id(trial), result["trained"], result["shown"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """A trial ended by itself, or the call did."""
        self._release(trial)
        status = self._store.run(_id(trial)).status()
        self._progress.finish(_id(trial), status.state, status.reason)
        self._nudge()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """A trial failed, for good in this call."""
        self._release(trial)
        status = self._store.run(_id(trial)).status()
        reason = status.reason if status.state == FAILED else _last_line(trial)
        self._progress.finish(_id(trial), FAILED, reason)
        self._nudge()

    def _release(self, trial: Any) -> None:
        if self.meter:
            self.meter.ended(_id(trial))


def _id(tune_trial: Any) -> str:
    return tune_trial.config["trial"]["trial_id"]


def _last_line(trial: Any) -> str:
    """The exception that ended a trial whose worker could not write a status."""
    try:
        lines = Path(trial.error_file).read_text().strip().splitlines()
    except (OSError, TypeError):
        return "the worker died"
    return lines[-1] if lines else "the worker died"


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
    does the end of ``budget``.
    """
    store = plan.store()
    missing = [trial for trial in trials if not is_finished(store, trial.trial_id)]
    unfinished, meter = False, None
    if missing:
        with _cluster() as cpus:
            concurrent = 1 if plan.runtime.nodes > 1 else max(1, int(cpus // plan.runtime.cpus))
            with progress(concurrent) as display:
                meter = Meter(budget, plan.runtime) if budget else None
                unfinished = _fit(plan, missing, _Reporter(store, display, nudge, meter))
    states = {trial.trial_id: state_of(store, trial) for trial in trials}
    over_budget = unfinished and meter is not None and meter.exhausted
    return Outcome(states, unfinished and not over_budget, over_budget)


def _fit(plan: Plan, missing: list[Trial], reporter: _Reporter) -> bool:
    """Run Tune over ``missing``; whether it ended before they did."""
    # A trial that spans nodes asks the running cluster for its GPUs itself, one trial at a time.
    spans_nodes = plan.runtime.nodes > 1
    resources = {"cpu": plan.runtime.cpus, "gpu": 0 if spans_nodes else plan.runtime.gpus}
    with tempfile.TemporaryDirectory(prefix="cegppo-lab-tune-") as scratch:
        tuner = tune.Tuner(
            tune.with_resources(TuneTrial, resources),
            param_space={"trial": tune.grid_search([_message(plan, trial) for trial in missing])},
            tune_config=tune.TuneConfig(
                reuse_actors=True,
                max_concurrent_trials=1 if spans_nodes else None,
                trial_name_creator=_id,
                trial_dirname_creator=_id,
            ),
            run_config=tune.RunConfig(
                storage_path=scratch,
                stop=reporter.meter,
                failure_config=tune.FailureConfig(max_failures=1),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                callbacks=[reporter],
                verbose=0,
            ),
        )
        results = tuner.fit()
    ended = [result for result in results if result.error or result.metrics.get("done")]
    return len(ended) < len(missing)


def _message(plan: Plan, trial: Trial) -> dict[str, Any]:
    """A trial as plain values, for another process in another folder to rebuild."""
    tree = trial.config.tree()
    tree["model"]["path"] = portable(tree["model"]["path"])
    return {
        "store": str(plan.store().root.resolve()),
        "tree": tree,
        "trial_id": trial.trial_id,
        "arm": trial.arm,
    }


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
