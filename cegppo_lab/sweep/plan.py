"""A plan: every trial that a sweep asks for, fully resolved, before anything starts."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cegppo_lab.compose import parse_overrides, resolve
from cegppo_lab.config import RunConfig, RuntimeConfig
from cegppo_lab.errors import LabError
from cegppo_lab.sentinel import StopRules
from cegppo_lab.store import PENDING, RUNNING, STOPPED, RunDir, RunStore
from cegppo_lab.sweep.confounds import Confound, confounds
from cegppo_lab.sweep.spec import SweepSpec, load_spec, split_overrides
from cegppo_lab.trial import Trial, make_trial

INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Plan:
    """The trials of a sweep, seed by seed, so that every arm has early seeds first."""

    spec: SweepSpec
    trials: list[Trial]
    runtime: RuntimeConfig
    overrides: list[str]
    shared: dict[str, Any] = field(default_factory=dict)
    """Overrides of every trial from the command line: what ``overrides`` says, and paths."""

    def store(self) -> RunStore:
        """Where the plan's runs are kept."""
        return RunStore(self.runtime.store)

    def first(self, limit: int | None) -> list[Trial]:
        """The first ``limit`` trials; all of them for None."""
        return self.trials if limit is None else self.trials[:limit]

    def manifest(self) -> dict[str, Any]:
        """What the analysis and the MLflow mirror know of the sweep, as plain JSON values."""
        ids = [trial.trial_id for trial in self.trials]
        return {
            "name": self.spec.name,
            "question": self.spec.question,
            "notes": self.spec.notes,
            "overrides": self.overrides,
            "stop": self.spec.stop.tree(),
            "arms": describe_arms({arm: each.identity() for arm, each in self._arms().items()}),
            "trials": [
                {"trial_id": trial.trial_id, "arm": trial.arm, "seed": trial.seed}
                for trial in self.trials
            ],
            "plan_id": hashlib.sha256("".join(ids).encode()).hexdigest()[:12],
            "created": time.time(),
        }

    def confounds(self) -> list[Confound]:
        """Differences between the arms that the sweep neither declares nor waives."""
        contents = {arm: flattened(each.identity()) for arm, each in self._arms().items()}
        return confounds(self.spec, contents)

    def _arms(self) -> dict[str, RunConfig]:
        """A run of each arm; its others differ in the seed alone."""
        return {trial.arm: trial.config for trial in self.trials}

    def check_writable(self) -> None:
        """Raise ``LabError`` when the runs or the reports could not be written."""
        check_writable(self.runtime.store, self.runtime.report)


def check_writable(*folders: str) -> None:
    """Make ``folders`` where they are missing; ``LabError`` when nothing can be written there."""
    for folder in folders:
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise LabError(f"cannot write to {folder}: {error.strerror}; choose another") from None


def describe_arms(contents: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Each arm with its algorithm and the values in which the arms differ (seeds aside).

    ``contents``: a configuration per arm, as trials store it.
    """
    flat = {arm: flattened(content) for arm, content in contents.items()}
    keys = sorted({key for content in flat.values() for key in content} - {"seed"})
    values = {key: {repr(content.get(key)) for content in flat.values()} for key in keys}
    differing = [key for key in keys if len(values[key]) > 1]
    return [
        {
            "name": arm,
            "algorithm": content["algorithm.name"],
            "differs": {key: content[key] for key in differing if key in content},
        }
        for arm, content in flat.items()
    ]


def make_plan(name: str, words: Sequence[str] = (), paths: Mapping[str, Any] | None = None) -> Plan:
    """The plan of sweep ``name`` with ``key=value`` words over it.

    Words reach the sweep's own keys (``seeds=[5]``) and every trial's (``trainer.steps=20``).
    ``paths``: ``runtime.*`` values, which say where things are kept and nothing else.
    Of a sweep with a search: the arms that it lists beside it; see ``search/definition.py``.
    Raises ``LabError`` for every mistake in the sweep file or the words.
    """
    changes, shared = split_overrides({**parse_overrides(words), **(paths or {})})
    spec = load_spec(name, changes)
    arms = [arm_trials(spec, shared, arm, values) for arm, values in spec.points()]
    trials = [trial for same_seed in zip(*arms, strict=True) for trial in same_seed]
    _refuse_twins(trials)
    told = [word for word in words if not word.startswith(("runtime.", "cluster."))]
    first = trials[0].config if trials else resolve({**spec.base, **shared})
    return Plan(spec, trials, first.runtime, told, shared)


def arm_trials(
    spec: SweepSpec, shared: Mapping[str, Any], arm: str, values: Mapping[str, Any]
) -> list[Trial]:
    """The trials of one arm, in the order of seeds: ``values`` over the base, ``shared`` over both.

    Raises ``LabError`` for values that a run refuses.
    """
    config = _resolve_arm(arm, spec.base, values, shared)
    return [make_trial(config.model_copy(update={"seed": seed}), arm) for seed in spec.seeds]


def _resolve_arm(
    arm: str, base: Mapping[str, Any], values: Mapping[str, Any], shared: Mapping[str, Any]
) -> RunConfig:
    """The arm's run; a word that would silently change what the arm's name says is refused."""
    try:
        config = resolve({**base, **values, **shared})
    except LabError as error:
        raise LabError(f"arm {arm!r}: {error}") from None
    if clash := sorted(set(values) & set(shared)):
        raise LabError(
            f"{clash[0]}={shared[clash[0]]}: arm {arm!r} sets {clash[0]} itself; "
            "change the sweep file, or copy it to one of your own"
        )
    return config


def _refuse_twins(trials: list[Trial]) -> None:
    seen: dict[str, Trial] = {}
    for trial in trials:
        if twin := seen.get(trial.trial_id):
            raise LabError(
                f"arms {twin.arm!r} and {trial.arm!r} are the same run at seed {trial.seed}; "
                "give them different values or drop one"
            )
        seen[trial.trial_id] = trial


def state_of(store: RunStore, trial: Trial | RunDir, rules: StopRules | None = None) -> str:
    """The trial's state in the store; ``interrupted`` when no process is at a started one.

    With ``rules``, also when another rule than these stopped it: the next call goes on.
    """
    run = store.run(trial.trial_id)
    status = run.status()
    state = status.state
    if state == STOPPED and rules is not None and not rules.ask_for(status.rule):
        return RUNNING if run.locked() else INTERRUPTED
    if state == RUNNING and not run.locked():
        return INTERRUPTED
    return RUNNING if state == PENDING and run.locked() else state


def flattened(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by dots. Schedules and lists stay values."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        nested = isinstance(value, dict) and not all(str(inner).isdigit() for inner in value)
        flat |= flattened(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat
