"""One sweep's frames from the records of its runs, wherever those were read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from analysis.load.checks import check_comparable, sentences
from analysis.load.finals import preferred, several
from analysis.load.frames import (
    EVAL_COLUMNS,
    SCALES,
    STEP_COLUMNS,
    TOKEN_COLUMNS,
    TRIAL_COLUMNS,
    Arm,
    SweepData,
)
from cegppo_lab.errors import LabError
from cegppo_lab.store import (
    PENDING,
    RUNNING,
    EvalRecord,
    FinalRecord,
    Status,
    StepRecord,
    TokenSample,
)

PAPER_MODELS = ("r1-distill-qwen",)


@dataclass(frozen=True)
class RunView:
    """One trial as a source has it. ``locked``: some process trains it now."""

    trial_id: str
    arm: str
    seed: int
    config: dict[str, Any]
    provenance: list[dict[str, Any]]
    status: Status
    steps: list[StepRecord]
    evals: list[EvalRecord]
    locked: bool = False
    notes: list[str] = field(default_factory=list)
    """Sentences for the report's list of what is not whole."""
    finals: list[FinalRecord] = field(default_factory=list)
    """Final evaluations of its checkpoints."""


def assemble(
    manifest: dict[str, Any],
    runs: Iterable[RunView],
    source: str,
    *,
    scale: str | None = None,
    load_tokens: Callable[[], pd.DataFrame] | None = None,
) -> SweepData:
    """The frames of a sweep; a second run of an arm and seed is told and left out.

    Raises ``LabError`` when no run has a step, and when runs were evaluated on versions of a
    benchmark that cannot be compared.
    """
    trials, provenance, configs, problems = [], {}, {}, []
    steps: dict[str, list[Any]] = {column: [] for column in STEP_COLUMNS}
    evals: dict[str, list[Any]] = {column: [] for column in EVAL_COLUMNS}
    seen: dict[tuple[str, int], str] = {}
    for run in runs:
        key, row = (run.arm, run.seed), _row(run)
        trials.append(row)
        provenance[run.trial_id], configs[run.trial_id] = run.provenance, run.config
        problems += run.notes
        if key in seen:
            problems.append(
                f"{run.arm}, seed {run.seed}: there are two trials of this arm and seed, "
                f"{seen[key]} and {run.trial_id}; the numbers use the first."
            )
            continue
        seen[key] = run.trial_id
        _extend_steps(steps, row, run.steps)
        _extend_evals(evals, row, preferred(run.evals, run.finals))
        problems += several(f"{run.arm}, seed {run.seed}", run.finals)
    if not steps["step"] and not evals["step"]:
        raise LabError(
            f"no trial of sweep {manifest['name']!r} has a step in {source} yet; "
            f"type: python -m cegppo_lab sweep {manifest['name']}"
        )
    data = SweepData(
        manifest=manifest,
        arms=_arms(manifest, configs),
        steps=pd.DataFrame(steps),
        evals=pd.DataFrame(evals),
        trials=pd.DataFrame(trials, columns=TRIAL_COLUMNS),
        provenance=provenance,
        configs=configs,
        problems=problems,
        scale=scale or min((_scale(run) for run in runs), key=SCALES.index),
        source=source,
        load_tokens=load_tokens,
    )
    check_comparable(data)
    problems += sentences(data)
    return data


def token_frame(runs: Iterable[tuple[Mapping[str, Any], Iterable[TokenSample]]]) -> pd.DataFrame:
    """Token samples as one frame; each run comes as its row of ``trials`` and its samples."""
    parts = []
    for row, samples in runs:
        for sample in samples:
            frame = pd.DataFrame({
                key: getattr(sample, key)
                for key in ("probability", "ratio", "advantage", "entropy", "token", "position",
                            "outside")
            })  # fmt: skip
            stored = max(len(frame) - sum(sample.outside), 1), max(sum(sample.outside), 1)
            weights = sample.inside_count / stored[0], sample.outside_count / stored[1]
            frame["weight"] = frame["outside"].map({False: weights[0], True: weights[1]})
            parts.append(frame.assign(step=sample.step, **{
                key: row[key] for key in ("trial_id", "arm", "seed")}))  # fmt: skip
    return pd.concat(parts)[TOKEN_COLUMNS] if parts else pd.DataFrame(columns=TOKEN_COLUMNS)


def _row(run: RunView) -> dict[str, Any]:
    """The trial's row of the ``trials`` frame."""
    state, reason = run.status.state, run.status.reason
    if state == PENDING:
        reason = reason or "not started"
    elif state == RUNNING:
        reason = "running now" if run.locked else "interrupted; the next sweep call resumes it"
    return {
        "trial_id": run.trial_id,
        "arm": run.arm,
        "seed": run.seed,
        "state": state,
        "reason": reason,
        "step": max((record.step for record in run.steps), default=run.status.step),
        "steps": run.status.steps or run.config.get("trainer", {}).get("steps", 0),
    }


def _arms(manifest: dict[str, Any], configs: dict[str, dict[str, Any]]) -> list[Arm]:
    """The manifest's arms; one without a run has the policy that its plan, or all others, say."""
    by_arm: dict[str, dict[str, Any]] = {}
    for trial in manifest["trials"]:
        if "algorithm" in (config := configs.get(trial["trial_id"], {})):
            by_arm.setdefault(trial["arm"], config)
    known = {config.get("model", {}).get("name", "") for config in by_arm.values()}
    only = known.pop() if len(known) == 1 else ""
    return [
        Arm(
            entry["name"],
            entry["algorithm"],
            entry.get("differs", {}),
            config.get("algorithm", {}),
            config.get("model", {}).get("name") or entry.get("differs", {}).get("model.name", only),
        )
        for entry in manifest["arms"]
        for config in [by_arm.get(entry["name"], {})]
    ]


def _scale(run: RunView) -> str:
    """The scale of one run: what it trained, and on what machine."""
    model = str(run.config.get("model", {}).get("name", ""))
    if run.config.get("trainer", {}).get("name") == "verl" and model.startswith(PAPER_MODELS):
        return "paper"
    on_gpu = any(attempt.get("machine", {}).get("cuda") for attempt in run.provenance)
    return "GPU" if on_gpu else "embedded"


def _extend_steps(into: dict[str, list[Any]], row: dict[str, Any], records: list[Any]) -> None:
    cells = [(r.step, name, value) for r in records for name, value in sorted(r.metrics.items())]
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
        into["evaluation"] += [getattr(record, "evaluation", "")] * count
