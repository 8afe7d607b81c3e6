"""Stop rules on real runs: what they stop goes on elsewhere as if it had never been stopped."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cegppo_lab.compose import resolve
from cegppo_lab.execute import attempt
from cegppo_lab.housekeeping.verify import verify
from cegppo_lab.sentinel import NO_RULES, StopRules
from cegppo_lab.store import RunStore, Status
from cegppo_lab.trial import Trial, make_trial
from tests.e2e.lab import TINY, environment, lab, numbers, steps_done, wait_for

STOPS_AT_3 = {"entropy_above": {"value": 0.0, "steps": 3}}
IN_A_PROCESS = """
import json, sys
from cegppo_lab.compose import resolve
from cegppo_lab.execute import attempt
from cegppo_lab.sentinel import StopRules
from cegppo_lab.store import RunStore
from cegppo_lab.trial import make_trial

values, rules = map(json.loads, sys.argv[1:])
list(attempt(RunStore("runs"), make_trial(resolve(values)), StopRules(**rules)))
"""


def train(folder: Path, trial: Trial, rules: StopRules = NO_RULES) -> Status:
    store = RunStore(folder / "runs")
    list(attempt(store, trial, rules))
    assert not [finding for finding in verify(store) if not finding.harmless]
    return store.run(trial.trial_id).status()


@pytest.mark.parametrize("every", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_a_stopped_run_goes_on_without_the_rule_to_the_same_bit(tmp_path, tiny, every) -> None:
    trial = make_trial(resolve({**tiny, "runtime.checkpoint_every": every}))
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    status = train(stopped, trial, StopRules(**STOPS_AT_3))
    assert (status.state, status.step, status.rule) == ("stopped", 3, STOPS_AT_3)
    assert status.reason.startswith("entropy_above at step 3: actor/entropy above 0 for 3 steps")
    assert steps_done(stopped) == 3
    assert train(stopped, trial, StopRules(**STOPS_AT_3)) == status
    for folder in (stopped, whole):
        status = train(folder, trial)
        assert (status.state, status.step, status.rule) == ("done", 6, {})
    assert numbers(stopped) == numbers(whole)
    attempts = RunStore(stopped / "runs").run(trial.trial_id).provenance()
    assert [entry["resumed_from"] for entry in attempts] == [0, 2 if every == 2 else 0]


@pytest.mark.slow
def test_a_killed_run_stops_where_it_would_have_stopped(tmp_path, tiny) -> None:
    values = {**tiny, "trainer.steps": 12}
    rules = {"entropy_above": {"value": 0.0, "steps": 10}}
    trial, folder = make_trial(resolve(values)), tmp_path / "killed"
    folder.mkdir()
    command = [sys.executable, "-c", IN_A_PROCESS, json.dumps(values), json.dumps(rules)]
    process = subprocess.Popen(command, cwd=folder, env=environment())
    try:
        wait_for(lambda: steps_done(folder) >= 3)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert 3 <= steps_done(folder) < 10
    told = [
        (status.state, status.step, status.reason, status.rule)
        for status in (
            train(folder, trial, StopRules(**rules)),
            train(tmp_path / "whole", trial, StopRules(**rules)),
        )
    ]
    assert told[0] == told[1]
    assert told[0][:2] == ("stopped", 10)
    assert numbers(folder) == numbers(tmp_path / "whole")


def test_the_trainer_logs_what_every_rule_looks_at(tmp_path, tiny) -> None:
    """Each rule is on and out of reach: none stops the run, none is without its metric."""
    bound = {"value": 1e9, "steps": 1}
    rules = StopRules(
        non_finite={},
        entropy_below={"value": -1, "steps": 1},
        entropy_above=bound,
        kl_above=bound,
        ratio_above=bound,
        ratchet_above=bound,
        reward_collapse={"drop": 1, "window": 6},
        no_progress={"steps": 6},
        at_step={"step": 7},
        pruned={"search": "mine"},
    )
    assert set(rules.on()) == set(StopRules.model_fields)
    status = train(tmp_path, make_trial(resolve(tiny)), rules)
    assert (status.state, status.step, status.reason) == ("done", 6, "")


@pytest.mark.slow
def test_sweeps_with_and_without_a_rule_share_what_they_train(tmp_path) -> None:
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    for folder in (stopped, whole):
        folder.mkdir()
        for name, rules in (("ruled", STOPS_AT_3), ("free", {})):
            tree = {"question": "?", "arms": {"a": {}}, "seeds": [1, 2], "stop": rules}
            (folder / f"{name}.yaml").write_text(json.dumps(tree))
    store = RunStore(stopped / "runs")
    printed = lab(stopped, "sweep", "ruled.yaml", *TINY)
    assert "2 stopped" in printed
    assert {store.run(key).status().state for key in store.trial_ids()} == {"stopped"}
    assert steps_done(stopped) == 2 * 3
    assert "2 trials, 0 to run" in lab(stopped, "plan", "ruled.yaml", *TINY)
    assert "2 trials, 2 to run" in lab(stopped, "plan", "free.yaml", *TINY)
    for folder in (stopped, whole):
        assert "2 done" in lab(folder, "sweep", "free.yaml", *TINY)
    assert numbers(stopped) == numbers(whole)
    attempts = {key: len(store.run(key).provenance()) for key in store.trial_ids()}
    assert "2 done" in lab(stopped, "sweep", "ruled.yaml", *TINY)
    assert attempts == {key: len(store.run(key).provenance()) for key in store.trial_ids()}
