"""A rehearsed plan: the same arms and coefficients, small, and every change told."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cegppo_lab.cli import cli, runs
from cegppo_lab.config import RunConfig
from cegppo_lab.errors import LabError
from cegppo_lab.resources import shipped
from cegppo_lab.sweep.plan import Plan, flattened, make_plan
from cegppo_lab.sweep.rehearsal import STEPS, Change, rehearse
from cegppo_lab.trainers.verl.compose import compose_job
from cegppo_lab.trainers.verl.cpu import CPU_OVERRIDES
from cegppo_lab.trainers.verl.overrides import verl_overrides
from cegppo_lab.trainers.verl.trainer import phases, planned_places

PAPER = sorted(path.stem for path in (shipped("sweeps") / "paper").glob("*.yaml"))
PLACES = planned_places(Path("/runs/t/verl"), Path("/runs/t/checkpoints"), "a/model")
FIRST = "CE-GPPO(0.25, 1)"
"""An arm of the 1.5B grid."""


@lru_cache
def _rehearsed(name: str) -> tuple[Plan, Plan, list[Change]]:
    """The plan of a sweep of the paper, the rehearsed one, and what was changed."""
    plan = make_plan(f"paper/{name}", ["seeds=[1,2]"])
    return plan, *rehearse(plan)


def _by_arm(plan: Plan) -> dict[str, RunConfig]:
    """The run of each arm at the first seed."""
    return {trial.arm: trial.config for trial in reversed(plan.trials)}


@pytest.mark.parametrize("name", PAPER)
def test_every_arm_is_rehearsed_once_with_its_own_coefficients(name: str) -> None:
    plan, rehearsed, _ = _rehearsed(name)
    before, after = _by_arm(plan), _by_arm(rehearsed)
    assert after.keys() == before.keys()
    assert len(rehearsed.trials) == len(after)
    for step in (0, 1_000_000):  # a schedule's first value, and its last
        assert {arm: config.algorithm.at(step) for arm, config in after.items()} == {
            arm: config.algorithm.at(step) for arm, config in before.items()
        }


@pytest.mark.parametrize("name", PAPER)
def test_every_change_is_told_and_nothing_else_is_changed(name: str) -> None:
    """Changing in the plan what the list says gives the rehearsed plan."""
    plan, rehearsed, changes = _rehearsed(name)
    assert len({(c.key, repr(c.was), repr(c.now)) for c in changes}) == len(changes)
    before, after = _by_arm(plan), _by_arm(rehearsed)
    for arm, config in before.items():
        was, now = flattened(config.tree()), flattened(after[arm].tree())
        differing = {key for key in {**was, **now} if was.get(key) != now.get(key)}
        for key in differing:
            told = [change for change in changes if change.key == key]
            (same,) = [c for c in told if (c.was, c.now) == (was.get(key), now.get(key))]
            assert same.why


@pytest.mark.parametrize("name", PAPER)
def test_the_tasks_own_problems_stand_in_for_the_benchmarks(name: str) -> None:
    """A rehearsal needs no network."""
    plan, rehearsed, changes = _rehearsed(name)
    assert {config.benchmarks for config in _by_arm(plan).values()} == {("aime24", "aime25")}
    assert {config.benchmarks for config in _by_arm(rehearsed).values()} == {()}
    (told,) = [change for change in changes if change.key == "benchmarks"]
    assert (told.was, told.now) == (["aime24", "aime25"], [])
    assert "no download" in told.why


def test_a_switch_comes_at_step_1_of_two_phases() -> None:
    _, rehearsed, changes = _rehearsed("beta_switch")
    (config,) = [c for arm, c in _by_arm(rehearsed).items() if "at 585" in arm]
    assert config.algorithm.beta1 == {0: 0.0, 1: 0.5}
    assert phases(config) == [(0, 1), (1, STEPS)]
    (switch,) = [change for change in changes if change.key == "algorithm.beta1"]
    assert (switch.was, switch.now) == ({"0": 0.0, "585": 0.5}, {"0": 0.0, "1": 0.5})


def test_it_is_kept_apart_from_the_real_sweep() -> None:
    plan, rehearsed, _ = _rehearsed("beta_grid_1p5b")
    assert rehearsed.spec.name == "paper/beta_grid_1p5b-rehearsal"
    ids = [{trial.trial_id for trial in each.trials} for each in (plan, rehearsed)]
    assert ids[0].isdisjoint(ids[1])


def test_one_laptop_is_enough_and_the_geometry_stays_divisible() -> None:
    _, rehearsed, _ = _rehearsed("algorithms")
    for config in _by_arm(rehearsed).values():
        assert (config.runtime.nodes, config.runtime.gpus, config.runtime.device) == (1, 0, "cpu")
        assert config.trainer.train_batch_size % config.trainer.mini_batches == 0
        assert config.trainer.mini_batches == 8
        compose_job(verl_overrides(config, PLACES, *phases(config)[0]))


def test_verls_config_differs_by_these_changes_and_the_cpus_alone() -> None:
    """The keys of verl's own config that neither list explains are none."""
    plan, rehearsed, changes = _rehearsed("beta_grid_1p5b")
    was, now = (verl_overrides(_by_arm(each)[FIRST], PLACES, 0, 9) for each in (plan, rehearsed))
    kept = "actor_rollout_ref.actor."
    for key in ("policy_loss.loss_mode", "loss_agg_mode", "entropy_coeff", "grad_clip", "optim.lr"):
        assert was[kept + key] == now[kept + key]
    assert was[f"+{kept}policy_loss.options"] == now[f"+{kept}policy_loss.options"]
    differing = {key for key in {**was, **now} if was.get(key) != now.get(key)}
    ours = {
        "data.train_batch_size": "trainer.train_batch_size",
        "data.gen_batch_size": "trainer.gen_batch_size",
        "data.max_prompt_length": "trainer.max_prompt_length",
        "data.max_response_length": "trainer.max_response_length",
        f"{kept}ppo_mini_batch_size": "trainer.train_batch_size",
        f"{kept}ppo_max_token_len_per_gpu": "trainer.max_response_length",
        "actor_rollout_ref.rollout.max_num_batched_tokens": "trainer.max_response_length",
        "actor_rollout_ref.rollout.max_model_len": "trainer.max_response_length",
        "actor_rollout_ref.rollout.val_kwargs.n": "trainer.eval_samples",
        "trainer.test_freq": "trainer.eval_every",
        "trainer.save_freq": "runtime.checkpoint_every",
        "trainer.nnodes": "runtime.nodes",
        "trainer.n_gpus_per_node": "runtime.gpus",
        "+reward.custom_reward_function.reward_kwargs.tasks": "task.name",
    }
    assert differing <= ours.keys() | CPU_OVERRIDES.keys()
    told = {change.key for change in changes}
    assert {ours[key] for key in differing & ours.keys()} <= told


