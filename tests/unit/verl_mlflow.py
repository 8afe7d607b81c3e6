"""MLflow experiments as plain verl runs leave them, written by verl's own MLflow backend.

``python -m tests.unit.verl_mlflow sqlite:////tmp/verl.db my_project`` makes one to look at.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

ARMS = {"grpo": 0.3, "dapo": 0.6, "cegppo": 0.7}
"""Run name prefixes and their entropy at the end."""
SEEDS = (1, 2, 3)
STEPS, EVERY = 10, 5
SOURCE = "math-ai/aime24"
MAPPING = """
scale: GPU
question: Which arm keeps its entropy up?
runs:
  - {run: "grpo-*", arm: GRPO, algorithm: grpo, seed: {param: data/seed}}
  - {run: "dapo-*", arm: DAPO, algorithm: dapo, settings: {clip_high: 0.28},
     seed: {regex: "seed(\\\\d+)"}}
  - {run: "cegppo-*", arm: "CE-GPPO(0.5, 1)", algorithm: cegppo,
     settings: {beta1: 0.5, beta2: 1.0}, seed: {param: data/seed}}
"""


def config(run_name: str, seed: int, steps: int | None = None) -> dict[str, Any]:
    """A few of verl's own keys, nested as verl hands them to its tracker."""
    return {
        "data": {"seed": seed, "train_files": ["train.parquet"]},
        "actor_rollout_ref": {"actor": {"clip_ratio_low": 0.2, "policy_loss": {"loss_mode": "x"}}},
        "trainer": {"experiment_name": run_name, "total_training_steps": steps},
    }


def metrics_at(step: int, end: float, noise: np.random.Generator) -> dict[str, float]:
    """What verl's trainer logs for one step, under its names (a few of them)."""
    row: dict[str, float] = {}
    if step:
        row = {
            "actor/entropy": 0.9 + (end - 0.9) * step / STEPS + 0.01 * noise.normal(),
            "actor/ppo_kl": 1e-3 * float(np.exp(noise.normal())),
            "actor/grad_norm": 0.2 + 0.02 * noise.normal(),
            "critic/rewards/mean": 0.2 + 0.3 * step / STEPS,
            "training/global_step": step,
            "timing_s/step": 30.0,
        }
    if step % EVERY == 0:
        row[f"val-core/{SOURCE}/acc/mean@32"] = 0.1 + 0.2 * step / STEPS + 0.01 * noise.normal()
        row[f"val-core/{SOURCE}/acc/best@32/mean"] = 0.5
        row[f"val-aux/{SOURCE}/reward/mean@32"] = 0.3
    return row


def log_run(
    project: str,
    name: str,
    *,
    seed: int,
    end: float = 0.5,
    last: int = STEPS,
    planned: int | None = None,
    at: Callable[[int, float, np.random.Generator], dict[str, float]] = metrics_at,
) -> None:
    """One run of verl's trainer up to step ``last``; inside ``backend``."""
    from verl.utils.tracking import Tracking

    tracking = Tracking(project, name, "mlflow", config=config(name, seed, planned))
    noise = np.random.default_rng([seed, *name.encode()])
    for step in range(last + 1):
        if row := at(step, end, noise):
            tracking.log(row, step)
    tracking.finish()


@contextmanager
def backend(uri: str) -> Iterator[None]:
    """verl's MLflow backend pointed at ``uri``; the environment is put back after."""
    before = dict(os.environ)
    os.environ |= {"MLFLOW_TRACKING_URI": uri, "MLFLOW_DISABLE_TELEMETRY": "true"}
    import mlflow

    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)
        os.environ.clear()
        os.environ.update(before)


def write_experiment(uri: str, project: str) -> None:
    """3 arms x 3 seeds x ``STEPS`` steps, evaluated every ``EVERY``."""
    with backend(uri):
        for arm, end in ARMS.items():
            for seed in SEEDS:
                log_run(project, f"{arm}-seed{seed}", seed=seed, end=end)


if __name__ == "__main__":
    write_experiment(sys.argv[1], sys.argv[2])
    print(MAPPING)
