"""Tidy frames of one sweep, read from the run store; what is missing is kept and told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from cegppo_lab.errors import LabError
from cegppo_lab.metrics import ENTROPY, GRAD_NORM, PPO_KL, REWARD_MEAN
from cegppo_lab.store import DONE, FAILED, PENDING, RUNNING, STOPPED, RunStore

STEP_COLUMNS = ["trial_id", "arm", "seed", "step", "metric", "value"]
EVAL_COLUMNS = [
    "trial_id", "arm", "seed", "step", "benchmark", "problem_id", "sample", "correct",
]  # fmt: skip
TRIAL_COLUMNS = ["trial_id", "arm", "seed", "state", "reason", "step", "steps"]
WATCHED = (ENTROPY, PPO_KL, GRAD_NORM, REWARD_MEAN)
"""Metrics whose non-finite values are worth a sentence; others are undefined at some steps."""


@dataclass(frozen=True)
class Arm:
    """One arm: its name, its algorithm's name, what the manifest says differs, all it resolved to.

    ``settings`` is the ``algorithm`` section of a trial's config ({} before any trial started).
    """

    name: str
    algorithm: str
    differs: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def coefficient(self, key: str) -> float | dict[int, float] | None:
        """An algorithm coefficient as a number or ``{step: value}``; None where it has none."""
        value = self.differs.get(f"algorithm.{key}", self.settings.get(key))
        if isinstance(value, Mapping):
            return {int(step): float(number) for step, number in sorted(value.items(), key=_start)}
        return None if value is None else float(value)

    def switches(self) -> list[tuple[str, int, float, float]]:
        """(key, step, value before, value after) for every change of a scheduled coefficient."""
        found = []
        for path, value in self.differs.items():
            if not (path.startswith("algorithm.") and isinstance(value, Mapping)):
                continue
            key = path.removeprefix("algorithm.")
            points = list(self.coefficient(key).items())
            pairs = pairwise(points)
            found += [(key, step, before, after) for (_, before), (step, after) in pairs]
        return found


@dataclass(frozen=True)
class SweepData:
    """All that the store knows of a sweep.

    ``steps``: trial_id, arm, seed, step, metric, value. ``evals``: trial_id, arm, seed, step,
    benchmark, problem_id, sample, correct. ``trials``: every planned trial, run or not: trial_id,
    arm, seed, state, reason, step (reached), steps (planned; 0 where unknown). ``problems``:
    a sentence for everything that a reader of the numbers should know is not whole.
    """

    manifest: dict[str, Any]
    arms: list[Arm]
    steps: pd.DataFrame
    evals: pd.DataFrame
    trials: pd.DataFrame
    provenance: dict[str, list[dict[str, Any]]]
    configs: dict[str, dict[str, Any]]
    problems: list[str]

    @property
    def name(self) -> str:
        """The sweep's name."""
        return self.manifest["name"]

    def planned(self, arm: str) -> int:
        """How many seeds the plan has for an arm."""
        return int((self.trials["arm"] == arm).sum())

    def length(self, arm: str) -> int:
        """The planned steps of an arm's runs: the longest; the sweep's before any has started."""
        own = int(self.trials.loc[self.trials["arm"] == arm, "steps"].max())
        return own or int(self.trials["steps"].max())

    def metric(self, arm: str, metric: str) -> pd.DataFrame:
        """Values of one metric as a (seed x step) table, NaN where a run has no finite one."""
        rows = self.steps[(self.steps["arm"] == arm) & (self.steps["metric"] == metric)]
        table = rows.pivot(index="seed", columns="step", values="value").astype(float)
        return table.where(np.isfinite(table))

    def accuracy(self, arm: str, benchmark: str) -> pd.DataFrame:
        """Held-out accuracy as a (seed x step) table: mean over problems of the mean over samples.

        In [0, 1]; step 0 is the policy before training.
        """
        rows = self.evals[(self.evals["arm"] == arm) & (self.evals["benchmark"] == benchmark)]
        problems = rows.groupby(["seed", "step", "problem_id"])["correct"].mean()
        return problems.groupby(["seed", "step"]).mean().unstack("step").astype(float)

    def early_ends(self) -> pd.DataFrame:
        """The rows of ``trials`` that have trained and did not reach their end."""
        return self.trials[(self.trials["state"] != DONE) & (self.trials["step"] > 0)]

    def benchmarks(self) -> list[str]:
        """The benchmarks that some run was evaluated on, sorted."""
        return sorted(self.evals["benchmark"].unique())


