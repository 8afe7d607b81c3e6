"""A named evaluation as an MLflow experiment: a run for each policy on each benchmark."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from cegppo_lab import metrics
from cegppo_lab.errors import LabError
from cegppo_lab.evaluate.samples import EvaluationDir
from cegppo_lab.store import RunStore
from cegppo_lab.tracking.connection import connect, reason, redact
from cegppo_lab.tracking.describe import PARAM_LIMIT, cut, flatten, mlflow_key
from cegppo_lab.tracking.experiment import all_runs, open_experiment

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

LOCK_TIMEOUT_S = 10.0
EVALUATION_TAG, BENCHMARK_TAG = "evaluation_id", "benchmark"
CONTENT_TAG = "mirrored_samples"
"""What a run shows: the hash of its values and of the table of samples; written last."""
_NOTE = "Final evaluations: a run for each policy on each benchmark. Intervals are in the report."


@dataclass(frozen=True)
class Scores:
    """A policy on a benchmark, as MLflow shows it; ``average``, ``passed``, ``majority`` at ``k``.

    ``benchmark``: of a part of a benchmark, a name that says so. ``length``: mean tokens of a
    response; ``truncated``: share of the responses that were cut.
    """

    policy: str
    benchmark: str
    evaluation_id: str
    k: int
    average: float
    passed: float
    majority: float
    length: float
    truncated: float

    def metrics(self) -> dict[str, float]:
        """By MLflow key: avg@k has the name that verl's validation has for it."""
        prefix = f"val-core/{self.benchmark}/acc"
        values = {
            metrics.accuracy(self.benchmark, self.k): self.average,
            f"{prefix}/pass@{self.k}": self.passed,
            f"{prefix}/maj@{self.k}": self.majority,
            metrics.LENGTH_MEAN: self.length,
            metrics.LENGTH_CLIPPED: self.truncated,
        }
        return {mlflow_key(name): value for name, value in values.items()}


def mirror_evaluations(store: RunStore, name: str, scores: Sequence[Scores], uri: str) -> int:
    """Make the experiment ``name`` show ``scores``; how many runs it changed.

    A run is found again by its evaluation's id and benchmark; one that shows all is left as it is.

    Raises:
        LabError: MLflow cannot be reached or written to. The samples in the store are whole.
    """
    again = f"type: python -m cegppo_lab evaluate name={name}"
    failure = f"no mirror at {{uri}}: {{reason}}; the store is whole; once MLflow answers, {again}"
    try:
        with (
            FileLock(store.root / ".mirror.lock", timeout=LOCK_TIMEOUT_S),
            connect(uri, failure=failure) as client,
        ):
            experiment = open_experiment(client, uri, name, _NOTE).experiment_id
            runs = all_runs(client, experiment)
            return sum(_mirror(client, experiment, runs, store, each) for each in scores)
    except Timeout:
        raise LabError(f"another process is mirroring {store.root}; wait, then {again}") from None
    except LabError:
        raise
    except Exception as error:  # whatever the client of a file, http or cloud store raises
        raise LabError(failure.format(uri=redact(uri), reason=reason(error))) from error


def _mirror(
    client: MlflowClient, experiment: str, runs: Sequence[Run], store: RunStore, scores: Scores
) -> bool:
    """Bring one run up to date; whether anything was written."""
    folder = EvaluationDir(store.evaluations / scores.evaluation_id)
    tags = {
        EVALUATION_TAG: scores.evaluation_id,
        BENCHMARK_TAG: scores.benchmark,
        "policy": scores.policy,
    }
    title = f"{scores.policy} on {scores.benchmark}"
    run = _found(runs, tags) or client.create_run(experiment, tags=tags, run_name=title)
    if run.info.lifecycle_stage != "active":
        client.restore_run(run.info.run_id)
    values = json.dumps(scores.metrics(), sort_keys=True).encode()
    content = hashlib.sha256(values + folder.parquet.read_bytes()).hexdigest()
    if run.data.tags.get(CONTENT_TAG) == content:
        return False
    run_id = run.info.run_id
    _log_values(client, run, folder, scores)
    client.log_artifact(run_id, str(folder.parquet))
    client.log_artifact(run_id, str(folder.path / "config.json"))
    client.set_terminated(run_id, "FINISHED")
    client.set_tag(run_id, CONTENT_TAG, content)
    return True


def _found(runs: Sequence[Run], tags: Mapping[str, str]) -> Run | None:
    """The run of this evaluation of these problems, active ones first."""
    keys = (EVALUATION_TAG, BENCHMARK_TAG)
    same = [run for run in runs if all(run.data.tags.get(key) == tags[key] for key in keys)]
    return same[0] if same else None


def _log_values(client: MlflowClient, run: Run, folder: EvaluationDir, scores: Scores) -> None:
    from mlflow.entities import Metric, Param

    config = folder.config()
    step = config["policy"]["step"] or 0
    now = round(time.time() * 1000)
    params = flatten(_params(config, scores))
    client.log_batch(
        run.info.run_id,
        metrics=[Metric(key, value, now, step) for key, value in scores.metrics().items()],
        params=[
            Param(mlflow_key(key), cut(value, PARAM_LIMIT))
            for key, value in params.items()
            if mlflow_key(key) not in run.data.params
        ],
    )


def _params(config: dict[str, Any], scores: Scores) -> dict[str, Any]:
    policy = {key: value for key, value in config["policy"].items() if key != "given"}
    sampling = {key: config["benchmark"][key] for key in ("temperature", "top_p", "max_tokens")}
    chosen = {"benchmark": scores.benchmark, "engine": config["engine"], "seed": config["seed"]}
    return {"policy": {**policy, "name": scores.policy}, **chosen, **sampling}