def test_a_sweep_of_the_embedded_trainer_is_refused() -> None:
    with pytest.raises(LabError, match="--rehearse is for trainer=verl; trainer=embedded runs"):
        rehearse(make_plan("quickstart"))


def test_the_command_prints_every_change_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of our keys and of verl's, before anything starts."""

    def stop(*_: Any) -> None:
        raise LabError("stopped before the first trial")

    monkeypatch.setattr(runs, "_run_and_report", stop)
    words = ["sweep", "paper/beta_switch", "--rehearse", "--limit", "1"]
    places = ["--store", str(tmp_path / "runs"), "--out", str(tmp_path / "report")]
    done = CliRunner().invoke(cli, [*words, *places])
    assert "stopped before" in str(done.exception)
    _, _, changes = _rehearsed("beta_switch")
    for change in changes:
        if change.key != "runtime.report" and change.key != "runtime.store":
            assert f"{change.key}: {change.was} -> {change.now}   ({change.why})" in done.output
    for key, item in CPU_OVERRIDES.items():
        assert f"  {key.lstrip('+')}: " in done.output
        assert f" -> {item.value}   ({item.reason})" in done.output
    assert "actor_rollout_ref.rollout.name: vllm -> cegppo_lab_cpu" in done.output
    assert "actor_rollout_ref.actor.strategy: verl's default -> fsdp2" in done.output
