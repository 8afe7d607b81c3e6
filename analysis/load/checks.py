"""What a reader of the numbers should know is not whole, and what must not be compared at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from analysis.load import finals
from analysis.load.frames import SweepData
from cegppo_lab.errors import LabError
from cegppo_lab.metrics import ENTROPY, GRAD_NORM, PPO_KL, REWARD_MEAN
from cegppo_lab.store import DONE, FAILED, PENDING, RUNNING, STOPPED

WATCHED = (ENTROPY, PPO_KL, GRAD_NORM, REWARD_MEAN)
"""Metrics whose non-finite values are worth a sentence; others are undefined at some steps."""
_IDENTITY = ("version", "data_hash")


def check_comparable(data: SweepData) -> None:
    """``LabError`` when runs were evaluated on versions of a benchmark that no arm declares.

    A sweep may vary its task on purpose; then its arms say so.
    """
    declared = {key for arm in data.arms for key in arm.differs if key.startswith("task")}
    found: dict[str, dict[str, list[str]]] = {}
    for trial_id, config in data.configs.items():
        task = config.get("task", {})
        told = ", ".join(f"{key} {task[key]}" for key in _IDENTITY if key in task)
        found.setdefault(task.get("name", ""), {}).setdefault(told, []).append(trial_id)
    for name, versions in found.items():
        if len(versions) > 1 and not declared:
            told = "; ".join(f"{v or 'no version'}: {', '.join(ids)}" for v, ids in
                             versions.items())  # fmt: skip
            raise LabError(
                f"runs of {data.name!r} were evaluated on different versions of {name} and cannot "
                f"be compared ({told}); run the sweep again, or move the old runs away"
            )


def sentences(data: SweepData) -> list[str]:
    """A sentence for everything in the frames that is not whole."""
    return [
        *_unfinished(data),
        *_mixed(data),
        *_not_finite(data),
        *finals.sentences(data),
    ]


def _label(row: Mapping[str, Any]) -> str:
    return f"{row['arm']}, seed {row['seed']}"


def _unfinished(data: SweepData) -> list[str]:
    told = {
        PENDING: "has no run yet",
        RUNNING: "is not finished",
        FAILED: "failed",
        STOPPED: "was stopped",
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
