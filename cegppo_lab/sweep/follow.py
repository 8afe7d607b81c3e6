"""What the driver does when Tune tells it that a trial started, trained a step, failed or ended."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from ray import cloudpickle, tune
from ray.exceptions import ActorUnavailableError, RayActorError, RayTaskError

from cegppo_lab.config import RuntimeConfig
from cegppo_lab.faults import record_failure
from cegppo_lab.sentinel import StopRules
from cegppo_lab.store import FAILED, RunStore
from cegppo_lab.sweep.meter import Meter
from cegppo_lab.sweep.progress import Progress
from cegppo_lab.sweep.worker import BUSY, REASON, SHOWN, TRAINED
from cegppo_lab.trial import Trial

_KILLED = "worker died without a word (killed, out of memory, or its node is gone)"
_NODE_DIED = "its node has died"
_NODE_GONE = "its node is gone; goes on elsewhere from its last checkpoint"
LOST_NODES = 5
"""How often a trial may lose its node in one call and keep its retries; beyond that the trial may
be what ends its nodes."""
_DETAIL = "Worker exit detail: "


class Follower(tune.Callback):
    """Tells the progress display, the MLflow mirror and the budget's meter what happens.

    ``busy`` has the trials that another process trains. A worker that was killed could store no
    reason: this does.
    """

    def __init__(
        self,
        store: RunStore,
        trials: Mapping[str, Trial],
        runtime: RuntimeConfig,
        progress: Progress,
        nudge: Callable[[], None],
        meter: Meter | None,
        rules: StopRules,
    ) -> None:
        self._store, self._trials, self._runtime = store, trials, runtime
        self._progress, self._nudge, self.meter = progress, nudge, meter
        self._rules = rules
        self._failures: Counter[str] = Counter()
        self._losses: Counter[str] = Counter()
        self.busy: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks to restore them later; what we restore from is the store.
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """A trial has got its resources."""
        if self.meter:
            self.meter.started(id_of(trial))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        """A record was stored, or the worker waits."""
        if TRAINED in result:
            self._progress.update(id_of(trial), result[TRAINED], result[SHOWN])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """A trial ended by itself, or the call did."""
        self._release(trial)
        result = trial.last_result or {}
        if result.get(BUSY):
            self.busy.add(id_of(trial))
            self._progress.finish(id_of(trial), "waiting", "another process trains it")
        elif reason := result.get(REASON):
            self._progress.finish(id_of(trial), FAILED, reason)
        else:
            self.settled(id_of(trial))
        self._nudge()

    def settled(self, trial_id: str) -> None:
        """A trial is in the state that the store says, whoever brought it there."""
        status = self._store.run(trial_id).status()
        self._progress.update(trial_id, status.step, {})
        self._progress.finish(trial_id, status.state, status.reason)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """A trial failed and will be tried again, by a new worker that first waits."""
        self._release(trial)
        if self._lost(trial):
            if not _error_of(trial).preempted:  # which Tune does not count
                trial.max_failures += 1
            trial.config["trial"]["wait_s"] = self._runtime.retry_backoff_s
            self._progress.finish(id_of(trial), "waiting", _NODE_GONE)
            return
        self._failures[id_of(trial)] += 1
        failures = self._failures[id_of(trial)]
        wait_s = self._runtime.retry_backoff_s * 2 ** (failures - 1)
        trial.config["trial"]["wait_s"] = wait_s
        told = f"retry {failures} of {self._runtime.retries} in {wait_s:g} s"
        self._progress.finish(id_of(trial), "retrying", f"{told}: {self._reason(trial)}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """A trial failed, for good in this call."""
        self._release(trial)
        if self._lost(trial):  # without a retry to give back: when Tune is through with the others
            self.busy.add(id_of(trial))
            self._progress.finish(id_of(trial), "waiting", _NODE_GONE)
            return
        self._progress.finish(id_of(trial), FAILED, self._reason(trial))
        self._nudge()

    def _lost(self, trial: Any) -> bool:
        """Whether the trial's node is gone, and no more often than it may."""
        error = _error_of(trial)
        unreachable = isinstance(error, ActorUnavailableError) or _NODE_DIED in str(error)
        if not (isinstance(error, RayActorError) and (error.preempted or unreachable)):
            return False
        self._losses[id_of(trial)] += 1
        return self._losses[id_of(trial)] <= LOST_NODES

    def _reason(self, trial: Any) -> str:
        """Why a trial failed; stored by its worker, or now where the worker could not."""
        error = _error_of(trial)
        status = self._store.run(id_of(trial)).status()
        if isinstance(error, RayTaskError) and status.state == FAILED:
            return status.reason
        reason = _reason_of(error)
        record_failure(self._store, self._trials[id_of(trial)], reason, self._rules)
        return reason

    def _release(self, trial: Any) -> None:
        if self.meter:
            self.meter.ended(id_of(trial))


def _error_of(trial: Any) -> Exception | None:
    """What ended the trial's worker, from the driver's own file: Tune's storage has it later."""
    path = trial.pickled_error_file
    if not path or not os.path.exists(path):
        return trial.get_pickled_error()
    with open(path, "rb") as file:
        return cloudpickle.load(file)


def _reason_of(error: Exception | None) -> str:
    """The end of a worker in one line, with what Ray knows of it."""
    told = str(error or "").strip()
    if isinstance(error, RayTaskError):
        return told.splitlines()[-1]
    detail = told.partition(_DETAIL)[2].splitlines()
    return f"{_KILLED}: {detail[0].partition('. There are')[0]}" if detail else _KILLED


def id_of(tune_trial: Any) -> str:
    """The id of our trial that Tune's stands for."""
    return tune_trial.config["trial"]["trial_id"]
