"""A small sweep written through ``RunStore.writer``: known numbers for the analysis tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from cegppo_lab.metrics import (
    CLIPFRAC_HIGH,
    CLIPFRAC_LOW,
    ENTROPY,
    GRAD_NORM,
    PPO_KL,
    REWARD_MEAN,
)
from cegppo_lab.store import DONE, STOPPED, EvalRecord, RunStore, StepRecord

SEEDS = (11, 12, 13)
STEPS = 64
BENCHMARK = "table_walk"
PROBLEMS, SAMPLES, EVERY = 12, 4, 8
ARMS: list[dict[str, Any]] = [
    {"name": "GRPO", "algorithm": "grpo", "differs": {}},
    {"name": "DAPO", "algorithm": "dapo", "differs": {"algorithm.clip_high": 0.28}},
    {
        "name": "CE-GPPO(0.5, 1)",
        "algorithm": "cegppo",
        "differs": {"algorithm.beta1": 0.5, "algorithm.beta2": 1.0},
    },
    {
        "name": "CE-GPPO(0.75, 1)",
        "algorithm": "cegppo",
        "differs": {"algorithm.beta1": 0.75, "algorithm.beta2": 1.0},
    },
]
END_ENTROPY = {"GRPO": 0.28, "DAPO": 0.54, "CE-GPPO(0.5, 1)": 0.71, "CE-GPPO(0.75, 1)": 0.43}
STOP_REASON = "entropy collapse: below 0.05 for 5 steps"


def trial_id(arm: str, seed: int) -> str:
    """A stand-in for the content hash."""
    return f"{ARM_PLACE.get(arm, 9):02d}{seed:06d}"


ARM_PLACE = {arm["name"]: place for place, arm in enumerate(ARMS)}


def manifest(name: str, arms: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """A manifest over ``arms`` and ``SEEDS``."""
    trials = [
        {"trial_id": trial_id(arm["name"], seed), "arm": arm["name"], "seed": seed}
        for arm in arms
        for seed in SEEDS
    ]
    return {
        "name": name,
        "question": "Does preserving clipped gradients hold the policy's entropy up?",
        "notes": ["The head is scaled by 40: see the model's page."],
        "overrides": ["trainer.steps=64"],
        "arms": arms,
        "trials": trials,
        "plan_id": "abc123",
        "created": 1_760_000_000.0,
        **changes,
    }


def metrics_at(arm: str, step: int, noise: np.random.Generator) -> dict[str, float]:
    """Plausible numbers of one step."""
    progress = step / STEPS
    end = END_ENTROPY.get(arm, 0.5)
    return {
        ENTROPY: 0.946 + (end - 0.946) * progress**0.8 + 0.03 * noise.normal(),
        PPO_KL: 6e-4 * float(np.exp(0.5 * noise.normal() + 3 * (noise.random() < 0.03))),
        GRAD_NORM: 0.3 + 0.05 * noise.normal() ** 2,
        REWARD_MEAN: 0.3 + 0.35 * progress + 0.02 * noise.normal(),
        CLIPFRAC_LOW: 0.002 + 1e-4 * noise.normal(),
        CLIPFRAC_HIGH: 0.004 + 1e-4 * noise.normal(),
    }


def write_trial(
    store: RunStore,
    arm: dict[str, Any],
    seed: int,
    *,
    last: int = STEPS,
    state: str = DONE,
    reason: str = "",
    at: Callable[[str, int, np.random.Generator], dict[str, float]] = metrics_at,
) -> None:
    """Write one trial up to step ``last``."""
    noise = np.random.default_rng([seed, ARM_PLACE.get(arm["name"], 9)])
    tilt = 0.06 * noise.normal()
    betas = {k.removeprefix("algorithm."): v for k, v in arm["differs"].items()}
    config = {
        "seed": seed,
        "algorithm": {"name": arm["algorithm"], **betas},
        "model": {"name": "tiny", "head_scale": 40.0},
        "task": {"name": "table_walk"},
        "trainer": {"name": "embedded", "steps": STEPS, "lr": 4e-5},
    }
    with store.writer(trial_id(arm["name"], seed), config) as run:
        run.add_provenance(
            {
                "started": 1_760_000_000.0,
                "cegppo_lab": "0.1.0",
                "git_sha": "0123abcd",
                "git_dirty": False,
                "python": "3.11.7",
                "packages": {"torch": "2.13.0", "transformers": "5.10.4"},
                "machine": {"platform": "Linux", "cpus": 2, "cuda": None},
                "resumed_from": 0,
            }
        )
        for step in range(last + 1):
            metrics = at(arm["name"], step, noise)
            if ENTROPY in metrics:
                metrics[ENTROPY] += tilt * step / STEPS
            evals = [_evaluation(step, noise)] if step % EVERY == 0 else []
            run.append(StepRecord(step, metrics, evals, time=1_760_000_000.0 + step))
        run.set_status(state, reason=reason, step=last, steps=STEPS)


def _evaluation(step: int, noise: np.random.Generator) -> EvalRecord:
    chance = 0.32 + 0.33 * step / STEPS
    problems = [f"p{i}" for i in range(PROBLEMS) for _ in range(SAMPLES)]
    correct = (noise.random(len(problems)) < chance).astype(float).tolist()
    samples = list(range(SAMPLES)) * PROBLEMS
    return EvalRecord(step, BENCHMARK, problems, samples, correct, 1_760_000_000.0 + step)


def write_sweep(store: RunStore, name: str = "quickstart") -> None:
    """4 arms x 3 seeds x 64 steps; one CE-GPPO trial stopped at step 40, one DAPO trial missing."""
    store.write_manifest(manifest(name, ARMS))
    for arm in ARMS:
        for seed in SEEDS:
            if (arm["name"], seed) == ("DAPO", 13):
                continue
            stopped = (arm["name"], seed) == ("CE-GPPO(0.75, 1)", 12)
            ending = {"last": 40, "state": STOPPED, "reason": STOP_REASON} if stopped else {}
            write_trial(store, arm, seed, **ending)


@cache
def shared_sweep() -> tuple[RunStore, TemporaryDirectory[str]]:
    """The sweep of ``write_sweep``, written once a test run; to be read only."""
    folder = TemporaryDirectory(prefix="sweep-")
    store = RunStore(folder.name)
    write_sweep(store)
    return store, folder