def load_sweep(store: RunStore, name: str) -> SweepData:
    """Read every trial of a sweep. ``LabError`` if it was never started or no trial has a step."""
    manifest = store.manifest(name)
    trials, provenance, configs, problems = [], {}, {}, []
    steps: dict[str, list[Any]] = {column: [] for column in STEP_COLUMNS}
    evals: dict[str, list[Any]] = {column: [] for column in EVAL_COLUMNS}
    seen: dict[tuple[str, int], str] = {}
    for planned in manifest["trials"]:
        run, key = store.run(planned["trial_id"]), (planned["arm"], planned["seed"])
        row, records = _trial(run, planned)
        trials.append(row)
        provenance[run.trial_id], configs[run.trial_id] = run.provenance(), run.config()
        if key in seen:
            problems.append(
                f"{_label(row)}: the plan has two trials of this arm and seed, {seen[key]} and "
                f"{run.trial_id}; the numbers use the first."
            )
            continue
        seen[key] = run.trial_id
        _extend_steps(steps, row, records)
        _extend_evals(evals, row, run.evals())
    if not steps["step"] and not evals["step"]:
        raise LabError(
            f"no trial of sweep {name!r} has a step in {store.root} yet; "
            f"type: python -m cegppo_lab sweep {name}"
        )
    data = SweepData(
        manifest=manifest,
        arms=[_arm(entry, manifest, configs) for entry in manifest["arms"]],
        steps=pd.DataFrame(steps),
        evals=pd.DataFrame(evals),
        trials=pd.DataFrame(trials, columns=TRIAL_COLUMNS),
        provenance=provenance,
        configs=configs,
        problems=problems,
    )
    problems += [*_unfinished(data), *_mixed(data), *_not_finite(data)]
    return data


def _start(item: tuple[Any, Any]) -> int:
    return int(item[0])


def _label(row: Mapping[str, Any]) -> str:
    return f"{row['arm']}, seed {row['seed']}"


def _arm(
    entry: dict[str, Any], manifest: dict[str, Any], configs: dict[str, dict[str, Any]]
) -> Arm:
    ids = [trial["trial_id"] for trial in manifest["trials"] if trial["arm"] == entry["name"]]
    settings = next((configs[i]["algorithm"] for i in ids if "algorithm" in configs[i]), {})
    return Arm(entry["name"], entry["algorithm"], entry.get("differs", {}), settings)


def _trial(run: Any, planned: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    """The trial's row of the ``trials`` frame, and its step records."""
    status, records = run.status(), run.steps()
    reached = max((record.step for record in records), default=status.step)
    steps = status.steps or run.config().get("trainer", {}).get("steps", 0)
    state, reason = status.state, status.reason
    if state == PENDING:
        reason = reason or "not started"
    elif state == RUNNING:
        reason = "running now" if run.locked() else "interrupted; the next sweep call resumes it"
    row = {**planned, "state": state, "reason": reason, "step": reached, "steps": steps}
    return {column: row[column] for column in TRIAL_COLUMNS}, records


def _extend_steps(into: dict[str, list[Any]], row: dict[str, Any], records: list[Any]) -> None:
    cells = [(r.step, name, value) for r in records for name, value in r.metrics.items()]
    for column in ("trial_id", "arm", "seed"):
        into[column] += [row[column]] * len(cells)
    for place, column in enumerate(("step", "metric", "value")):
        into[column] += [cell[place] for cell in cells]


def _extend_evals(into: dict[str, list[Any]], row: dict[str, Any], records: list[Any]) -> None:
    for record in records:
        count = len(record.correct)
        for column in ("trial_id", "arm", "seed"):
            into[column] += [row[column]] * count
        into["step"] += [record.step] * count
        into["benchmark"] += [record.benchmark] * count
        into["problem_id"] += record.problem
        into["sample"] += record.sample
        into["correct"] += record.correct


def _unfinished(data: SweepData) -> list[str]:
    told = {
        PENDING: "has no run yet",
        RUNNING: "is not finished",
        FAILED: "failed",
        STOPPED: "was stopped by a rule",
    }
    sentences = []
    for row in data.trials[data.trials["state"] != DONE].to_dict("records"):
        at = f" at step {row['step']} of {row['steps']}" if row["steps"] else ""
        reason = f": {row['reason']}" if row["reason"] else ""
        sentences.append(f"{_label(row)} {told.get(row['state'], row['state'])}{at}{reason}.")
    return sentences


def _mixed(data: SweepData) -> list[str]:
    sentences = []
    started = data.trials[data.trials["steps"] > 0]
    for arm, lengths in started.groupby("arm", sort=False)["steps"]:
        if lengths.nunique() > 1:
            mixed = ", ".join(str(count) for count in sorted(lengths.unique()))
            sentences.append(f"{arm}: its runs differ in length ({mixed} steps).")
    return sentences


def _not_finite(data: SweepData) -> list[str]:
    rows = data.steps[data.steps["metric"].isin(WATCHED) & ~np.isfinite(data.steps["value"])]
    return [
        f"{arm}, seed {seed}: {metric} is not finite at {len(steps)} steps, first at {min(steps)}."
        for (arm, seed, metric), steps in rows.groupby(["arm", "seed", "metric"])["step"]
    ]
