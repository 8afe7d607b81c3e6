"""The paper's sweeps in memory: a source whose numbers are known, without a disk."""

from __future__ import annotations

from typing import Any

import numpy as np

from analysis.load.assemble import RunView, assemble, token_frame
from analysis.load.frames import SweepData
from cegppo_lab.errors import LabError
from cegppo_lab.metrics import CLIPFRAC, CLIPFRAC_IMPROBABLE, ENTROPY, GRAD_NORM, PPO_KL
from cegppo_lab.store import DONE, EvalRecord, Status, StepRecord, TokenSample

STEPS, SEEDS = 20, (11, 12, 13, 14)
SWITCH = {"0": 0.0, "12": 0.5}
ARMS: dict[str, dict[str, Any]] = {
    "GRPO": {"name": "grpo"},
    "GRPO + 0.01 H": {"name": "grpo", "entropy_coef": 0.01},
    "DAPO": {"name": "dapo", "clip_high": 0.28},
    "CISPO": {"name": "cispo"},
    "GSPO": {"name": "gspo"},
    "CE-GPPO(0, 1)": {"name": "cegppo", "beta1": 0.0, "beta2": 1.0},
    "CE-GPPO(0.5, 1)": {"name": "cegppo", "beta1": 0.5, "beta2": 1.0},
    "CE-GPPO(0.75, 1)": {"name": "cegppo", "beta1": 0.75, "beta2": 1.0},
    "CE-GPPO(1, 0)": {"name": "cegppo", "beta1": 1.0, "beta2": 0.0},
    "CE-GPPO(switch)": {"name": "cegppo", "beta1": SWITCH, "beta2": 1.0},
}
SWEEPS = {
    "missing_gradients": ("CE-GPPO(1, 0)", "CE-GPPO(0, 1)", "GRPO"),
    "algorithms": ("GRPO", "DAPO", "CE-GPPO(0.5, 1)", "CE-GPPO(0.75, 1)", "CISPO", "GSPO"),
    "beta_grid": ("CE-GPPO(0.75, 1)", "CE-GPPO(0.5, 1)", "CE-GPPO(0, 1)", "DAPO"),
    "entropy_mitigation": ("GRPO", "GRPO + 0.01 H", "DAPO", "CE-GPPO(0.5, 1)"),
    "beta_switch": ("CE-GPPO(0, 1)", "CE-GPPO(switch)"),
}


def config(arm: str, seed: int, model: str = "table_walk", trainer: str = "embedded") -> dict:
    algorithm = {"clip_low": 0.2, "clip_high": 0.2, **ARMS[arm]}
    return {
        "seed": seed,
        "algorithm": algorithm,
        "model": {"name": model},
        "task": {"name": "table_walk", "version": 1},
        "trainer": {"name": trainer, "steps": STEPS},
    }


def run(
    arm: str,
    seed: int,
    *,
    name: str = "",
    model: str = "table_walk",
    trainer: str = "embedded",
    steps: int = STEPS,
    benchmarks: tuple[str, ...] = ("table_walk",),
    metrics: tuple[str, ...] = (ENTROPY, PPO_KL, GRAD_NORM),
    state: str = DONE,
    reason: str = "",
) -> RunView:
    """One run: entropy falls at a speed of the arm's own, with noise of the seed's."""
    place = list(ARMS).index(arm)
    noise = np.random.default_rng([seed, place])
    tilt = 0.03 * noise.normal()
    rows, evals = [], []
    for step in range(steps + 1):
        share = step / STEPS
        values = {
            ENTROPY: 1 - (0.8 - 0.07 * place + tilt) * share,
            PPO_KL: 1e-3 + 1e-4 * noise.normal(),
            GRAD_NORM: 0.1 + 0.01 * noise.random(),
            CLIPFRAC: 0.01,
            CLIPFRAC_IMPROBABLE: 0.008 + 1e-4 * noise.random(),
        }
        if step:
            kept = {*metrics, CLIPFRAC, CLIPFRAC_IMPROBABLE}
            rows.append(StepRecord(step, {k: v for k, v in values.items() if k in kept}))
        if step % 10 == 0:
            evals += [_evaluation(benchmark, step, noise) for benchmark in benchmarks]
    return RunView(
        trial_id=f"{place:02d}{seed}{model[-2:]}",
        arm=name or arm,
        seed=seed,
        config=config(arm, seed, model, trainer),
        provenance=[{"git_sha": "0123abcd", "machine": {"cuda": None}}],
        status=Status(state, reason, steps, STEPS),
        steps=rows,
        evals=evals,
    )


def _evaluation(benchmark: str, step: int, noise: np.random.Generator) -> EvalRecord:
    problems = [f"p{i}" for i in range(6) for _ in range(4)]
    correct = (noise.random(24) < 0.3 + 0.02 * step).astype(float).tolist()
    return EvalRecord(step, benchmark, problems, list(range(4)) * 6, correct)


def tokens(step: int) -> TokenSample:
    """Two tokens inside and two outside, of 80 and 20."""
    return TokenSample(
        step, 80, 20, [0.9, 0.1, 0.2, 0.7], [1.0, 1.1, 0.5, 1.4], [1.0, -1.0, -1.0, 1.0],
        [0.5] * 4, [1, 2, 3, 4], [0, 1, 2, 3], [False, False, True, True],
    )  # fmt: skip


def sweep(name: str, runs: list[RunView], **options: Any) -> SweepData:
    """The frames of ``runs`` under a manifest of their own."""
    arms = list(dict.fromkeys(view.arm for view in runs))
    of = {view.arm: view.config["algorithm"] for view in runs}
    manifest = {
        "name": name,
        "question": f"What does {name} ask?",
        "notes": [f"A note of {name}."],
        "overrides": [],
        "arms": [
            {
                "name": arm,
                "algorithm": of[arm]["name"],
                "differs": {f"algorithm.{k}": v for k, v in of[arm].items() if k != "name"},
            }
            for arm in arms
        ],
        "trials": [{"trial_id": r.trial_id, "arm": r.arm, "seed": r.seed} for r in runs],
        "plan_id": f"plan-{name}",
        "created": 1_760_000_000.0,
    }
    rows = [{"trial_id": r.trial_id, "arm": r.arm, "seed": r.seed} for r in runs]
    options.setdefault(
        "load_tokens", lambda: token_frame((row, [tokens(1), tokens(2)]) for row in rows)
    )
    return assemble(manifest, runs, "memory", **options)


class Memory:
    """A ``Source`` of ready sweeps; by default the five that feed the paper's figures."""

    where = "memory"

    def __init__(self, sweeps: dict[str, SweepData] | None = None) -> None:
        self._sweeps = sweeps or {
            name: sweep(name, [run(arm, seed) for arm in arms for seed in SEEDS])
            for name, arms in SWEEPS.items()
        }

    def names(self) -> list[str]:
        return sorted(self._sweeps)

    def sweep(self, name: str) -> SweepData:
        if name not in self._sweeps:
            raise LabError(f"no sweep {name!r}")
        return self._sweeps[name]
