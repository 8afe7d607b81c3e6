"""The settings of the evaluate command: ``conf/evaluate.yaml``, typed and validated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, field_validator

from cegppo_lab.benchmark import Benchmark, load_benchmark
from cegppo_lab.compose import parse_overrides
from cegppo_lab.errors import LabError, unknown
from cegppo_lab.resources import shipped
from cegppo_lab.trainer_config import Section
from cegppo_lab.validation import validated

ENGINES = ("embedded", "vllm")
_SAMPLING = ("samples", "temperature", "top_p", "max_tokens")


class EvaluateRuntime(Section):
    """Places and resources; no result depends on them."""

    store: str
    mlflow: str
    report: str
    device: Literal["cpu", "cuda", "auto"]
    threads: int = Field(ge=1)


class EvaluateConfig(Section):
    """What to evaluate on and how. Samplings that are None are the benchmark's own."""

    benchmarks: list[str]
    engine: Literal["embedded", "vllm"]
    seed: int = Field(ge=0)
    samples: int | None = Field(ge=1)
    temperature: float | None = Field(ge=0)
    top_p: float | None = Field(gt=0, le=1)
    max_tokens: int | None = Field(ge=1)
    problems: int | None = Field(ge=1)
    dtype: Literal["float32", "bfloat16"] | None
    chat_template: bool | None
    batch_size: int = Field(ge=1)
    name: Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
    runtime: EvaluateRuntime

    @field_validator("benchmarks")
    @classmethod
    def _each_once(cls, names: list[str]) -> list[str]:
        if len(set(names)) != len(names):
            raise ValueError("a benchmark is named twice")
        return names


@dataclass(frozen=True)
class Settings:
    """The validated keys, and the changes to definitions: ``{benchmark: {key: value}}``."""

    config: EvaluateConfig
    changes: Mapping[str, Mapping[str, Any]]

    def benchmark(self, name: str) -> Benchmark:
        """The benchmark ``name`` (or that of the YAML file ``name``) with all changes to it."""
        own = self.changes.get(stem(name), {})
        shared = {key: getattr(self.config, key) for key in _SAMPLING}
        told = {key: value for key, value in shared.items() if value is not None}
        return load_benchmark(name, {**told, **own})


def read_settings(words: Sequence[str], paths: Mapping[str, Any] | None = None) -> Settings:
    """``conf/evaluate.yaml`` with ``key=value`` words over it, and then ``paths``.

    A word whose key begins with a benchmark's name and a dot changes that benchmark's definition.

    Raises:
        LabError: a word that is no ``key=value``, an unknown key, or a value out of range.
    """
    tree = yaml.safe_load((shipped("conf") / "evaluate.yaml").read_text(encoding="utf-8"))
    changes: dict[str, dict[str, Any]] = {}
    for key, value in {**parse_overrides(words), **(paths or {})}.items():
        owner, _, option = key.partition(".")
        if owner == "runtime" and option:
            tree["runtime"][option] = value
        elif option:
            changes.setdefault(owner, {})[option] = value
        elif owner == "runtime" or owner not in tree:
            raise unknown("key", key, [key for key in tree if key != "runtime"])
        else:
            tree[key] = value
    return Settings(validated(EvaluateConfig, tree, "evaluate"), changes)


def check_changes(settings: Settings, names: Sequence[str]) -> None:
    """Raise ``LabError`` for changes to a benchmark that is not evaluated on."""
    for owner, options in settings.changes.items():
        if owner not in map(stem, names):
            key = f"{owner}.{next(iter(options))}"
            raise LabError(
                f"{key}: {owner!r} is neither a group of keys nor a benchmark of this evaluation "
                f"({', '.join(map(stem, names)) or 'none'}); say benchmarks=[{owner}]"
            )


def stem(benchmark: str) -> str:
    """The name that words use for a benchmark given by name or by YAML file."""
    return benchmark.rpartition("/")[2].removesuffix(".yaml").removesuffix(".yml")
