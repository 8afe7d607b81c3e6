"""What differs between a verl job on GPUs and its rehearsal on a CPU, each with its reason."""

from __future__ import annotations

from typing import NamedTuple

ROLLOUT_NAME = "cegppo_lab_cpu"
"""``rollout.name`` of our rollout engine."""

ENVIRONMENT = {
    "VERL_USE_EXTERNAL_MODULES": "cegppo_lab.trainers.verl.cpu.plugin",
    "VERL_ENGINE_DEVICE": "cuda",
}
"""Of the driver; every process of a local Ray cluster inherits it.

verl imports the plugin wherever it is imported itself, and finds its FSDP engine, which any device
can run, under the name ``cuda``.
"""


class Override(NamedTuple):
    """A Hydra override's value (plain JSON) and why a CPU needs it."""

    value: object
    reason: str


_ACTOR = "actor_rollout_ref.actor"
_REF = "actor_rollout_ref.ref"
_ROLLOUT = "actor_rollout_ref.rollout"
_MODEL = "actor_rollout_ref.model"
_OPTIMIZER = {"_target_": "verl.workers.config.FSDPOptimizerConfig", "lr": 0.0}
_FLOAT32 = {"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"}

CPU_OVERRIDES: dict[str, Override] = {
    "trainer.device": Override("cpu", "no GPU"),
    f"{_ROLLOUT}.name": Override(ROLLOUT_NAME, "vLLM and SGLang need a GPU"),
    f"{_ROLLOUT}.tensor_model_parallel_size": Override(1, "our CPU rollout engine does not split"),
    f"{_ROLLOUT}.free_cache_engine": Override(False, "no GPU memory to hand over"),
    f"{_ROLLOUT}.enforce_eager": Override(True, "no CUDA graphs"),
    f"{_ACTOR}.strategy": Override("fsdp2", "FSDP 1 needs a GPU"),
    f"{_REF}.strategy": Override("fsdp2", "FSDP 1 needs a GPU"),
    f"{_REF}.fsdp_config.forward_only": Override(False, "else verl pins its weights, for a GPU"),
    f"+{_REF}.optim": Override(_OPTIMIZER, "unused, but asked for without forward_only"),
    f"{_ACTOR}.ulysses_sequence_parallel_size": Override(1, "needs flash-attention"),
    f"{_REF}.ulysses_sequence_parallel_size": Override(1, "needs flash-attention"),
    f"{_MODEL}.use_remove_padding": Override(False, "needs flash-attention"),
    f"+{_MODEL}.override_config.attn_implementation": Override("sdpa", "no flash-attention"),
    f"{_MODEL}.enable_gradient_checkpointing": Override(False, "saves GPU memory only"),
    f"{_ACTOR}.use_torch_compile": Override(False, "compiling costs more than it saves here"),
    f"{_REF}.use_torch_compile": Override(False, "compiling costs more than it saves here"),
    f"{_ACTOR}.fsdp_config.param_offload": Override(False, "the weights are on the CPU already"),
    f"{_ACTOR}.fsdp_config.optimizer_offload": Override(False, "so is the optimizer"),
    f"{_REF}.fsdp_config.param_offload": Override(False, "the weights are on the CPU already"),
    f"{_ACTOR}.fsdp_config.model_dtype": Override("fp32", "bfloat16 is slow on most CPUs"),
    f"{_REF}.fsdp_config.model_dtype": Override("fp32", "bfloat16 is slow on most CPUs"),
    f"+{_ACTOR}.fsdp_config.mixed_precision": Override(_FLOAT32, "bfloat16 is slow on most CPUs"),
    f"+{_REF}.fsdp_config.mixed_precision": Override(_FLOAT32, "bfloat16 is slow on most CPUs"),
    f"{_ROLLOUT}.dtype": Override("float32", "as the trainer"),
    f"{_ROLLOUT}.agent.num_workers": Override(1, "each worker is a process that imports torch"),
    "reward.num_workers": Override(1, "each worker is a process that imports torch"),
    "transfer_queue.backend.SimpleStorage.num_data_storage_units": Override(
        1, "each unit is a process that imports torch"
    ),
    "data.dataloader_num_workers": Override(0, "each worker is a process that imports torch"),
}
"""Hydra key (with ``+`` where verl's own config has no such key) -> value and reason."""
