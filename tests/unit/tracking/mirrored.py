"""Trials to mirror, and MLflow's database read back with plain SQL."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from cegppo_lab.store import RUNNING, EvalRecord, RunStore, StepRecord
from cegppo_lab.tracking.describe import PARAM_LIMIT

ARMS = {"t1": "GRPO", "t2": "CE-GPPO(0.5, 1)"}
SCHEDULE = {"0": 0.0, "585": 0.5}


def manifest(name: str, plan_id: str = "p1") -> dict:
    return {
        "name": name,
        "question": "Which arm keeps its entropy?",
        "notes": ["tiny scale"],
        "overrides": ["trainer.steps=20"],
        "arms": [],
        "trials": [{"trial_id": trial, "arm": arm, "seed": 11} for trial, arm in ARMS.items()],
        "plan_id": plan_id,
        "created": 1_700_000_000.0,
    }


def train(
    store: RunStore,
    trial_id: str,
    steps: range,
    state: str = RUNNING,
    reason: str = "",
    *,
    begun: float = 1_700_000_000.0,
    extra: dict[str, float] | None = None,
) -> None:
    """Append the steps (each with two metrics) and, at even steps, an evaluation."""
    config = {
        "seed": 11,
        "algorithm": {"name": "cegppo", "beta1": SCHEDULE, "beta2": 1.0},
        "model": {"note": "x" * (PARAM_LIMIT + 1)},
    }
    with store.writer(trial_id, config) as writer:
        writer.add_provenance({"started": begun, "git_sha": "c0ffee"})
        for step in steps:
            now = begun + step
            verdicts = [1.0, 0.0, 1.0, 1.0, 0.0, 0.0]  # (1/2 + 1 + 0) / 3 = 1/2
            problems, samples = ["a", "a", "b", "b", "c", "c"], [0, 1, 0, 1, 0, 1]
            evals = [EvalRecord(step, "walk", problems, samples, verdicts, now)]
            values = {"actor/entropy": 1 / (step + 1), "timing_s/step": 0.5, **(extra or {})}
            writer.append(StepRecord(step, values, evals if step % 2 == 0 else [], now))
        writer.set_status(state, reason=reason, step=steps.stop - 1, steps=20)


def uri(tmp_path: Path, name: str = "mirror") -> str:
    return f"sqlite:///{tmp_path / name}.db"


def query(where: str, sql: str) -> list[tuple]:
    with sqlite3.connect(where.removeprefix("sqlite:///")) as database:
        return database.execute(sql).fetchall()


def values(where: str) -> list[tuple]:
    """(trial, key, step, value, timestamp) of every metric value, sorted."""
    return query(
        where,
        "select t.value, m.key, m.step, m.value, m.timestamp from metrics m join tags t"
        " on t.run_uuid = m.run_uuid and t.key = 'trial_id' order by 1, 2, 3",
    )


def repeated(where: str) -> list[tuple]:
    """The (run, key, step) that have more than one value: there must be none."""
    return query(
        where,
        "select run_uuid, key, step, count(*) from metrics group by 1, 2, 3 having count(*) > 1",
    )


def statuses(where: str) -> dict[str, str]:
    return dict(query(where, "select name, status from runs where lifecycle_stage = 'active'"))


def tags_of(where: str, run_name: str) -> dict[str, str]:
    sql = "select t.key, t.value from tags t join runs r using (run_uuid) where r.name = '{}'"
    return dict(query(where, sql.format(run_name)))
