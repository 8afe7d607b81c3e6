"""One attempt at one trial: the trainer's records go to the store as they come."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import closing, suppress

from cegppo_lab import provenance
from cegppo_lab.sentinel import NO_RULES, PausedError, Sentinel, Stop, StopRules
from cegppo_lab.store import DONE, FAILED, RUNNING, STOPPED, RunStore, RunWriter, StepRecord
from cegppo_lab.trainers.base import TrainingStoppedError, make_trainer
from cegppo_lab.trial import Trial


def is_finished(store: RunStore, trial_id: str, rules: StopRules = NO_RULES) -> bool:
    """Whether a trial needs no more compute under these stop rules.

    It is done, or its trainer stopped it for good, or one of ``rules`` did. A stop by another rule,
    or by one with other parameters, is no end: the trial goes on from its last checkpoint.
    """
    status = store.run(trial_id).status()
    return status.state == DONE or (status.state == STOPPED and rules.ask_for(status.rule))


def has_ended(store: RunStore, trial_id: str) -> bool:
    """Whether a trial is done, or was stopped by whatever rule: its numbers are an answer."""
    return store.run(trial_id).status().state in (DONE, STOPPED)


def attempt(store: RunStore, trial: Trial, rules: StopRules = NO_RULES) -> Iterator[StepRecord]:
    """Train ``trial`` to its end, resuming what is in the store; yields each record once stored.

    Yields nothing when the trial is finished already, or when one of ``rules`` stops it for what is
    in the store. Closing the iterator early leaves the trial to be resumed. A trainer's error is
    recorded in the trial's status, and raised.
    """
    with store.writer(trial.trial_id, trial.stored_config()) as run:
        if not is_finished(store, trial.trial_id, rules):
            yield from _train(run, trial, rules)


def _train(run: RunWriter, trial: Trial, rules: StopRules) -> Iterator[StepRecord]:
    steps, done = trial.config.trainer.steps, run.status().step
    history = run.steps() if rules.on() else []
    sentinel = Sentinel(rules, history)
    if sentinel.stop and len(history) < steps:
        _set_stopped(run, sentinel.stop, len(history), steps)
        return
    run.set_status(RUNNING, step=done, steps=steps)
    try:
        records = make_trainer(trial.config.trainer.name).run(trial.config, run.checkpoints)
        with closing(records):
            for count, record in enumerate(records):
                if not count:
                    used = {"resources": provenance.resources(trial.config.runtime)}
                    run.add_provenance(provenance.attempt(max(record.step - 1, 0)) | used)
                run.append(record)
                done = record.step
                run.set_status(RUNNING, step=done, steps=steps)
                yield record
                # Where every step is stored there is nothing left to save.
                if max(done, len(history)) < steps and (stop := sentinel.see(record)):
                    if stop.pauses:
                        with suppress(PausedError, StopIteration):
                            records.throw(PausedError())
                    _set_stopped(run, stop, done, steps)
                    return
    except TrainingStoppedError as stop:
        run.set_status(STOPPED, reason=str(stop), step=done, steps=steps)
    except Exception as error:
        reason = "".join(traceback.format_exception_only(error)).strip()
        run.set_status(FAILED, reason=reason, step=done, steps=steps)
        raise
    else:
        run.set_status(DONE, reason=sentinel.note(), step=steps, steps=steps)


def _set_stopped(run: RunWriter, stop: Stop, step: int, steps: int) -> None:
    run.set_status(STOPPED, reason=stop.reason, step=step, steps=steps, rule=stop.rule)
