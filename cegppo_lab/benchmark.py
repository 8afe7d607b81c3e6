"""Benchmarks: fixed problems, how often they are answered and with what budget, and their hash."""

from __future__ import annotations

import hashlib
import json
import os.path
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_serializer,
    field_validator,
)

from cegppo_lab.errors import LabError, unknown
from cegppo_lab.resources import shipped
from cegppo_lab.tasks import Problem, Task, make_task
from cegppo_lab.validation import validated
from cegppo_lab.yaml_files import read_mapping

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


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
    content_sha256: tuple[Sha256, ...] = ()
    """:func:`content_hash` of the known copies, which differ in wording; the problems must be one
    of them. The first is that of the copy which ``task`` fetches. Empty or null: any problems."""
    samples: int = Field(32, ge=1)
    """k: responses per problem."""
    temperature: float = Field(0.6, ge=0)
    top_p: float = Field(0.95, gt=0, le=1)
    max_tokens: int = Field(ge=1)
    """Tokens of a response, the end-of-sequence token included."""

    @field_validator("content_sha256", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return () if value is None else (value,) if isinstance(value, str) else value

    @field_validator("task", mode="before")
    @classmethod
    def _by_name(cls, value: Any, info: ValidationInfo) -> Task:
        if isinstance(value, Task):
            return value
        if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
            raise ValueError("must name a task, e.g. {name: math, path: FILE}")
        try:
            return make_task(**{str(key): option for key, option in value.items()})
        except LabError as error:
            raise _of(info.data.get("name", "NAME"), error) from None

    @field_serializer("task")
    def _task_as_plain(self, task: Task) -> dict[str, Any]:
        return {"name": task.name, **task.model_dump(mode="json")}

    @cached_property
    def problems(self) -> Sequence[Problem]:
        """The problems, read and checked when first asked for; ids start with the ``name``.

        Raises:
            LabError: they cannot be had, or are not those that the definition pins.
        """
        try:
            found = self.task.heldout()
        except LabError as error:
            raise _of(self.name, error) from None
        if len(found) != self.count:
            raise LabError(
                f"benchmark {self.name!r} must have {self.count} problems, not {len(found)}; "
                f"fetch the pinned version, or say {self.name}.count={len(found)}"
            )
        digest = content_hash(found)
        if self.content_sha256 and digest not in self.content_sha256:
            raise LabError(
                f"the problems of benchmark {self.name!r} are not the pinned ones: their hash is "
                f"{digest}, not {' or '.join(self.content_sha256)}; fetch the pinned version, or "
                f"say {self.name}.content_sha256=null"
            )
        return tuple(replace(each, id=f"{self.name}/{_own_part(each.id)}") for each in found)

    def fingerprint(self) -> str:
        """The hash that stands for the problems: the first pinned one, else that of those found.

        Raises:
            LabError: nothing is pinned and the problems cannot be had.
        """
        return self.content_sha256[0] if self.content_sha256 else content_hash(self.problems)


def _own_part(problem_id: str) -> str:
    """The id without the name of the task, e.g. ``3-5`` of ``table_walk/3-5``."""
    return problem_id.partition("/")[2] or problem_id


def _of(name: str, error: LabError) -> LabError:
    """``error`` of the task of benchmark ``name``, with keys as they are typed for it."""
    told = re.sub(r"(?<![\w./])task\.(?=[a-z])", f"{name}.task.", str(error))
    return LabError(f"benchmark {name!r}: {told}")


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
    if path is None or not os.path.isfile(path):
        raise unknown("benchmark", name, benchmark_files())
    content = read_mapping(path, "task:, count: and max_tokens:")
    tree = {"name": path.stem, **content}
    for key, value in (changes or {}).items():
        _change(tree, key.split("."), value)
    return validated(Benchmark, tree, str(tree["name"]))


def _change(tree: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    """Set the value at the end of ``keys`` in the nested ``tree``; a value gives way to a group."""
    *owners, last = keys
    for owner in owners:
        inner = tree.get(owner)
        tree[owner] = dict(inner) if isinstance(inner, Mapping) else {}
        tree = tree[owner]
    tree[last] = value
