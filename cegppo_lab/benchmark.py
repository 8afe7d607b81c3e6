"""Benchmarks: fixed problems, how often they are answered and with what budget, and their hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_serializer, field_validator

from cegppo_lab.errors import LabError, unknown
from cegppo_lab.resources import shipped
from cegppo_lab.tasks import Problem, Task, make_task
from cegppo_lab.validation import validated


class Benchmark(BaseModel):
    """A file of ``conf/benchmark/``: the held-out problems of a task, and how they are sampled.

    Defaults of ``samples``, ``temperature`` and ``top_p`` are the paper's (evaluation set-up,
    section 5, and the released scripts).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_]*$")
    title: str = Field(min_length=1)
    """As tables print it."""
    source: str = Field(min_length=1)
    """Where the problems come from, and whose copy of them is pinned."""
    task: Task
    """The task whose held-out problems are the benchmark."""
    count: int = Field(ge=1)
    """Problems that there must be."""
    content_sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    """:func:`content_hash` that the problems must have; null: no copy was at hand to pin."""
    samples: int = Field(32, ge=1)
    """k: responses per problem."""
    temperature: float = Field(0.6, ge=0)
    top_p: float = Field(0.95, gt=0, le=1)
    max_tokens: int = Field(ge=1)
    """Tokens of a response, the end-of-sequence token included."""

    @field_validator("task", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Task:
        if isinstance(value, Task):
            return value
        if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
            raise ValueError("must name a task, e.g. {name: math, path: FILE}")
        return make_task(**value)

    @field_serializer("task")
    def _task_as_plain(self, task: Task) -> dict[str, Any]:
        return {"name": task.name, **task.model_dump(mode="json")}

    @cached_property
    def problems(self) -> Sequence[Problem]:
        """The problems, read and checked when first asked for.

        Raises:
            LabError: they cannot be had, or are not those that the definition pins.
        """
        found = tuple(self.task.heldout())
        if len(found) != self.count:
            raise LabError(
                f"benchmark {self.name!r} must have {self.count} problems, not {len(found)}; "
                f"fetch the pinned version, or say {self.name}.count={len(found)}"
            )
        digest = content_hash(found)
        if self.content_sha256 not in (None, digest):
            raise LabError(
                f"the problems of benchmark {self.name!r} are not the pinned ones: their hash is "
                f"{digest}, not {self.content_sha256}; fetch the pinned version, or say "
                f"{self.name}.content_sha256=null"
            )
        return found

    def fingerprint(self) -> str:
        """The pinned hash of the problems, or that of those which are found.

        Raises:
            LabError: nothing is pinned and the problems cannot be had.
        """
        return self.content_sha256 or content_hash(self.problems)


def content_hash(problems: Sequence[Problem]) -> str:
    """sha256 of questions and answers, whatever their order, template and file format."""
    rows = sorted([" ".join(problem.question.split()), problem.answer] for problem in problems)
    return hashlib.sha256(json.dumps(rows, ensure_ascii=False).encode()).hexdigest()


def benchmark_files() -> dict[str, Path]:
    """The definitions that ship with the package, by name."""
    folder = shipped("conf") / "benchmark"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_benchmark(name: str, changes: Mapping[str, Any] | None = None) -> Benchmark:
    """The benchmark ``name``, or that of the YAML file ``name``, with ``changes`` to its keys.

    A change is ``{"samples": 2}`` or ``{"task.path": "aime24.jsonl"}``; one to the data
    (``task.path``, ``task.file``, ``task.revision``) keeps count and hash: other data are refused.

    Raises:
        LabError: an unknown name, a file that is no mapping, or a key or value that the schema
            does not take.
    """
    by_path = name.endswith((".yaml", ".yml"))
    path = Path(name) if by_path else benchmark_files().get(name)
    if path is None or not path.is_file():
        raise unknown("benchmark", name, benchmark_files())
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise LabError(f"{path} is not valid YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(tree, dict):
        raise LabError(f"{path} must be a mapping with task:, count: and max_tokens:")
    tree = {"name": path.stem, **tree}
    for key, value in (changes or {}).items():
        owner, _, option = key.partition(".")
        if option:
            tree[owner] = {**(tree.get(owner) or {}), option: value}
        else:
            tree[owner] = value
    return validated(Benchmark, tree, tree["name"])
