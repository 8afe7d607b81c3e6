"""What is to be evaluated, resolved and checked before any model is loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cegppo_lab.benchmark import Benchmark, benchmark_files, content_hash, load_benchmark
from cegppo_lab.errors import LabError
from cegppo_lab.evaluate.engines import check_engine
from cegppo_lab.evaluate.policies import PolicySpec, find_policies
from cegppo_lab.evaluate.settings import EvaluateRuntime, Settings, check_changes
from cegppo_lab.models import located, weights_hash
from cegppo_lab.models.paths import chat_template
from cegppo_lab.store import RunStore
from cegppo_lab.tasks import Problem

SEMANTICS = 1
"""Bumped when the same policy, benchmark and seed begin to give other responses or verdicts."""


@dataclass(frozen=True)
class Evaluation:
    """One policy on one benchmark: what its samples depend on, and how many are asked for.

    ``identity``: all that a sample depends on, as plain JSON values; ``evaluation_id`` is its hash.
    ``wanted``: the number of problems asked for, the first ones of the benchmark; None: all.
    """

    policy: PolicySpec
    benchmark: Benchmark
    identity: dict[str, Any]
    engine: str
    seed: int
    wanted: int | None = None

    @cached_property
    def evaluation_id(self) -> str:
        """Twelve characters; neither k nor the number of problems changes it."""
        text = json.dumps(self.identity, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def problems(self) -> Sequence[Problem]:
        """The problems asked for, in the benchmark's order."""
        return self.benchmark.problems[: self.wanted]

    @property
    def shown_name(self) -> str:
        """The benchmark's name, and how many of its problems where they are not all."""
        return part_name(self.benchmark.name, self.wanted)


def part_name(benchmark: str, problems: int | None) -> str:
    """What records and metrics call the first ``problems`` of a benchmark; None: all of it."""
    return benchmark if problems is None else f"{benchmark}_first_{problems}"


@dataclass(frozen=True)
class Plan:
    """All evaluations of a call, policy by policy, with how to run them."""

    name: str
    evaluations: list[Evaluation]
    runtime: EvaluateRuntime
    batch_size: int


def make_plan(words: Sequence[str], settings: Settings, say: Callable[[str], None]) -> Plan:
    """The plan for policies (``words``) under ``settings``; reads and checks all problems.

    ``say`` is told what is left out.

    Raises:
        LabError: a policy, benchmark or problem that cannot be had, a policy without the chat
            template that it shall use, or an engine that is not installed.
    """
    config = settings.config
    check_engine(config.engine, config.runtime)
    found = find_policies(words, RunStore(config.runtime.store), say)
    policies = [_as_asked(policy, settings) for policy in found]
    names = {policy.label: config.benchmarks or _own_benchmarks(policy) for policy in policies}
    distinct = list(dict.fromkeys(name for some in names.values() for name in some))
    check_changes(settings, distinct)
    benchmarks = {name: settings.benchmark(name) for name in distinct}
    _check_names([benchmark.name for benchmark in benchmarks.values()])
    contents = {name: _benchmark_identity(benchmark) for name, benchmark in benchmarks.items()}
    identities = {policy.label: _policy_identity(policy) for policy in policies}
    shared = {"engine": config.engine, "seed": config.seed, "semantics": SEMANTICS}
    evaluations = [
        Evaluation(
            policy=policy,
            benchmark=benchmarks[name],
            identity={"policy": identities[policy.label], "benchmark": contents[name], **shared},
            engine=config.engine,
            seed=config.seed,
            wanted=_wanted(config.problems, benchmarks[name]),
        )
        for policy in policies
        for name in names[policy.label]
    ]
    return Plan(config.name, evaluations, config.runtime, config.batch_size)


def _as_asked(policy: PolicySpec, settings: Settings) -> PolicySpec:
    config = settings.config
    return policy.changed(
        dtype=config.dtype,
        chat_template=config.chat_template,
        # Scaled weights are the same function; vLLM loads them as they are.
        head_scale=1.0 if config.engine == "vllm" else None,
    )


def _own_benchmarks(policy: PolicySpec) -> list[str]:
    """The shipped benchmarks of the task that the policy was made for."""
    own = [
        name
        for name in benchmark_files()
        if policy.task is not None and load_benchmark(name).task.name == policy.task
    ]
    if not own:
        raise LabError(
            f"say what to evaluate {policy.label!r} on: benchmarks=[NAME,...], of "
            f"{', '.join(benchmark_files()) or 'none'}, or YAML files"
        )
    return own


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise LabError(f"two benchmarks are called {name!r}; give one of them another name:")


def _wanted(problems: int | None, benchmark: Benchmark) -> int | None:
    return problems if problems is not None and problems < len(benchmark.problems) else None


def _policy_identity(policy: PolicySpec) -> dict[str, Any]:
    located(policy.path, download=True)
    return {
        "weights_hash": weights_hash(policy.path),
        "head_scale": policy.head_scale,
        "dtype": policy.dtype,
        "chat_template": _chat_template(policy) if policy.chat_template else None,
    }


def _chat_template(policy: PolicySpec) -> str:
    """sha256 of the template that the policy's prompts are put through."""
    template = chat_template(policy.path)
    if template is None:
        raise LabError(
            f"policy {policy.given!r} has no chat template; say chat_template=false to give it the "
            "prompts as they are"
        )
    return hashlib.sha256(json.dumps(template).encode()).hexdigest()


def _benchmark_identity(benchmark: Benchmark) -> dict[str, Any]:
    """What responses and verdicts depend on. A task's defaults are covered by its version."""
    task = benchmark.task
    prompts = sorted([problem.id, problem.prompt] for problem in benchmark.problems)
    return {
        "name": benchmark.name,  # in the streams of random numbers
        "content_hash": content_hash(benchmark.problems),  # of this copy, whichever are pinned
        "prompts_hash": hashlib.sha256(json.dumps(prompts).encode()).hexdigest(),
        "task": {
            **task.model_dump(mode="json", exclude_defaults=True, exclude=set(task.data_options)),
            "name": task.name,
            "version": task.version,
        },
        "temperature": benchmark.temperature,
        "top_p": benchmark.top_p,
        "max_tokens": benchmark.max_tokens,
    }
