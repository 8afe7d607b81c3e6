"""The schema of one run: every key of ``conf/``, typed and validated.

YAML carries values, this module says what they may be. Unknown keys fail, naming the nearest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, field_validator

from cegppo_lab.algorithms import Algorithm, make_algorithm
from cegppo_lab.benchmark import load_benchmark
from cegppo_lab.errors import LabError, unknown
from cegppo_lab.tasks import Task, make_task
from cegppo_lab.trainer_config import TRAINERS, Section, TrainerConfig
from cegppo_lab.validation import Place, validated


class ModelConfig(Section):
    """The policy that training starts from."""

    name: str
    path: Place
    """A shipped or packaged model's name, a local folder in Hugging Face format, a GGUF file, or a
    hub model id."""
    head_scale: float = Field(default=1.0, gt=0)
    """Final norm times this, head divided by it (untied heads only): the same function with
    larger logit moves per Adam update. To be disclosed with every result."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the forward and backward passes; the embedded trainer updates float32 weights in any
    case."""
    chat_template: bool = True
    """Prompts are the user's message in the tokenizer's chat template; false: as they are."""
    neutral: ClassVar[frozenset[str]] = frozenset({"chat_template"})


class RuntimeConfig(Section):
    """What no number depends on: paths, resources, memory. Never part of a trial's id."""

    store: Place
    mlflow: str
    report: Place
    device: Literal["cpu", "cuda", "auto"]
    threads: int = Field(ge=1)
    cpus: float = Field(gt=0)
    gpus: float = Field(ge=0)
    """GPUs of one trial, on each of its nodes."""
    resources: dict[str, Annotated[float, Field(gt=0)]]
    """Custom Ray resources of one trial, e.g. ``{h100: 1}``: nodes that were started with them."""
    nodes: int = Field(ge=1)
    """Nodes of one trial. More than one: it runs on the running Ray cluster, one at a time."""
    time_limit_h: float | None = Field(gt=0)
    """Hours that one attempt at a trial may take; null: no limit. The next call goes on from its
    last checkpoint, so it should last for more than ``checkpoint_every`` steps."""
    retries: int = Field(ge=0)
    """How often a trial that failed is tried again in one call, from its last whole checkpoint.
    What no retry mends (a mistake in the configuration, a full disk) is not tried again."""
    retry_backoff_s: float = Field(ge=0)
    """Seconds before the first retry of a trial; doubles with each."""
    micro_batch_size: int = Field(ge=1)
    """Responses per forward and backward pass. Gradients are equal up to rounding."""
    micro_batch_tokens: int | None = Field(ge=1)
    """Tokens (prompt, response, padding) per forward and backward pass at most; null: any number.
    A longer response has a pass of its own. Gradients are equal up to rounding."""
    generate_batch_size: int | None = Field(ge=1)
    """Responses that are sampled at a time; null: all of a generation batch."""
    gradient_checkpointing: bool
    """Compute layers again in the backward pass instead of keeping what they computed. The verl
    trainer has its own key, ``trainer.layout.gradient_checkpointing``."""
    chunk_tokens: int = Field(ge=1)
    token_samples: int = Field(ge=0)
    """Tokens stored a step inside the clip interval, and as many at most outside it; 0: none."""
    ledger: bool = True
    """Log the token ledger (:mod:`cegppo_lab.diagnostics`) with every step."""
    checkpoint_every: int = Field(ge=1)
    keep_checkpoints: int = Field(ge=1)

    @field_validator("store")
    @classmethod
    def _a_folder(cls, store: str) -> str:
        if "://" in store:
            raise ValueError(
                "the store is a folder, which every node mounts: it needs appends and file locks; "
                "or run on each machine for itself and bring the runs together by export and import"
            )
        return store

    @field_validator("resources")
    @classmethod
    def _custom(cls, resources: dict[str, float]) -> dict[str, float]:
        for name in resources:
            if name.lower() in ("cpu", "gpu"):
                raise ValueError(f"has {name}; say runtime.{name.lower()}s instead")
        return resources


