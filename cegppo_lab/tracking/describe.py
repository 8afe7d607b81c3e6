"""A trial or a sweep of the run store, in MLflow's terms: names, tags, params, status, metrics."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from cegppo_lab import metrics
from cegppo_lab.store import DONE, FAILED, PENDING, STOPPED, EvalRecord, RunDir

if TYPE_CHECKING:
    from mlflow.entities import Run

TRIAL_TAG = "trial_id"
SWEEP_TAG = "sweep"
PLANS_TAG = "plan_ids"
ROWS_TAG = "mirrored_rows"
KEY_LIMIT, PARAM_LIMIT, TAG_LIMIT = 250, 6000, 8000
"""MLflow's longest metric, param and tag keys; param values; tag values (characters)."""

_CUT = " ... [cut]"
_STATUS = {DONE: "FINISHED", STOPPED: "KILLED", FAILED: "FAILED", PENDING: "SCHEDULED"}


class Row(NamedTuple):
    """What the store measured at once. ``time_ms``: Unix milliseconds; ``values`` by MLflow key."""

    step: int
    time_ms: int
    values: dict[str, float]


@dataclass(frozen=True)
class Wanted:
    """How an MLflow run ought to look. Times in Unix ms; ``end_ms`` is None before its end."""

    name: str
    status: str
    start_ms: int
    end_ms: int | None = None
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)


def mlflow_key(name: str) -> str:
    """``name`` in the characters that MLflow takes, as verl writes it (``@`` becomes ``_at_``)."""
    name = re.sub(r"/+", "/", name.replace("@", "_at_")).strip("/")
    return re.sub(r"[^/\w.\- :]", "_", name)[:KEY_LIMIT]


def accuracy_key(record: EvalRecord) -> str:
    """The MLflow key of an evaluation's accuracy: verl's validation name."""
    return mlflow_key(metrics.accuracy(record.benchmark, len(set(record.sample))))


def streams(run: RunDir) -> dict[str, list[Row]]:
    """The rows of both append-only files of a trial, in file order: ``steps`` and ``evals``.

    NaN stays NaN; MLflow's databases clamp an infinity to the largest float, +-1.8e308. Accuracy
    comes from the evaluations alone, so a trainer's copy of it is no second value.
    """
    steps = run.steps()  # before the evals: a step that is there implies its evaluations
    evals = [
        Row(record.step, _ms(record.time), {accuracy_key(record): _accuracy(record)})
        for record in run.evals()
        if record.problem
    ]
    evaluated = {key for row in evals for key in row.values}
    rows = []
    for step in steps:
        values = {mlflow_key(name): value for name, value in step.metrics.items()}
        kept = {key: value for key, value in values.items() if key not in evaluated}
        rows.append(Row(step.step, _ms(step.time), kept))
    return {"evals": evals, "steps": rows}


def mirrored_rows(run: Run) -> dict[str, list[int]]:
    """By file, how many of its rows an MLflow run holds and the time (ms) of the last of them."""
    return json.loads(run.data.tags.get(ROWS_TAG, "{}"))


def continues(rows: dict[str, list[Row]], mirrored: dict[str, list[int]]) -> bool:
    """Whether the mirrored rows are the first ones of ``rows``, not those of an earlier life."""
    return all(
        len(rows[file]) >= count and rows[file][count - 1].time_ms == last_ms
        for file, (count, last_ms) in mirrored.items()
    )


