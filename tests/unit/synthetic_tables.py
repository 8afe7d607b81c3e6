"""Sweeps in memory whose every accuracy is set by a formula: for the paper's tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.load import SweepData
from analysis.load.assemble import RunView, assemble
from cegppo_lab.metrics import ENTROPY
from cegppo_lab.store import DONE, EvalRecord, Status, StepRecord

STEPS, EVERY = 20, 10
SEEDS = (11, 12, 13, 14, 15, 16)
DIFFICULTY = (-0.1, -0.04, 0.0, 0.05, 0.09)
ALGORITHMS: dict[str, dict[str, Any]] = {
    "GRPO": {"name": "grpo"},
    "DAPO": {"name": "dapo", "clip_high": 0.28},
    "CISPO": {"name": "cispo"},
    "GSPO": {"name": "gspo"},
    "CE-GPPO(0.5, 1)": {"name": "cegppo", "beta1": 0.5, "beta2": 1.0},
    "CE-GPPO(0.75, 1)": {"name": "cegppo", "beta1": 0.75, "beta2": 1.0},
}
TOP = "CE-GPPO(0.75, 1)"
"""The best where methods are far apart."""
PLACES = {method: place for place, method in enumerate(ALGORITHMS)}
Score = Callable[[str, int, str, int], float]
"""(method, seed, benchmark, step) -> mean accuracy."""


def wobble(method: str, seed: int) -> float:
    """A deviation of at most 1 that differs between seeds and methods."""
    return float(np.random.default_rng([seed, PLACES[method]]).uniform(-1, 1))


def close(method: str, seed: int, benchmark: str, step: int) -> float:
    """Methods that nobody tells apart; benchmarks and steps differ."""
    level = 0.3 + 0.2 * step / STEPS + 0.05 * (benchmark[-1] == "5")
    return level + 0.04 * wobble(method, seed)


def apart(method: str, seed: int, benchmark: str, step: int) -> float:
    """Methods far apart at the end, in the order of ``ALGORITHMS``."""
    level = 0.3 + 0.08 * (PLACES[method] + 1) * step / STEPS + 0.05 * (benchmark[-1] == "5")
    return level + 0.005 * wobble(method, seed)


def run(
    method: str,
    seed: int,
    score: Score,
    *,
    model: str = "table_walk",
    trainer: str = "embedded",
    benchmarks: Sequence[str] = ("table_walk",),
    last: int = STEPS,
    version: int = 1,
    problems: bool = True,
    name: str = "",
) -> RunView:
    """One run; ``problems`` False: only the means are known, as of a run read from MLflow."""
    fall, level = 0.03 - 0.003 * PLACES[method], 1 + wobble(method, seed) / 20
    steps = [StepRecord(step, {ENTROPY: level - fall * step}) for step in range(1, last + 1)]
    evals = []
    for step in range(0, last + 1, EVERY):
        for benchmark in benchmarks:
            mean = score(method, seed, benchmark, step)
            shifts = DIFFICULTY if problems else (0.0,)
            correct = [mean + shift * (1 + seed % 3) for shift in shifts]
            named = [f"p{i}" for i in range(len(shifts))] if problems else ["(mean)"]
            evals.append(EvalRecord(step, benchmark, named, [0] * len(shifts), correct))
    return RunView(
        trial_id=f"{PLACES[method]}-{seed}-{model}",
        arm=name or (method if trainer == "embedded" else f"{method} {model[16:].upper()}"),
        seed=seed,
        config={
            "seed": seed,
            "algorithm": dict(ALGORITHMS[method]),
            "model": {"name": model},
            "task": {"name": benchmarks[0], "version": version},
            "trainer": {"name": trainer, "steps": STEPS},
        },
        provenance=[{"git_sha": "0123abcd", "machine": {"cuda": None}}],
        status=Status(DONE, "", last, STEPS),
        steps=steps,
        evals=evals,
    )


def sweep(runs: Sequence[RunView], name: str = "algorithms", pending: Sequence[RunView] = ()):
    """The frames of ``runs``; of ``pending`` only the plan is there."""
    views = [
        *runs,
        *(RunView(v.trial_id, v.arm, v.seed, {}, [], Status(), [], []) for v in pending),
    ]
    algorithms = {view.arm: view.config["algorithm"] for view in [*runs, *pending]}
    arms = [
        {
            "name": arm,
            "algorithm": settings["name"],
            "differs": {f"algorithm.{k}": v for k, v in settings.items() if k != "name"},
        }
        for arm, settings in algorithms.items()
    ]
    manifest = {
        "name": name,
        "question": "?",
        "notes": [],
        "overrides": [],
        "arms": arms,
        "trials": [{"trial_id": v.trial_id, "arm": v.arm, "seed": v.seed} for v in views],
        "plan_id": f"plan-{name}",
        "created": 1_760_000_000.0,
    }
    return assemble(manifest, views, "memory")


def embedded(score: Score, methods: Sequence[str] = tuple(ALGORITHMS), **options: Any) -> SweepData:
    """Every method at every seed on the table walk."""
    seeds = options.pop("seeds", SEEDS)
    return sweep([run(method, seed, score, **options) for method in methods for seed in seeds])


def paper(
    score: Score,
    methods: Sequence[str] = tuple(ALGORITHMS),
    benchmarks: Sequence[str] = ("aime24", "aime25"),
    seeds: Sequence[int] = SEEDS,
    sizes: Sequence[str] = ("1.5b", "7b"),
) -> SweepData:
    """Both of the paper's models in one sweep, by verl, on benchmarks of the paper."""
    options = {"trainer": "verl", "benchmarks": benchmarks}
    return sweep(
        [
            run(method, seed, score, model=f"r1-distill-qwen-{size}", **options)
            for size in sizes
            for method in methods
            for seed in seeds
        ],
        "paper/algorithms",
    )


def row(table, method, benchmark="table_walk", model=None, source="measured"):
    """The only row of a paper table for a method and benchmark."""
    frame = table.frame
    rows = frame[
        (frame["method"] == method) & (frame["benchmark"] == benchmark)
        & (frame["source"] == source) & ((frame["model"] == model) | (model is None))
    ]  # fmt: skip
    assert len(rows) == 1
    return rows.iloc[0]


def marks(table, benchmark="table_walk", model=None):
    """What marks the measured methods have on a benchmark."""
    rows = table.frame[(table.frame["source"] == "measured")]
    rows = rows[(rows["benchmark"] == benchmark) & ((rows["model"] == model) | (model is None))]
    return dict(zip(rows["method"], rows["mark"], strict=True))


def cells(score, method, benchmark="table_walk", step=STEPS, seeds=SEEDS):
    """Seed x problem as the synthetic runs make them, from their formula."""
    return pd.DataFrame(
        {f"p{i}": [score(method, s, benchmark, step) + d * (1 + s % 3) for s in seeds]
         for i, d in enumerate(DIFFICULTY)},
        index=pd.Index(seeds, name="seed"),
    )  # fmt: skip
