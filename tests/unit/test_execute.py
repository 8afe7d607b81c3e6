"""Attempts at a trial: what the store says after an end, an error, a stop and a break."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cegppo_lab.config import RunConfig
from cegppo_lab.errors import LabError
from cegppo_lab.execute import attempt, is_finished
from cegppo_lab.sentinel import StopRules
from cegppo_lab.store import RunStore, StepRecord
from cegppo_lab.sweep.plan import state_of
from cegppo_lab.trainers.base import TrainingStoppedError
from cegppo_lab.trial import Trial
from tests.unit.counting import Counting, stored_steps


def test_a_finished_trial_is_done_and_not_trained_again(store: RunStore, trial: Trial, use) -> None:
    use(Counting())
    records = list(attempt(store, trial))
    assert [record.step for record in records] == list(range(7))
    run = store.run(trial.trial_id)
    status = run.status()
    assert (status.state, status.reason, status.step, status.steps) == ("done", "", 6, 6)
    assert run.config()["algorithm"]["name"] == "cegppo"
    assert is_finished(store, trial.trial_id)
    again = use(Counting())
    assert list(attempt(store, trial)) == []
    assert again.trained == []
    assert len(run.provenance()) == 1


def test_a_record_is_stored_before_it_is_handed_out(store: RunStore, trial: Trial, use) -> None:
    use(Counting())
    for record in attempt(store, trial):
        assert len(stored_steps(store, trial)) == record.step
        assert store.run(trial.trial_id).status().step == record.step
        assert state_of(store, trial) == "running"


def test_an_error_is_recorded_and_raised_and_the_next_attempt_goes_on(
    store: RunStore, trial: Trial, use
) -> None:
    run = store.run(trial.trial_id)
    for fails_at, trained in ((4, [1, 2, 3]), (4, [3]), (3, [])):
        trainer = use(Counting(fails_at, RuntimeError("out of\nluck")))
        with pytest.raises(RuntimeError, match="out of"):
            list(attempt(store, trial))
        assert trainer.trained == trained
        status = run.status()
        assert (status.state, status.step, status.steps) == ("failed", 3, 6)
        assert status.reason == "RuntimeError: out of\nluck"
        assert not run.locked()
        assert not is_finished(store, trial.trial_id)
    use(Counting())
    assert [record.step for record in attempt(store, trial)] == [3, 4, 5, 6]
    assert stored_steps(store, trial) == [1, 2, 3, 4, 5, 6]
    assert run.status().state == "done"
    assert run.status().reason == ""
    assert [entry["resumed_from"] for entry in run.provenance()] == [0, 2, 2]


def test_an_error_before_the_first_record_is_recorded_too(
    store: RunStore, trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def run(self, config: RunConfig, checkpoints: Path) -> Iterator[StepRecord]:
            raise LabError("no such GPU")

    monkeypatch.setattr("cegppo_lab.execute.make_trainer", lambda name: Broken())
    with pytest.raises(LabError, match="no such GPU"):
        list(attempt(store, trial))
    status = store.run(trial.trial_id).status()
    assert (status.state, status.step) == ("failed", 0)
    assert "no such GPU" in status.reason


def test_a_trainer_that_stops_has_stopped_for_good(store: RunStore, trial: Trial, use) -> None:
    use(Counting(3, TrainingStoppedError("loss is nan")))
    assert [record.step for record in attempt(store, trial)] == [0, 1, 2]
    status = store.run(trial.trial_id).status()
    assert (status.state, status.reason, status.step) == ("stopped", "loss is nan", 2)
    assert status.rule == {}
    rules = StopRules(entropy_below={"value": 0.4, "steps": 2})
    assert is_finished(store, trial.trial_id)
    assert is_finished(store, trial.trial_id, rules)
    use(Counting())
    assert list(attempt(store, trial)) == []
    assert list(attempt(store, trial, rules)) == []


@pytest.mark.parametrize("taken", range(1, 8))
def test_closing_early_leaves_a_trial_that_goes_on(
    store: RunStore, trial: Trial, use, taken: int
) -> None:
    use(Counting())
    records = attempt(store, trial)
    for _ in range(taken):
        next(records)
    assert state_of(store, trial) == "running"
    records.close()
    assert state_of(store, trial) == "interrupted"
    assert not is_finished(store, trial.trial_id)
    use(Counting())
    list(attempt(store, trial))
    assert stored_steps(store, trial) == [1, 2, 3, 4, 5, 6]
    assert state_of(store, trial) == "done"


def test_a_trial_is_trained_by_one_process_at_a_time(store: RunStore, trial: Trial, use) -> None:
    use(Counting())
    records = attempt(store, trial)
    next(records)
    with pytest.raises(LabError, match="another process"):
        next(attempt(store, trial))
    assert next(records).step == 1
    records.close()


def test_an_attempt_tells_where_its_numbers_come_from(store: RunStore, trial: Trial, use) -> None:
    use(Counting())
    next(records := attempt(store, trial))
    (entry,) = store.run(trial.trial_id).provenance()
    records.close()
    import torch

    assert entry["packages"]["torch"] == torch.__version__
    assert entry["machine"]["cpus"] >= 1
    assert {"git_sha", "python", "command", "started"} <= set(entry)
