"""The schemas of the trainers: what they share, and what is one trainer's own."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    """A closed, immutable group of keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    neutral: ClassVar[frozenset[str]] = frozenset()
    """Keys that came later: no part of trial ids while they have their defaults."""


class TrainerConfig(Section):
    """Batch geometry, optimizer and evaluation: the same keys, and meanings, in every trainer."""

    steps: int = Field(ge=1)
    """Rollout batches."""
    train_batch_size: int = Field(ge=1)
    """Prompts per rollout batch."""
    rollout_n: int = Field(ge=2)
    """Responses per prompt (G); a group's advantages need at least two."""
    mini_batches: int = Field(ge=1)
    """Optimizer steps per rollout batch; the trained groups are split into so many parts."""
    temperature: float = Field(gt=0)
    filter_groups: bool
    """Train on groups with mixed rewards only (dynamic sampling), whatever the algorithm."""
    norm_adv_by_std: bool
    lr: float = Field(gt=0)
    lr_warmup_steps: int = Field(ge=0)
    weight_decay: float = Field(ge=0)
    adam_beta1: float = Field(ge=0, lt=1)
    adam_beta2: float = Field(ge=0, lt=1)
    grad_clip: float = Field(gt=0)
    eval_every: int = Field(ge=1)
    eval_samples: int = Field(ge=1)
    eval_temperature: float = Field(gt=0)

    def identity(self) -> dict[str, Any]:
        """The keys that the run's numbers depend on, as plain JSON values."""
        return self.model_dump(mode="json")


class EmbeddedConfig(TrainerConfig):
    """The embedded trainer."""

    name: Literal["embedded"]
    max_gen_batches: int = Field(ge=1)
    """Generation batches per step at most, when groups are filtered."""


class VerlLayout(Section):
    """How a verl job is laid out over GPUs. Never part of a trial's id."""

    rollout_engine: str
    """verl's name of the engine: vllm, sglang."""
    tensor_parallel: int = Field(ge=1)
    """GPUs of one rollout replica."""
    sequence_parallel: int = Field(ge=1)
    """Ulysses: GPUs that share one sequence in training."""
    gpu_memory_utilization: float = Field(gt=0, le=1)
    offload: bool
    """Parameters and optimizer states to the host between uses."""
    gradient_checkpointing: bool
    overrides: dict[str, Any] = {}
    """Further keys of verl's own config, e.g. ``{actor_rollout_ref.rollout.max_num_seqs: 512}``."""


class VerlConfig(TrainerConfig):
    """The verl trainer: verl's own loop as a child process, with our loss, data and records."""

    name: Literal["verl"]
    gen_batch_size: int = Field(ge=1)
    """Prompts that are fetched at a time when groups are filtered."""
    max_prompt_length: int = Field(ge=1)
    max_response_length: int = Field(ge=1)
    eval_top_p: float = Field(gt=0, le=1)
    layout: VerlLayout

    @model_validator(mode="after")
    def _whole_mini_batches(self) -> Self:
        if self.train_batch_size % self.mini_batches:
            raise ValueError(
                f"train_batch_size={self.train_batch_size} cannot be split into "
                f"mini_batches={self.mini_batches} equal parts"
            )
        return self

    def identity(self) -> dict[str, Any]:
        """The keys that the run's numbers depend on: all but the layout."""
        return self.model_dump(mode="json", exclude={"layout"})


TRAINERS: dict[str, type[TrainerConfig]] = {"embedded": EmbeddedConfig, "verl": VerlConfig}
"""The schema of each trainer by its name."""