class RunConfig(BaseModel):
    """One fully resolved run."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    seed: int
    algorithm: Algorithm
    model: ModelConfig
    task: Task
    trainer: SerializeAsAny[TrainerConfig]
    runtime: RuntimeConfig
    benchmarks: tuple[str, ...] = ()
    """What is evaluated during training; empty: the task's own held-out problems."""

    @property
    def filters_groups(self) -> bool:
        """Whether only groups with mixed rewards are trained on: for every arm, or by algorithm."""
        return self.trainer.filter_groups or self.algorithm.dynamic_sampling

    @property
    def divides_by_std(self) -> bool:
        """Whether advantages are divided by their group's deviation: not where either says no."""
        return self.trainer.norm_adv_by_std and self.algorithm.divides_by_std

    def identity(self) -> dict[str, Any]:
        """All that the run's numbers depend on, as plain JSON values; what trial ids hash."""
        content = {
            "seed": self.seed,
            "algorithm": {"name": self.algorithm.name, **_told(self.algorithm)},
            "model": _told(self.model),
            "task": _content(self.task),
            "trainer": self.trainer.identity(),
        }
        return content | ({"benchmarks": self._pinned()} if self.benchmarks else {})

    def _pinned(self) -> dict[str, str]:
        """Benchmark -> the hash of its problems; a run with other problems is another run."""
        found = [load_benchmark(name) for name in self.benchmarks]
        return {benchmark.name: benchmark.fingerprint() for benchmark in found}

    def tree(self) -> dict[str, Any]:
        """The whole configuration as plain JSON values; :func:`parse_run` reads it back."""
        return {
            "seed": self.seed,
            "algorithm": _named(self.algorithm),
            "model": self.model.model_dump(mode="json"),
            "task": _named(self.task),
            "trainer": self.trainer.model_dump(mode="json"),
            "benchmarks": list(self.benchmarks),
            "runtime": self.runtime.model_dump(mode="json"),
        }


def _named(section: Algorithm | Task) -> dict[str, Any]:
    return {"name": section.name, **section.model_dump(mode="json")}


def _told(section: Algorithm | ModelConfig | Task) -> dict[str, Any]:
    """The section's options without those that came later and have their defaults."""
    options = section.model_dump(mode="json")
    later = {
        key
        for key in section.neutral
        if getattr(section, key)
        == type(section).model_fields[key].get_default(call_default_factory=True)
    }
    return {key: value for key, value in options.items() if key not in later}


def _content(task: Task) -> dict[str, Any]:
    """The task's options without those that only say where its data lie, whose hash they add."""
    told = {"name": task.name, **_told(task)}
    options = {key: value for key, value in told.items() if key not in task.data_options}
    data = task.data_hash()
    return options | {"version": task.version} | ({"data_hash": data} if data else {})


def parse_run(tree: dict[str, Any]) -> RunConfig:
    """The run that a nested mapping describes.

    Raises ``LabError`` for unknown or missing keys and for values out of range.
    """
    sections = {
        "algorithm": lambda values: make_algorithm(**_with_name("algorithm", values)),
        "model": lambda values: validated(ModelConfig, values, "model"),
        "task": lambda values: make_task(**_with_name("task", values)),
        "trainer": _trainer,
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
    return RunConfig(seed=seed, benchmarks=_benchmarks(tree["benchmarks"]), **parts)


def _benchmarks(names: Any) -> tuple[str, ...]:
    """Benchmarks that can be loaded, each once; files by paths that every process finds."""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise LabError(f"benchmarks={names!r}: must be a list of names, e.g. [aime24,aime25]")
    if len(set(names)) != len(names):
        raise LabError(f"benchmarks={names}: one is named twice")
    for name in names:
        load_benchmark(name)
    by_path = (".yaml", ".yml")
    return tuple(str(Path(n).resolve()) if n.endswith(by_path) else n for n in names)


def _trainer(values: dict[str, Any]) -> TrainerConfig:
    name = _with_name("trainer", values)["name"]
    if name not in TRAINERS:
        raise unknown("trainer", name, TRAINERS)
    return validated(TRAINERS[name], values, "trainer")


def _mapping(key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise LabError(f"{key}={value!r}: must be a group of keys; see conf/{key}/")
    return value


def _with_name(section: str, values: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(values.get("name"), str):
        raise LabError(f"{section}.name is missing; say {section}=NAME")
    return values
