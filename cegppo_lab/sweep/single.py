"""Runs started one at a time, gathered in a sweep of their own so that they can be compared."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from filelock import FileLock

from cegppo_lab.compose import parse_overrides, resolve
from cegppo_lab.errors import LabError
from cegppo_lab.sentinel import StopRules
from cegppo_lab.store import RunStore
from cegppo_lab.sweep.plan import check_writable, describe_arms
from cegppo_lab.sweep.spec import SINGLE_RUNS
from cegppo_lab.trainers.base import make_trainer
from cegppo_lab.trial import Trial, make_trial
from cegppo_lab.validation import validated


def stop_rules(words: Sequence[str]) -> tuple[StopRules, list[str]]:
    """The stop rules among ``key=value`` words, and the other words.

    ``stop.entropy_below='{value:0.05,steps:5}'`` switches one on, ``stop='{...}'`` several at once.
    Raises ``LabError`` for a rule or a parameter that does not exist.
    """
    own = [word for word in words if word.partition("=")[0].partition(".")[0] == "stop"]
    values = parse_overrides(own)
    whole = values.pop("stop", {})
    if not isinstance(whole, dict):
        raise LabError(f"stop={whole}: must be a mapping of rules, e.g. stop={{non_finite:{{}}}}")
    single = {key.partition(".")[2]: value for key, value in values.items()}
    rules = validated(StopRules, {**whole, **single}, "stop")
    return rules, [word for word in words if word not in own]


def single_run(words: Sequence[str], paths: Mapping[str, Any]) -> tuple[Trial, RunStore, str]:
    """The run of ``key=value`` words, entered in the store's manifest of single runs.

    Its arm is named after the words that change its numbers, without the seed. Returns the trial,
    its store and the MLflow URI. Raises ``LabError`` for every mistake in the words.
    """
    values = parse_overrides(words)
    config = resolve({**values, **paths})
    told = [
        f"{key}={value}"
        for key, value in values.items()
        if key not in ("seed", "algorithm") and not key.startswith("runtime.")
    ]
    trial = make_trial(config, " ".join([config.algorithm.title, *told]))
    check_writable(config.runtime.store)
    make_trainer(config.trainer.name).check(config)
    store = RunStore(config.runtime.store)
    with FileLock(store.root / f".{SINGLE_RUNS}.lock"):  # two of them may start at once
        _enter(store, trial)
    return trial, store, config.runtime.mlflow


def _enter(store: RunStore, trial: Trial) -> None:
    store.enter(trial.trial_id, trial.stored_config())
    known = store.manifest(SINGLE_RUNS) if SINGLE_RUNS in store.manifests() else {"trials": []}
    rows = [row for row in known["trials"] if row["trial_id"] != trial.trial_id]
    rows.append({"trial_id": trial.trial_id, "arm": trial.arm, "seed": trial.seed})
    # A run whose folder was deleted leaves the list.
    configs = {row["trial_id"]: store.run(row["trial_id"]).config() for row in rows}
    rows = [row for row in rows if configs[row["trial_id"]]]
    contents = {row["arm"]: configs[row["trial_id"]] for row in rows}
    manifest = {
        "name": SINGLE_RUNS,
        "question": "Runs that were started one at a time with the train command.",
        "notes": ["Arms may differ in anything; see what differs between them."],
        "overrides": [],
        "arms": describe_arms(contents),
        "trials": rows,
        "plan_id": "",
        "created": known.get("created", time.time()),
    }
    store.write_manifest(manifest)
