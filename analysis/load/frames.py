"""Tidy frames of one sweep: what every figure, table, statistic and claim is computed from."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from cegppo_lab.store import DONE

STEP_COLUMNS = ["trial_id", "arm", "seed", "step", "metric", "value"]
EVAL_COLUMNS = [
    "trial_id", "arm", "seed", "step", "benchmark", "problem_id", "sample", "correct", "evaluation",
]  # fmt: skip
TRIAL_COLUMNS = ["trial_id", "arm", "seed", "state", "reason", "step", "steps"]
TOKEN_COLUMNS = [
    "trial_id", "arm", "seed", "step", "probability", "ratio", "advantage", "entropy",
    "token", "position", "outside", "weight",
]  # fmt: skip
SCALES = ("embedded", "GPU", "paper")
"""How large the runs are: a tiny policy on a CPU; any run on a GPU; the paper's own set-up."""


@dataclass(frozen=True)
class Arm:
    """One arm: its name, its algorithm's name, what the manifest says differs, all it resolved to.

    ``settings`` is the ``algorithm`` section of a trial's config ({} before any trial started),
    ``model`` the name of its policy ("" where unknown).
    """

    name: str
    algorithm: str
    differs: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    model: str = ""

    @property
    def title(self) -> str:
        """The name without the model that ends it, for a panel that shows one model."""
        return re.sub(r" \d+(\.\d+)?B\b", "", self.name)

    def coefficient(self, key: str) -> float | dict[int, float] | None:
        """An algorithm coefficient as a number or ``{step: value}``; None where it has none."""
        value = self.setting(key)
        if isinstance(value, Mapping):
            return {int(step): float(number) for step, number in sorted(value.items(), key=_start)}
        return None if value is None else float(value)

    def setting(self, key: str) -> Any:
        """A key of the algorithm, as the manifest or the config has it; None where neither does."""
        return self.differs.get(f"algorithm.{key}", self.settings.get(key))

    def switches(self) -> list[tuple[str, int, float, float]]:
        """(key, step, value before, value after) for every change of a scheduled coefficient."""
        found = []
        for path, value in self.differs.items():
            if not (path.startswith("algorithm.") and isinstance(value, Mapping)):
                continue
            key = path.removeprefix("algorithm.")
            points = list(self.coefficient(key).items())
            pairs = pairwise(points)
            found += [(key, step, before, after) for (_, before), (step, after) in pairs]
        return found


@dataclass(frozen=True)
class SweepData:
    """All that a source knows of a sweep.

    ``steps``: trial_id, arm, seed, step, metric, value. ``evals``: trial_id, arm, seed, step,
    benchmark, problem_id, sample, correct, evaluation ("" of the training loop's verdicts, else the
    id of the final evaluation). ``trials``: every planned trial, run or not: trial_id, arm, seed,
    state, reason, step (reached), steps (planned; 0 where unknown). ``problems``:
    a sentence for everything that a reader of the numbers should know is not whole. ``scale``: one
    of ``SCALES``. ``source``: the store or the tracking URI that the numbers come from.
    """

    manifest: dict[str, Any]
    arms: list[Arm]
    steps: pd.DataFrame
    evals: pd.DataFrame
    trials: pd.DataFrame
    provenance: dict[str, list[dict[str, Any]]]
    configs: dict[str, dict[str, Any]]
    problems: list[str]
    scale: str = SCALES[0]
    source: str = ""
    load_tokens: Callable[[], pd.DataFrame] | None = None

    @property
    def name(self) -> str:
        """The sweep's name."""
        return self.manifest["name"]

    def planned(self, arm: str) -> int:
        """How many seeds the plan has for an arm."""
        return int((self.trials["arm"] == arm).sum())

    def length(self, arm: str) -> int:
        """The planned steps of an arm's runs: the longest; the sweep's before any has started."""
        own = int(self.trials.loc[self.trials["arm"] == arm, "steps"].max())
        return own or int(self.trials["steps"].max())

    def metric(self, arm: str, metric: str) -> pd.DataFrame:
        """Values of one metric as a (seed x step) table, NaN where a run has no finite one."""
        rows = self.steps[(self.steps["arm"] == arm) & (self.steps["metric"] == metric)]
        table = rows.pivot(index="seed", columns="step", values="value").astype(float)
        return table.where(np.isfinite(table))

    def accuracy(self, arm: str, benchmark: str) -> pd.DataFrame:
        """Held-out accuracy as a (seed x step) table: mean over problems of the mean over samples.

        In [0, 1]; step 0 is the policy before training.
        """
        rows = self.evals[(self.evals["arm"] == arm) & (self.evals["benchmark"] == benchmark)]
        problems = rows.groupby(["seed", "step", "problem_id"])["correct"].mean()
        return problems.groupby(["seed", "step"]).mean().unstack("step").astype(float)

    def early_ends(self) -> pd.DataFrame:
        """The rows of ``trials`` that have trained and did not reach their end."""
        return self.trials[(self.trials["state"] != DONE) & (self.trials["step"] > 0)]

    def correctness(self, arm: str, benchmark: str, step: int) -> pd.DataFrame:
        """Mean correctness at a step as a (seed x problem) table; NaN where a seed lacks one."""
        rows = self.evals
        rows = rows[
            (rows["arm"] == arm) & (rows["benchmark"] == benchmark) & (rows["step"] == step)
        ]
        means = rows.groupby(["seed", "problem_id"])["correct"].mean()
        return means.unstack("problem_id").astype(float)

    def benchmarks(self) -> list[str]:
        """The benchmarks that some run was evaluated on, sorted."""
        return sorted(self.evals["benchmark"].unique())

    def arm(self, name: str) -> Arm:
        """The arm of that name; ``KeyError`` if there is none."""
        return {arm.name: arm for arm in self.arms}[name]

    def models(self) -> list[str]:
        """The policies of the arms, in the order of the arms."""
        return list(dict.fromkeys(arm.model for arm in self.arms))

    def only(self, arms: list[Arm]) -> SweepData:
        """The same sweep with these arms alone, in this order."""
        names = [arm.name for arm in arms]
        frames = {key: getattr(self, key) for key in ("steps", "evals", "trials")}
        kept = {key: frame[frame["arm"].isin(names)] for key, frame in frames.items()}
        ids = set(kept["trials"]["trial_id"])
        return replace(
            self,
            arms=arms,
            **kept,
            provenance={key: value for key, value in self.provenance.items() if key in ids},
            configs={key: value for key, value in self.configs.items() if key in ids},
        )

    def renamed(self, names: Mapping[str, str]) -> SweepData:
        """The same sweep with every arm called ``names[arm.name]``."""
        frames = {key: getattr(self, key) for key in ("steps", "evals", "trials")}
        return replace(
            self,
            arms=[replace(arm, name=names[arm.name]) for arm in self.arms],
            load_tokens=lambda: _called(self.tokens(), names),
            **{key: _called(frame, names) for key, frame in frames.items()},
        )

    def tokens(self) -> pd.DataFrame:
        """The stored token samples (``TOKEN_COLUMNS``), read when asked for.

        ``weight``: how many tokens of the step one row stands for. Empty where none were stored.
        """
        if self.load_tokens is None:
            return pd.DataFrame(columns=TOKEN_COLUMNS)
        found = self.load_tokens()
        return found[found["arm"].isin([arm.name for arm in self.arms])]


def _called(frame: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    return frame.assign(arm=frame["arm"].map(names))


def _start(item: tuple[Any, Any]) -> int:
    return int(item[0])
