"""One attempt at one trial: the trainer's records go to the store as they come."""

from __future__ import annotations

import traceback
from collections.abc import Iterator

from cegppo_lab import provenance
from cegppo_lab.store import DONE, FAILED, RUNNING, STOPPED, RunStore, RunWriter, StepRecord
from cegppo_lab.trainers.base import TrainingStoppedError, make_trainer
from cegppo_lab.trial import Trial


def is_finished(store: RunStore, trial_id: str) -> bool:
    """Whether a trial needs no more compute: done, or stopped by a rule for good."""
    return store.run(trial_id).status().state in (DONE, STOPPED)


def attempt(store: RunStore, trial: Trial) -> Iterator[StepRecord]:
    """Train ``trial`` to its end, resuming what is in the store; yields each record once stored.

    Yields nothing when the trial is finished already. Closing the iterator early leaves the trial
    to be resumed. A trainer's error is recorded in the trial's status, and raised.
    """
    with store.writer(trial.trial_id, trial.stored_config()) as run:
        if is_finished(store, trial.trial_id):
            return
        yield from _train(run, trial)


def _train(run: RunWriter, trial: Trial) -> Iterator[StepRecord]:
    steps, done = trial.config.trainer.steps, run.status().step
    run.set_status(RUNNING, step=done, steps=steps)
    try:
        records = make_trainer(trial.config.trainer.name).run(trial.config, run.checkpoints)
        for count, record in enumerate(records):
            if not count:
                used = {"resources": provenance.resources(trial.config.runtime)}
                run.add_provenance(provenance.attempt(max(record.step - 1, 0)) | used)
            run.append(record)
            done = record.step
            run.set_status(RUNNING, step=done, steps=steps)
            yield record
    except TrainingStoppedError as stop:
        run.set_status(STOPPED, reason=str(stop), step=done, steps=steps)
    except Exception as error:
        reason = "".join(traceback.format_exception_only(error)).strip()
        run.set_status(FAILED, reason=reason, step=done, steps=steps)
        raise
    else:
        run.set_status(DONE, step=steps, steps=steps)