def describe_trial(
    run: RunDir, entry: dict[str, Any], plan_id: str, rows: dict[str, list[Row]]
) -> Wanted:
    """The child run of ``entry`` (one of the manifest's trials)."""
    status, config, attempts = run.status(), run.config(), run.provenance()
    algorithm = config.get("algorithm", {})
    short = {"algorithm": algorithm.get("name"), "seed": entry["seed"], "arm": entry["arm"]}
    short |= {beta: algorithm.get(beta) for beta in ("beta1", "beta2")}
    params = flatten(config) | {key: _text(val) for key, val in short.items() if val is not None}
    sha = next((entry["git_sha"] for entry in reversed(attempts) if entry.get("git_sha")), "")
    times = [row.time_ms for stream in rows.values() for row in stream]
    started = [_ms(attempt["started"]) for attempt in attempts if "started" in attempt]
    ended = status.state in (DONE, STOPPED, FAILED)
    tags = {
        TRIAL_TAG: run.trial_id,
        "arm": str(entry["arm"]),
        "algorithm": str(algorithm.get("name", "")),
        "seed": str(entry["seed"]),
        "status": status.state,
        "reason": status.reason,
        "plan_id": plan_id,
        "git_sha": sha,
        "mlflow.source.git.commit": sha,  # these two are columns of the UI
        "mlflow.source.name": "cegppo_lab",
    }
    return Wanted(
        name=f"{entry['arm']} seed {entry['seed']}",
        status=_STATUS.get(status.state) or ("RUNNING" if run.locked() else "KILLED"),
        start_ms=min(started + times, default=_ms(status.time or time.time())),
        end_ms=_ms(status.time) if ended else None,
        tags={key: cut(value, TAG_LIMIT) for key, value in tags.items()},
        params={mlflow_key(key): cut(value, PARAM_LIMIT) for key, value in params.items()},
    )


def describe_sweep(manifest: dict[str, Any], trials: list[Wanted], plan_ids: str) -> Wanted:
    """The parent run. ``trials``: its children that exist; ``plan_ids``: those already tagged."""
    plans = [*plan_ids.split(), manifest["plan_id"]]
    tags = {
        SWEEP_TAG: manifest["name"],
        "question": manifest["question"],
        "overrides": " ".join(manifest["overrides"]),
        PLANS_TAG: " ".join(dict.fromkeys(plans)),
        "mlflow.note.content": note(manifest),
    }
    status = _sweep_status(trials, missing=len(manifest["trials"]) - len(trials))
    ends = [trial.end_ms for trial in trials if trial.end_ms is not None]
    return Wanted(
        name=manifest["name"],
        status=status,
        start_ms=min([_ms(manifest["created"]), *(trial.start_ms for trial in trials)]),
        end_ms=max(ends, default=None) if status in ("FINISHED", "FAILED") else None,
        tags={key: cut(value, TAG_LIMIT) for key, value in tags.items()},
    )


def note(manifest: dict[str, Any]) -> str:
    """The sweep's question and notes in Markdown, for the UI's description."""
    return "\n".join([manifest["question"], "", *(f"- {line}" for line in manifest["notes"])])


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """``{"a": {"b": 1}}`` as ``{"a.b": "1"}``; a schedule ``{"0": .., "585": ..}`` is one value."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, dict) and not _is_schedule(value):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = _text(value)
    return flat


def cut(text: str, limit: int) -> str:
    """``text``, its end replaced by a mark where it is longer than ``limit`` characters."""
    return text if len(text) <= limit else text[: limit - len(_CUT)] + _CUT


def _sweep_status(trials: list[Wanted], missing: int) -> str:
    """One status for all: a stopped trial is an answer; ``SCHEDULED`` waits for the next call."""
    found = {trial.status for trial in trials}
    if "RUNNING" in found:
        return "RUNNING"
    if "FAILED" in found:
        return "FAILED"
    unfinished = missing or any(trial.end_ms is None for trial in trials)
    return "SCHEDULED" if unfinished else "FINISHED"


def _accuracy(record: EvalRecord) -> float:
    """Mean over problems of the mean over a problem's samples."""
    return float(pd.Series(record.correct, dtype=float).groupby(record.problem).mean().mean())


def _is_schedule(value: dict[str, Any]) -> bool:
    return bool(value) and all(str(key).isdigit() for key in value)


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict | list) else str(value)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
