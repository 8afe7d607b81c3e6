"""The schema of one run: every key of ``conf/``, typed and validated.

YAML carries values, this module says what they may be. Unknown keys fail, naming the nearest.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cegppo_lab.algorithms import Algorithm, make_algorithm
from cegppo_lab.errors import LabError, unknown
from cegppo_lab.tasks import Task, make_task
from cegppo_lab.validation import validated


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelConfig(_Section):
    """The policy that training starts from."""

    name: str
    path: str
    """A shipped policy's name, a local folder in Hugging Face format, or a hub model id."""
    head_scale: float = Field(default=1.0, gt=0)
    """Final norm times this, head divided by it (untied heads only): the same function with
    larger logit moves per Adam update. To be disclosed with every result."""
    dtype: Literal["float32", "bfloat16"] = "float32"


class EmbeddedConfig(_Section):
    """The embedded trainer: batch geometry, optimizer and evaluation of a run."""

    name: Literal["embedded"]
    steps: int = Field(ge=1)
    train_batch_size: int = Field(ge=1)
    """Prompts per generation batch."""
    rollout_n: int = Field(ge=2)
    """Responses per prompt (G); a group's advantages need at least two."""
    mini_batches: int = Field(ge=1)
    """Optimizer steps per rollout batch; the trained groups are split into so many parts."""
    temperature: float = Field(gt=0)
    filter_groups: bool
    """Train on groups with mixed rewards only (dynamic sampling), whatever the algorithm."""
    max_gen_batches: int = Field(ge=1)
    """Generation batches per step at most, when groups are filtered."""
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


class RuntimeConfig(_Section):
    """What no number depends on: paths, resources, memory. Never part of a trial's id."""

    store: str
    mlflow: str
    report: str
    device: Literal["cpu", "cuda", "auto"]
    threads: int = Field(ge=1)
    cpus: float = Field(gt=0)
    gpus: float = Field(ge=0)
    micro_batch_size: int = Field(ge=1)
    """Responses per forward and backward pass. Gradients are equal up to rounding."""
    chunk_tokens: int = Field(ge=1)
    checkpoint_every: int = Field(ge=1)
    keep_checkpoints: int = Field(ge=1)


class RunConfig(BaseModel):
    """One fully resolved run."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    seed: int
    algorithm: Algorithm
    model: ModelConfig
    task: Task
    trainer: EmbeddedConfig
    runtime: RuntimeConfig

    def identity(self) -> dict[str, Any]:
        """All that the run's numbers depend on, as plain JSON values; what trial ids hash."""
        return {
            "seed": self.seed,
            "algorithm": _named(self.algorithm),
            "model": self.model.model_dump(mode="json"),
            "task": _named(self.task) | {"version": self.task.version},
            "trainer": self.trainer.model_dump(mode="json"),
        }

    def tree(self) -> dict[str, Any]:
        """The whole configuration as plain JSON values; :func:`parse_run` reads it back."""
        return {
            **self.identity(),
            "task": _named(self.task),
            "runtime": self.runtime.model_dump(mode="json"),
        }


def _named(section: Algorithm | Task) -> dict[str, Any]:
    return {"name": section.name, **section.model_dump(mode="json")}


def parse_run(tree: dict[str, Any]) -> RunConfig:
    """The run that a nested mapping describes.

    Raises ``LabError`` for unknown or missing keys and for values out of range.
    """
    sections = {
        "algorithm": lambda values: make_algorithm(**_with_name("algorithm", values)),
        "model": lambda values: validated(ModelConfig, values, "model"),
        "task": lambda values: make_task(**_with_name("task", values)),
        "trainer": lambda values: validated(EmbeddedConfig, values, "trainer"),
        "runtime": lambda values: validated(RuntimeConfig, values, "runtime"),
    }
    for key in tree:
        if key not in RunConfig.model_fields:
            raise unknown("key", key, RunConfig.model_fields)
    for key in RunConfig.model_fields:
        if key not in tree:
            raise LabError(f"{key} is missing from the configuration")
    seed = tree["seed"]
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise LabError(f"seed={seed!r}: must be a whole number, 0 or more")
    parts = {key: build(_mapping(key, tree[key])) for key, build in sections.items()}
    return RunConfig(seed=seed, **parts)


def _mapping(key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise LabError(f"{key}={value!r}: must be a group of keys; see conf/{key}/")
    return value


def _with_name(section: str, values: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(values.get("name"), str):
        raise LabError(f"{section}.name is missing; say {section}=NAME")
    return values
