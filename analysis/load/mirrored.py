"""A trial as the mirror of this suite left it in MLflow: its files if they are there, else tags."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.load.assemble import RunView
from analysis.load.experiments import Logged
from cegppo_lab.store import RunDir, Status
from cegppo_lab.tracking.describe import (
    PLANS_TAG,
    TAG_LIMIT,
    TRIAL_TAG,
    accuracy_key,
    cut,
    mirrored_rows,
)
from cegppo_lab.tracking.files import FOLDER, logged_files

if TYPE_CHECKING:
    from mlflow.entities import Run

_SHORT_PARAMS = ("algorithm", "arm", "beta1", "beta2")
"""Params that repeat what the configuration has, for the columns of the UI."""


@dataclass(frozen=True)
class Lack:
    """What of a trial is not in MLflow: with ``files`` all its files, else some evaluations."""

    label: str
    files: bool
    cause: str


def download(run: Run, names: Iterable[str], into: Path, uri: str) -> str:
    """Fetch those of the run's store files that it has; why that failed, "" if it did not.

    Raises the http client's error when the server cannot be reached any more.
    """
    import requests
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    for name in sorted(set(names) & set(logged_files(run))):
        place = f"{run.info.artifact_uri}/{FOLDER}/{name}"
        try:
            download_artifacts(artifact_uri=place, dst_path=str(into), tracking_uri=uri)
        except (requests.ConnectionError, requests.Timeout):
            raise
        except (MlflowException, OSError) as error:
            return f"{run.info.artifact_uri}: {str(error).splitlines()[0][:200]}"
    return ""


def run_view(
    planned: dict[str, Any], run: Run, files: RunDir, logged: Logged
) -> tuple[RunView, Lack | None]:
    """One planned trial from its run, its downloaded files and its values; and what is lacking."""
    complete = (files.path / "config.json").exists()  # no trial is without one
    config = files.config() or config_from_params(run.data.params)
    evals = files.evals()
    known = {(record.step, accuracy_key(record)) for record in evals if record.problem}
    derived = {key for _, key in known}
    late = mirrored_rows(run).get("evals", [0, 0])[0] > len([r for r in evals if r.problem])
    if late:
        evals += logged.mean_evaluations(known)
        derived |= {key for _, key, *_ in logged.accuracies()}
    view = RunView(
        trial_id=planned["trial_id"],
        arm=planned["arm"],
        seed=planned["seed"],
        config=config,
        provenance=files.provenance() if complete else _provenance(run),
        status=_status(run, files.status(), config, logged),
        steps=logged.step_records(without=derived),
        evals=evals,
        finals=files.evaluations(),
        locked=run.info.status == "RUNNING",
    )
    cause = "trained when it was last mirrored" if view.locked else "not uploaded (yet)"
    label = f"{view.arm}, seed {view.seed}"
    return view, Lack(label, not complete, cause) if late or not complete else None


def config_from_params(params: dict[str, str]) -> dict[str, Any]:
    """The configuration that ``tracking.describe.flatten`` made these params of."""
    config: dict[str, Any] = {}
    for key, text in params.items():
        if key in _SHORT_PARAMS:
            continue
        section = config
        *parents, leaf = key.split(".")
        for parent in parents:
            section = section.setdefault(parent, {})
        section[leaf] = _parsed(text)
    return config


def rebuilt_manifest(name: str, parent: Run | None, children: list[Run]) -> dict[str, Any]:
    """A manifest of the trials that have a run, for a sweep whose own is not in MLflow.

    ``children``: one run a trial, in the order that the trials are to have.
    """
    tags = parent.data.tags if parent else {}
    trials = [
        {
            "trial_id": run.data.tags[TRIAL_TAG],
            "arm": run.data.tags.get("arm", "?"),
            "seed": int(run.data.tags.get("seed", 0)),
        }
        for run in children
    ]
    started = [run.info.start_time for run in [*([parent] if parent else []), *children]]
    return {
        "name": name,
        "question": tags.get("question", ""),
        "notes": [],
        "overrides": tags.get("overrides", "").split(),
        "arms": _arms(children),
        "trials": trials,
        "plan_id": (tags.get(PLANS_TAG, "").split() or [""])[-1],
        "created": min(started, default=0) / 1000,
    }


def _arms(children: list[Run]) -> list[dict[str, Any]]:
    """The arms as they started, each with those of its params in which the arms differ."""
    first: dict[str, Run] = {}
    for run in sorted(children, key=lambda run: (run.info.start_time, run.info.run_name)):
        first.setdefault(run.data.tags.get("arm", "?"), run)
    params = {
        arm: {key: text for key, text in run.data.params.items() if "." in key}
        for arm, run in first.items()
    }
    keys = sorted({key for own in params.values() for key in own})
    differing = [key for key in keys if len({own.get(key) for own in params.values()}) > 1]
    return [
        {
            "name": arm,
            "algorithm": first[arm].data.tags.get("algorithm", ""),
            "differs": {key: _parsed(own[key]) for key in differing if key in own},
        }
        for arm, own in params.items()
    ]


def _status(run: Run, stored: Status, config: dict[str, Any], logged: Logged) -> Status:
    """The stored status, unless the tags have a newer one."""
    state, reason = run.data.tags.get("status", stored.state), run.data.tags.get("reason", "")
    if (stored.state, cut(stored.reason, TAG_LIMIT)) == (state, reason):
        return stored
    steps = stored.steps or config.get("trainer", {}).get("steps", 0)
    return Status(state, reason, logged.last_step, steps, (run.info.end_time or 0) / 1000)


def _provenance(run: Run) -> list[dict[str, Any]]:
    sha = run.data.tags.get("git_sha") or None
    return [{"started": run.info.start_time / 1000, "git_sha": sha}]


def _parsed(text: str) -> Any:
    """A param's value: params are ``json.dumps`` of lists and schedules, ``str`` of all else."""
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError):
            continue
    return text
