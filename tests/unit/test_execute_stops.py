"""Attempts with stop rules: what ends a trial for one sweep and not for another."""

from __future__ import annotations

import pytest

from cegppo_lab.execute import attempt, has_ended, is_finished
from cegppo_lab.files import write_json
from cegppo_lab.housekeeping.verify import verify
from cegppo_lab.sentinel import NO_RULES, StopRules
from cegppo_lab.store import RunDir, RunStore, Status
from cegppo_lab.trial import Trial
from tests.unit.counting import Counting, stored_steps

LOW = {"entropy_below": {"value": 0.4, "steps": 2}}
"""Stops ``Counting`` at step 4: its entropy is 1 / step."""
RULES = StopRules(**LOW)
REASON = "entropy_below at step 4: actor/entropy below 0.4 for 2 steps, now 0.25"


def test_a_rule_stops_a_trial_which_is_then_finished_for_this_rule_alone(
    store: RunStore, trial: Trial, use
) -> None:
    trainer = use(Counting())
    assert [record.step for record in attempt(store, trial, RULES)] == [0, 1, 2, 3, 4]
    assert trainer.closed
    assert stored_steps(store, trial) == [1, 2, 3, 4]
    status = store.run(trial.trial_id).status()
    assert (status.state, status.step, status.steps) == ("stopped", 4, 6)
    assert (status.reason, status.rule) == (REASON, LOW)
    assert not store.run(trial.trial_id).locked()
    assert list(verify(store)) == []
    assert has_ended(store, trial.trial_id)
    more = StopRules(**LOW, kl_above={"value": 9, "steps": 1})
    others = StopRules(entropy_below={"value": 0.4, "steps": 3}), NO_RULES
    for rules, finished in ((RULES, True), (more, True), (others[0], False), (NO_RULES, False)):
        assert is_finished(store, trial.trial_id, rules) is finished
    again = use(Counting())
    assert list(attempt(store, trial, RULES)) == []
    assert again.trained == []


def test_a_stopped_trial_goes_on_without_the_rule_and_is_then_done_for_all(
    store: RunStore, trial: Trial, use
) -> None:
    use(Counting())
    list(attempt(store, trial, RULES))
    trainer = use(Counting())
    assert [record.step for record in attempt(store, trial)] == [3, 4, 5, 6]
    assert trainer.trained == [3, 4, 5, 6]  # from the checkpoint before the stop
    assert stored_steps(store, trial) == [1, 2, 3, 4, 5, 6]
    status = store.run(trial.trial_id).status()
    assert (status.state, status.reason, status.rule) == ("done", "", {})
    assert is_finished(store, trial.trial_id, RULES)


@pytest.mark.parametrize("taken", range(2, 6))
def test_an_attempt_cut_off_anywhere_stops_at_the_same_step(
    store: RunStore, trial: Trial, use, taken: int
) -> None:
    use(Counting())
    records = attempt(store, trial, RULES)
    for _ in range(taken):
        next(records)
    records.close()
    assert not is_finished(store, trial.trial_id, RULES)
    use(Counting())
    list(attempt(store, trial, RULES))
    status = store.run(trial.trial_id).status()
    assert (status.state, status.step, status.reason) == ("stopped", 4, REASON)
    assert stored_steps(store, trial) == [1, 2, 3, 4]


def test_a_rule_that_the_store_answers_starts_no_trainer(
    store: RunStore, trial: Trial, use
) -> None:
    use(Counting())
    records = attempt(store, trial)
    for _ in range(6):
        next(records)
    records.close()
    trainer = use(Counting())
    assert list(attempt(store, trial, RULES)) == []
    assert trainer.trained == []
    status = store.run(trial.trial_id).status()
    assert (status.state, status.step, status.reason) == ("stopped", 5, REASON)
    assert list(verify(store)) == []


def test_a_run_with_all_its_steps_is_done_whatever_the_rules(
    store: RunStore, trial: Trial, use
) -> None:
    use(Counting())
    last = StopRules(entropy_below={"value": 0.4, "steps": 4})  # fires at step 6, of 6
    records = attempt(store, trial)
    for _ in range(7):
        next(records)
    records.close()  # killed before it was told done
    for rules in (RULES, last):
        list(attempt(store, trial, rules))
        assert store.run(trial.trial_id).status().state == "done"


def test_a_rule_that_fires_at_the_last_step_stops_nothing(
    store: RunStore, trial: Trial, use
) -> None:
    use(Counting())
    list(attempt(store, trial, StopRules(entropy_below={"value": 0.4, "steps": 4})))
    status = store.run(trial.trial_id).status()
    assert (status.state, status.reason, status.step) == ("done", "", 6)


def test_a_rule_without_its_metric_is_a_note(store: RunStore, trial: Trial, use) -> None:
    use(Counting())
    list(attempt(store, trial, StopRules(ratio_above={"value": 5, "steps": 1})))
    status = store.run(trial.trial_id).status()
    assert status.state == "done"
    assert status.reason == "stop rules without their metric: ratio_above (actor/ratio_max)"


def test_a_status_of_before_the_rules_is_a_stop_for_good(store: RunStore, trial: Trial) -> None:
    store.enter(trial.trial_id, trial.stored_config())
    old = {"state": "stopped", "reason": "loss is nan", "step": 2, "steps": 6, "time": 1.0}
    write_json(store.root / trial.trial_id / "status.json", old)
    assert store.run(trial.trial_id).status() == Status(**old)
    assert is_finished(store, trial.trial_id)
    assert is_finished(store, trial.trial_id, RULES)


def test_a_rule_costs_nothing_per_step(store: RunStore, trial: Trial, use, monkeypatch) -> None:
    """Stored steps are read once an attempt, whatever the number of steps."""
    read = []
    steps = RunDir.steps
    monkeypatch.setattr(RunDir, "steps", lambda run: read.append(run) or steps(run))
    use(Counting())
    list(attempt(store, trial, StopRules(kl_above={"value": 1, "steps": 1})))
    assert len(read) == 1


def test_a_stop_rule_that_is_no_mapping_is_found_by_verify(store: RunStore, trial: Trial) -> None:
    store.enter(trial.trial_id, trial.stored_config())
    write_json(store.root / trial.trial_id / "status.json", {"state": "stopped", "rule": "low"})
    (finding,) = verify(store)
    assert "stop rule that is no mapping" in finding.told
