"""A run as overrides of verl's own Hydra config: the one place where our keys meet verl's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cegppo_lab.config import RunConfig
from cegppo_lab.errors import LabError
from cegppo_lab.evaluation import benchmarks
from cegppo_lab.trainers.verl import reward
from cegppo_lab.trainers.verl.cpu import CPU_OVERRIDES
from cegppo_lab.trainers.verl.data import TRAINING, PromptFiles

ACTOR, REF = "actor_rollout_ref.actor", "actor_rollout_ref.ref"
ROLLOUT, MODEL = "actor_rollout_ref.rollout", "actor_rollout_ref.model"
LOSS_MODE, LOSS_TARGET = "cegppo_lab", "cegppo_lab.trainers.verl.loss.LabPolicyLoss"
KL_TYPES = {"k1": "kl", "k2": "mse", "k3": "low_var_kl"}


@dataclass(frozen=True)
class Places:
    """Where a verl job reads and writes: absolute paths, the same on every attempt."""

    prompts: PromptFiles
    model: str
    checkpoints: Path
    validation: Path
    hydra: Path


def verl_overrides(config: RunConfig, places: Places, step: int, last_step: int) -> dict[str, Any]:
    """Hydra key -> value for the phase of ``config`` from ``step`` to ``last_step``.

    Coefficients are those in force at ``step``; verl resumes from its newest checkpoint, so a
    schedule is run as consecutive phases. A key that verl's config does not have starts with ``+``.
    ``trainer.layout.overrides`` and, on a CPU, its necessities come last. Raises ``LabError`` for
    an algorithm that needs tensors which verl does not give to a loss, or a controller's state.
    """
    on_cpu = config.runtime.device == "cpu"
    return {
        **_data(config, places),
        **_loss(config, step),
        **_optimizer(config),
        **_rollout(config),
        **_reward(config),
        **_loop(config, places, last_step),
        **_layout(config),
        **config.trainer.layout.overrides,
        **({key: item.value for key, item in CPU_OVERRIDES.items()} if on_cpu else {}),
    }


def _data(config: RunConfig, places: Places) -> dict[str, Any]:
    trainer = config.trainer
    return {
        "data.train_files": str(places.prompts.train),
        "data.val_files": str(places.prompts.heldout),
        "data.shuffle": False,  # the files are in the order of our own random stream
        "data.validation_shuffle": False,
        "data.truncation": "left",
        "data.train_batch_size": trainer.train_batch_size,
        "data.gen_batch_size": trainer.gen_batch_size,
        "data.max_prompt_length": trainer.max_prompt_length,
        # verl's budget for evaluations too, whatever a benchmark's max_tokens.
        "data.max_response_length": trainer.max_response_length,
        f"{MODEL}.path": places.model,
    }


def _loss(config: RunConfig, step: int) -> dict[str, Any]:
    algorithm = config.algorithm.at(step)
    if algorithm.needs:
        raise LabError(
            f"algorithm={algorithm.name} needs {' and '.join(sorted(algorithm.needs))} of each "
            "token, which verl's losses do not get; say trainer=embedded or another algorithm"
        )
    if algorithm.initial_state():
        raise LabError(
            f"algorithm={algorithm.name} has a controller, whose state verl's losses do not keep; "
            "say trainer=embedded or another algorithm"
        )
    options = algorithm.model_dump(mode="json")
    carried_by_verl = {"entropy_coef": 0.0, "kl_coef": 0.0, "dynamic_sampling": False}
    return {
        f"{ACTOR}.policy_loss._target_": LOSS_TARGET,
        f"{ACTOR}.policy_loss.loss_mode": LOSS_MODE,
        f"+{ACTOR}.policy_loss.algorithm": algorithm.name,
        f"+{ACTOR}.policy_loss.options": {**options, **carried_by_verl},
        f"{ACTOR}.loss_agg_mode": algorithm.aggregation,
        f"{ACTOR}.entropy_coeff": algorithm.entropy_coef,
        f"{ACTOR}.calculate_entropy": True,
        f"{ACTOR}.use_kl_loss": algorithm.kl_coef > 0,
        f"{ACTOR}.kl_loss_coef": algorithm.kl_coef,
        f"{ACTOR}.kl_loss_type": KL_TYPES[algorithm.kl_estimator],
        "algorithm.adv_estimator": "grpo",
        "algorithm.norm_adv_by_std_in_grpo": config.divides_by_std,
        "algorithm.use_kl_in_reward": False,
        "algorithm.filter_groups.enable": config.filters_groups,
        "algorithm.filter_groups.metric": "reward",
    }


def _optimizer(config: RunConfig) -> dict[str, Any]:
    trainer = config.trainer
    return {
        f"{ACTOR}.ppo_mini_batch_size": trainer.train_batch_size // trainer.mini_batches,
        f"{ACTOR}.grad_clip": trainer.grad_clip,
        f"{ACTOR}.optim.lr": trainer.lr,
        f"{ACTOR}.optim.lr_warmup_steps": trainer.lr_warmup_steps,
        f"{ACTOR}.optim.weight_decay": trainer.weight_decay,
        f"{ACTOR}.optim.betas": [trainer.adam_beta1, trainer.adam_beta2],
        f"{ACTOR}.data_loader_seed": config.seed,
        f"{ACTOR}.fsdp_config.seed": config.seed,
    }


def _rollout(config: RunConfig) -> dict[str, Any]:
    trainer = config.trainer
    return {
        f"{ROLLOUT}.n": trainer.rollout_n,
        f"{ROLLOUT}.temperature": trainer.temperature,
        f"{ROLLOUT}.seed": config.seed,
        f"{ROLLOUT}.val_kwargs.n": trainer.eval_samples,
        f"{ROLLOUT}.val_kwargs.temperature": trainer.eval_temperature,
        f"{ROLLOUT}.val_kwargs.top_p": trainer.eval_top_p,
        f"{ROLLOUT}.val_kwargs.do_sample": True,
    }


def _reward(config: RunConfig) -> dict[str, Any]:
    """The task behind each ``data_source`` of the prompt files."""
    evaluated = {each.name: each.task for each in benchmarks(config)}
    sources = {TRAINING: config.task, **(evaluated or {config.task.name: config.task})}
    tasks = {
        source: {"name": task.name, **task.model_dump(mode="json")}
        for source, task in sources.items()
    }
    return {
        "reward.custom_reward_function.path": reward.PATH,
        "+reward.custom_reward_function.reward_kwargs.tasks": tasks,
    }


def _loop(config: RunConfig, places: Places, last_step: int) -> dict[str, Any]:
    trainer, runtime = config.trainer, config.runtime
    return {
        "trainer.logger": ["file"],  # MLflow is written by us, from the store
        "trainer.project_name": "cegppo-lab",
        "trainer.experiment_name": "trial",
        "trainer.total_training_steps": last_step,
        "trainer.total_epochs": 1_000_000,  # filtering takes prompts until the steps are done
        "trainer.test_freq": trainer.eval_every,
        "trainer.val_before_train": True,
        "trainer.validation_data_dir": str(places.validation),
        "trainer.save_freq": runtime.checkpoint_every,
        "trainer.max_actor_ckpt_to_keep": runtime.keep_checkpoints,
        "trainer.default_local_dir": str(places.checkpoints),
        "trainer.resume_mode": "auto",
        "trainer.nnodes": runtime.nodes,
        "trainer.n_gpus_per_node": max(1, int(runtime.gpus)),
        "hydra.run.dir": str(places.hydra),
    }


def _layout(config: RunConfig) -> dict[str, Any]:
    trainer, layout = config.trainer, config.trainer.layout
    tokens = trainer.max_prompt_length + trainer.max_response_length
    # A micro-batch holds at least one whole sequence, spread over the sequence-parallel group.
    group = 1 if config.runtime.device == "cpu" else layout.sequence_parallel
    per_gpu = -(-tokens // group)
    return {
        f"{ACTOR}.use_dynamic_bsz": True,
        f"{ACTOR}.ppo_max_token_len_per_gpu": per_gpu,
        f"{ACTOR}.ulysses_sequence_parallel_size": layout.sequence_parallel,
        f"{ACTOR}.fsdp_config.param_offload": layout.offload,
        f"{ACTOR}.fsdp_config.optimizer_offload": layout.offload,
        f"{REF}.fsdp_config.param_offload": layout.offload,
        f"{MODEL}.enable_gradient_checkpointing": layout.gradient_checkpointing,
        f"{MODEL}.use_remove_padding": True,
        f"{ROLLOUT}.name": layout.rollout_engine,
        f"{ROLLOUT}.tensor_model_parallel_size": layout.tensor_parallel,
        f"{ROLLOUT}.gpu_memory_utilization": layout.gpu_memory_utilization,
        f"{ROLLOUT}.max_num_batched_tokens": tokens,
        f"{ROLLOUT}.max_model_len": tokens,
    }


def changed_by_cpu(overrides: Mapping[str, Any]) -> dict[str, tuple[Any, Any, str]]:
    """What a rehearsal sets otherwise than ``overrides``, made for GPUs: key -> (was, is, why).

    ``was`` is None where the job leaves the key to verl's own default.
    """
    return {
        key: (overrides.get(key), item.value, item.reason)
        for key, item in CPU_OVERRIDES.items()
        if overrides.get(key) != item.value
    }
