"""What the missing part of a plan will cost, from step times that the store has measured."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import fmean
from typing import Any

from cegppo_lab import metrics as names
from cegppo_lab.config import RuntimeConfig
from cegppo_lab.provenance import resources
from cegppo_lab.store import RunDir, RunStore
from cegppo_lab.sweep.nodes import Node, concurrency
from cegppo_lab.trial import Trial

SAMPLED_RUNS = 5
"""Runs whose step times are averaged, the newest ones."""
_NOT_THE_PACE = {"seed", "semantics"}
_OF_THE_LENGTH = ("steps", "eval_every", "lr_warmup_steps", "lr")


@dataclass(frozen=True)
class Price:
    """Hours of what is missing; of the trials whose pace is known.

    ``wall_h`` assumes ``concurrent`` trials at a time. ``unknown``: trials that nothing like them
    was measured for. ``priced``: hours of one CPU and one GPU by trial id, for those that are.
    """

    cpu_h: float
    gpu_h: float
    wall_h: float
    concurrent: int
    unknown: tuple[str, ...]
    hours: Mapping[str, float]

    def text(self) -> str:
        """One line; a number only for what was measured."""
        if not self.hours and not self.unknown:
            return "price: nothing to run"
        parts = []
        if self.hours:
            parts.append(
                f"about {self.wall_h:.2g} h wall time at {self.concurrent} at a time, "
                f"{self.cpu_h:.2g} CPU-hours, {self.gpu_h:.2g} GPU-hours"
            )
        if self.unknown:
            trials = f"{len(self.unknown)} trials" if self.hours else "all"
            parts.append(f"{trials} unknown: this store has measured nothing like them")
        return "price: " + "; ".join(parts)


def price(
    store: RunStore,
    missing: Sequence[Trial],
    runtime: RuntimeConfig,
    nodes: Sequence[Node] | None = None,
    at_most: int | None = None,
) -> Price:
    """The price of the steps that ``missing`` still lack.

    A trial's pace is the mean step time (evaluations included) of the newest runs of the same arm
    at other seeds, else of runs that differ in the algorithm alone, on the same resources.
    ``nodes``: what the trials are placed on, by default this machine. ``at_most``: trials that are
    started at a time, whatever the nodes hold.
    """
    paces = _Paces(store, runtime)
    hours: dict[str, float] = {}
    for trial in missing:
        if (seconds := paces.of(trial)) is not None:
            left = trial.config.trainer.steps - store.run(trial.trial_id).status().step
            hours[trial.trial_id] = max(left, 0) * seconds / 3600
    used = {trial.trial_id: trial.config.runtime for trial in missing}
    total = sum(hours.values())
    holds = concurrency(used.values(), nodes or [Node.of_this_machine(runtime)])
    concurrent = min(holds, at_most or holds)
    return Price(
        cpu_h=sum(hours.get(key, 0.0) * each.cpus * each.nodes for key, each in used.items()),
        gpu_h=sum(hours.get(key, 0.0) * each.gpus * each.nodes for key, each in used.items()),
        wall_h=max(total / concurrent, max(hours.values(), default=0.0)),
        concurrent=concurrent,
        unknown=tuple(trial.trial_id for trial in missing if trial.trial_id not in hours),
        hours=hours,
    )


class _Paces:
    """Seconds per step by kind of run, read from the store when first asked for."""

    def __init__(self, store: RunStore, runtime: RuntimeConfig) -> None:
        self._store = store
        self._resources = resources(runtime)
        self._runs: dict[str, list[RunDir]] = defaultdict(list)
        self._known: dict[str, float | None] = {}
        for trial_id in store.trial_ids():
            run = store.run(trial_id)
            for kind in _kinds(run.config()):
                self._runs[kind].append(run)

    def of(self, trial: Trial) -> float | None:
        """Seconds of a step of ``trial``; None where nothing like it was measured."""
        return next(
            (pace for kind in _kinds(trial.stored_config()) if (pace := self._pace(kind))), None
        )

    def _pace(self, kind: str) -> float | None:
        if kind not in self._known:
            newest = sorted(self._runs[kind], key=lambda run: run.status().time, reverse=True)
            measured = (seconds for run in newest if (seconds := self._seconds(run)))
            sample = list(islice(measured, SAMPLED_RUNS))
            self._known[kind] = fmean(sample) if sample else None
        return self._known[kind]

    def _seconds(self, run: RunDir) -> float | None:
        attempts = run.provenance()
        if not attempts or attempts[-1].get("resources", self._resources) != self._resources:
            return None
        times = [
            row.metrics[names.TIME_STEP] for row in run.steps() if names.TIME_STEP in row.metrics
        ]
        return fmean(times) if times else None


def _kinds(content: Mapping[str, Any]) -> tuple[str, str]:
    """Keys of the runs that have this one's pace: of the same arm, of any algorithm."""
    rest = {key: value for key, value in content.items() if key not in _NOT_THE_PACE}
    trainer = rest.get("trainer", {})
    rest["trainer"] = {key: value for key, value in trainer.items() if key not in _OF_THE_LENGTH}
    arm = json.dumps(rest, sort_keys=True)
    return arm, json.dumps({**rest, "algorithm": None}, sort_keys=True)
