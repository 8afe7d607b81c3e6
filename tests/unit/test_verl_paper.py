"""The paper's sweeps as plans: what each trial needs, and the verl job that it resolves to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from cegppo_lab.cli import cli
from cegppo_lab.errors import LabError
from cegppo_lab.resources import shipped
from cegppo_lab.sweep.plan import make_plan
from cegppo_lab.trainers.verl.trainer import phases, resolved_job

PAPER = sorted(path.stem for path in (shipped("sweeps") / "paper").glob("*.yaml"))


def _lab(*words: str) -> str:
    done = CliRunner().invoke(cli, list(words), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_the_plan_of_a_cluster_sweep_says_what_each_trial_needs(tmp_path: Path) -> None:
    lines = _lab("plan", "paper/beta_grid_7b", "--store", str(tmp_path)).splitlines()
    rows = [line for line in lines if "seed 1" in line]
    assert len(rows) == 5
    assert all("16 nodes x 8 GPUs" in row and row.endswith("pending") for row in rows)
    assert "5 trials, 5 to run" in lines


# The released 7B script's value, or the paper's; see conf/trainer/verl.yaml.
PAPER_VALUES = {
    "trainer.nnodes": 16,
    "trainer.n_gpus_per_node": 8,
    "trainer.total_training_steps": 1000,
    "trainer.test_freq": 5,
    "trainer.save_freq": 5,
    "data.train_batch_size": 128,
    "data.gen_batch_size": 256,
    "data.max_prompt_length": 4096,
    "data.max_response_length": 16384,
    "data.truncation": "left",
    "algorithm.adv_estimator": "grpo",
    "algorithm.norm_adv_by_std_in_grpo": True,
    "algorithm.filter_groups.enable": True,
    "actor_rollout_ref.model.path": "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
    "actor_rollout_ref.model.use_remove_padding": True,
    "actor_rollout_ref.model.enable_gradient_checkpointing": True,
    "actor_rollout_ref.actor.ppo_mini_batch_size": 16,
    "actor_rollout_ref.actor.ppo_epochs": 1,
    "actor_rollout_ref.actor.use_dynamic_bsz": True,
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu": (4096 + 16384) // 4,
    "actor_rollout_ref.actor.ulysses_sequence_parallel_size": 4,
    "actor_rollout_ref.actor.grad_clip": 1.0,
    "actor_rollout_ref.actor.loss_agg_mode": "token-mean",
    "actor_rollout_ref.actor.entropy_coeff": 0.0,
    "actor_rollout_ref.actor.use_kl_loss": False,
    "actor_rollout_ref.actor.optim.lr": 1e-6,
    "actor_rollout_ref.actor.optim.lr_warmup_steps": 10,
    "actor_rollout_ref.actor.optim.weight_decay": 0.1,
    "actor_rollout_ref.actor.optim.betas": [0.9, 0.999],
    "actor_rollout_ref.actor.fsdp_config.param_offload": True,
    "actor_rollout_ref.actor.fsdp_config.optimizer_offload": True,
    "actor_rollout_ref.actor.policy_loss.algorithm": "cegppo",
    "actor_rollout_ref.actor.policy_loss.options.beta1": 0.75,
    "actor_rollout_ref.actor.policy_loss.options.beta2": 1.0,
    "actor_rollout_ref.actor.policy_loss.options.clip_low": 0.2,
    "actor_rollout_ref.actor.policy_loss.options.clip_high": 0.2,
    "actor_rollout_ref.actor.policy_loss.options.dual_clip": 10.0,
    "actor_rollout_ref.rollout.name": "vllm",
    "actor_rollout_ref.rollout.n": 8,
    "actor_rollout_ref.rollout.temperature": 1.0,
    "actor_rollout_ref.rollout.tensor_model_parallel_size": 2,
    "actor_rollout_ref.rollout.gpu_memory_utilization": 0.8,
    "actor_rollout_ref.rollout.max_model_len": 4096 + 16384,
    "actor_rollout_ref.rollout.val_kwargs.n": 32,
    "actor_rollout_ref.rollout.val_kwargs.temperature": 0.6,
    "actor_rollout_ref.rollout.val_kwargs.top_p": 0.95,
    "actor_rollout_ref.rollout.val_kwargs.do_sample": True,
}


def test_the_resolved_verl_config_of_a_trial_has_the_papers_values(tmp_path: Path) -> None:
    plan = make_plan("paper/beta_grid_7b")
    (trial,) = [trial for trial in plan.trials if trial.arm == "CE-GPPO(0.75, 1)"]
    store = ["--store", str(tmp_path)]
    printed = _lab("plan", "paper/beta_grid_7b", "--config", trial.trial_id[:6], *store)
    config = yaml.safe_load(printed)
    found = {key: _at(config, key) for key in PAPER_VALUES}
    assert found == PAPER_VALUES
    assert _at(config, "trainer.default_local_dir").startswith(str(tmp_path / trial.trial_id))


def _at(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree[part]
    return tree


def test_a_config_is_asked_for_by_the_start_of_one_id() -> None:
    with pytest.raises(LabError, match="unknown trial 'zzz'"):
        _lab("plan", "paper/beta_grid_7b", "--config", "zzz")
    with pytest.raises(LabError, match="5 trials begin with ''"):
        _lab("plan", "paper/beta_grid_7b", "--config", "")


@pytest.mark.parametrize("name", PAPER)
def test_every_job_of_the_papers_sweeps_is_one_that_verl_accepts(name: str) -> None:
    plan = make_plan(f"paper/{name}")
    for trial in plan.trials:
        composed = resolved_job(trial.config, Path("runs") / trial.trial_id)
        assert composed.trainer.total_training_steps == phases(trial.config)[0][1]
        assert composed.actor_rollout_ref.model.path == trial.config.model.path
