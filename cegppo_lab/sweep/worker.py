"""What runs in a Tune worker: one attempt at a trial, record by record."""

from __future__ import annotations

import os
import platform
import time
import traceback
from collections.abc import Iterator
from typing import Any

from ray import tune

from cegppo_lab import metrics as names
from cegppo_lab.algorithms import outside
from cegppo_lab.config import parse_run
from cegppo_lab.errors import LabError
from cegppo_lab.faults import (
    TimeLimitError,
    WorkerLog,
    limited_attempt,
    reason_of,
    record_failure,
)
from cegppo_lab.models import portable
from cegppo_lab.sentinel import StopRules
from cegppo_lab.store import RunStore, StepRecord
from cegppo_lab.store.run import BusyError
from cegppo_lab.trial import Trial

BUSY, REASON, TRAINED, SHOWN = "busy", "reason", "trained", "shown"
"""Keys of what a worker reports: another process has the trial; why it failed for good; the step
that was trained, and what it measured."""

_SHOWN = (names.REWARD_MEAN, names.ENTROPY)
_NAP_S = 0.5


class NoStoreError(LabError):
    """The trial's folder, which the driver made, is not there."""


class TuneTrial(tune.Trainable):
    """One trial in a Tune worker: each ``step`` is one record of an attempt.

    An error that a retry may mend is raised, which ends the process: after a CUDA error nothing
    else can be done in it. What no retry mends ends the trial with a ``REASON``.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Take up the trial described by ``config``, as :func:`message` packs it."""
        packed = config["trial"]
        self._store, self._entered = RunStore(packed["store"]), packed["entered"]
        outside.admit(packed["modules"])
        self._trial = Trial(parse_run(packed["tree"]), packed["trial_id"], packed["arm"])
        self._rules = StopRules(**packed["rules"])
        self._begin = time.monotonic() + packed["wait_s"]
        self._records: Iterator[StepRecord] | None = None
        self._log: WorkerLog | None = None

    def step(self) -> dict[str, Any]:
        """Train one step; the last call reports ``done``."""
        # In short naps, so that Ctrl-C need not wait for the end of a backoff.
        if (left := self._begin - time.monotonic()) > 0:
            time.sleep(min(left, _NAP_S))
            return {}
        try:
            record = next(self._attempt(), None)
        except NoStoreError as error:
            return {tune.result.DONE: True, REASON: str(error)}
        except BusyError:
            return {tune.result.DONE: True, BUSY: True}
        except (LabError, TimeLimitError) as error:
            self._fail(error)
            return {tune.result.DONE: True, REASON: reason_of(error)}
        except Exception as error:
            self._fail(error)
            raise
        if record is None:
            return {tune.result.DONE: True}
        shown = {key: record.metrics[key] for key in _SHOWN if key in record.metrics}
        return {TRAINED: record.step, SHOWN: shown}

    def _attempt(self) -> Iterator[StepRecord]:
        if self._records is None:
            run = self._store.run(self._trial.trial_id)
            if self._entered and not run.config():
                # A node that joined after the check. It must not begin a store of its own.
                raise NoStoreError(
                    f"node {platform.node()} does not share the store {self._store.root}; mount "
                    "it there or remove that node, then the same command goes on"
                )
            if not run.locked():
                self._log = WorkerLog(run.path)
            self._records = limited_attempt(self._store, self._trial, self._rules)
        return self._records

    def _fail(self, error: Exception) -> None:
        if not isinstance(error, (LabError, TimeLimitError)):
            # Not through sys.stderr: whatever that is here, the log is the descriptor.
            os.write(2, traceback.format_exc().encode())
        record_failure(self._store, self._trial, reason_of(error), self._rules)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Let go of the trial before and take up the next one in the same process."""
        self.cleanup()
        self.setup(new_config)
        return True

    def cleanup(self) -> None:
        """Release the trial; it can be resumed."""
        for each in (self._records, self._log):
            if each is not None:
                each.close()


def message(
    store: RunStore, trial: Trial, rules: StopRules, *, entered: bool = False
) -> dict[str, Any]:
    """A trial as plain values, for another process in another folder to rebuild.

    ``entered``: the trial has its folder in the store; a worker that does not see it writes none.
    ``modules``: where modules of the user's own lie, for a worker that was not sent them.
    ``wait_s``: seconds that the worker waits before it begins.
    """
    tree = trial.config.tree()
    tree["model"]["path"] = portable(tree["model"]["path"])
    return {
        "store": str(store.root.resolve()),
        "tree": tree,
        "trial_id": trial.trial_id,
        "arm": trial.arm,
        "rules": rules.tree(),
        "entered": entered,
        "modules": sorted({str(found.root) for found in outside.loaded()}),
        "wait_s": 0.0,
    }
