"""A cluster sweep on a laptop: the same plan, through real verl on the CPU, small and short."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cegppo_lab.compose import resolve
from cegppo_lab.config import RunConfig, parse_run
from cegppo_lab.errors import LabError
from cegppo_lab.sweep.plan import Plan, flattened
from cegppo_lab.trainers.verl.overrides import changed_by_cpu, verl_overrides
from cegppo_lab.trainers.verl.trainer import phases, planned_places
from cegppo_lab.trial import Trial, make_trial

STEPS = 2
PROMPTS_PER_MINI_BATCH = 2
_TINY = {"task": "table_walk", "model": "table_walk"}
_NO_DATA = "the shipped policy and its task stand in: no download"
_SHORT = "a few steps of small batches show that the job works"
_ONE_MACHINE = "one machine without a GPU"
_REASONS = {
    "model": _NO_DATA,
    "task": _NO_DATA,
    "benchmarks": _NO_DATA,
    "trainer": _SHORT,
    "runtime": _ONE_MACHINE,
}


@dataclass(frozen=True)
class Change:
    """One setting that a rehearsal has otherwise: its key, both values, and why."""

    key: str
    was: Any
    now: Any
    why: str


def rehearse(plan: Plan) -> tuple[Plan, list[Change]]:
    """``plan`` as it can be run here, one seed per arm, and all that was changed for it.

    Coefficients stay as they are; a schedule's changes move to step 1, so that the switch is
    rehearsed too. Raises ``LabError`` for a sweep of another trainer: there is nothing to rehearse.
    """
    arms: dict[str, Trial] = {}
    for trial in plan.trials:
        arms.setdefault(trial.arm, trial)
    configs = {arm: _rehearsed(trial.config) for arm, trial in arms.items()}
    changes = {
        (change.key, repr(change.was), repr(change.now)): change
        for arm, trial in arms.items()
        for change in _changes(trial.config, configs[arm])
    }
    rehearsed = Plan(
        spec=plan.spec.model_copy(update={"name": f"{plan.spec.name}-rehearsal"}),
        trials=[make_trial(config, arm) for arm, config in configs.items()],
        runtime=next(iter(configs.values())).runtime,
        overrides=plan.overrides,
    )
    return rehearsed, sorted(changes.values(), key=lambda change: change.key)


def changes_in_verl(plan: Plan) -> list[Change]:
    """What a CPU makes otherwise in verl's own config, for the first trial of ``plan``."""
    config = plan.trials[0].config
    places = planned_places(Path("verl"), Path("checkpoints"), config.model.path)
    changed = changed_by_cpu(verl_overrides(config, places, *phases(config)[0]))
    return [
        Change(key.lstrip("+"), "verl's default" if was is None else was, now, why)
        for key, (was, now, why) in changed.items()
    ]


def _rehearsed(config: RunConfig) -> RunConfig:
    if config.trainer.name != "verl":
        raise LabError(
            f"--rehearse is for trainer=verl; trainer={config.trainer.name} runs here as it is"
        )
    tiny = resolve({**_TINY, "trainer": "verl"})
    prompts = PROMPTS_PER_MINI_BATCH * config.trainer.mini_batches
    trainer = config.trainer.model_copy(
        update={
            "steps": STEPS,
            "train_batch_size": prompts,
            "gen_batch_size": prompts,
            "max_prompt_length": 8,
            "max_response_length": tiny.task.max_response_tokens,
            "eval_every": STEPS,
            "eval_samples": 2,
        }
    )
    runtime = config.runtime.model_copy(
        update={"device": "cpu", "nodes": 1, "gpus": 0.0, "cpus": 1.0, "checkpoint_every": 1}
    )
    tree = replace_schedules(config.tree())
    tree |= {"model": tiny.model.model_dump(mode="json"), "task": tiny.tree()["task"]}
    tree["benchmarks"] = []  # the task's own held-out problems
    tree |= {"trainer": trainer.model_dump(mode="json")}
    return parse_run({**tree, "runtime": runtime.model_dump(mode="json")})


def replace_schedules(tree: Mapping[str, Any]) -> dict[str, Any]:
    """``tree`` with every schedule of the algorithm changing at step 1, from first to last."""
    algorithm = {
        key: {"0": value[min(value, key=int)], "1": value[max(value, key=int)]}
        if isinstance(value, dict)
        else value
        for key, value in tree["algorithm"].items()
    }
    return {**tree, "algorithm": algorithm}


def _changes(was: RunConfig, now: RunConfig) -> list[Change]:
    before, after = flattened(was.tree()), flattened(now.tree())
    return [
        Change(key, before.get(key), after.get(key), _REASONS.get(key.split(".")[0], _SHORT))
        for key in {**before, **after}
        if before.get(key) != after.get(key)
    ]
