"""What answers prompts: the embedded policy or vLLM, behind one protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import groupby
from typing import Protocol

import torch

from cegppo_lab.benchmark import Benchmark
from cegppo_lab.errors import LabError
from cegppo_lab.evaluate.policies import PolicySpec
from cegppo_lab.evaluate.settings import EvaluateRuntime
from cegppo_lab.streams import uniforms
from cegppo_lab.trainers.embedded.device import device_of
from cegppo_lab.trainers.embedded.policy import Policy


@dataclass(frozen=True)
class Request:
    """One response to be sampled; ``stream`` names its random numbers (see ``streams``)."""

    prompt: str
    stream: tuple[int | str, ...]


@dataclass(frozen=True)
class Response:
    """A sampled response: its text without special tokens, and its tokens, the last included.

    ``finished``: it ended itself, within the token budget.
    """

    text: str
    length: int
    finished: bool


class Engine(Protocol):
    """Samples responses; each depends on its own request and on no other, up to rounding."""

    def answer(self, requests: Sequence[Request], benchmark: Benchmark) -> list[Response]:
        """A response to each request, with the benchmark's temperature, top-p and budget."""
        ...


class EmbeddedEngine:
    """The embedded trainer's policy: a Hugging Face causal LM in this process."""

    def __init__(self, policy: PolicySpec, runtime: EvaluateRuntime) -> None:
        from transformers.utils.logging import disable_progress_bar

        from cegppo_lab.trainers.embedded.malloc import keep_freed_memory

        torch.set_num_threads(runtime.threads)
        keep_freed_memory()
        disable_progress_bar()
        self._policy = Policy.load(
            policy.path,
            head_scale=policy.head_scale,
            device=device_of(runtime.device),
            dtype=policy.dtype,
            chat_template=policy.chat_template,
        )

    def answer(self, requests: Sequence[Request], benchmark: Benchmark) -> list[Response]:
        """See :class:`Engine`. Equal prompts next to each other are encoded once."""
        answered: list[Response] = []
        runs = [(prompt, list(group)) for prompt, group in groupby(requests, lambda r: r.prompt)]
        for repeats, same in groupby(runs, lambda run: len(run[1])):
            answered += self._sample(list(same), repeats, benchmark)
        return answered

    def _sample(
        self, runs: list[tuple[str, list[Request]]], repeats: int, benchmark: Benchmark
    ) -> list[Response]:
        rows = [uniforms(1, benchmark.max_tokens, *r.stream) for _, run in runs for r in run]
        rollout = self._policy.generate(
            [prompt for prompt, _ in runs],
            repeats=repeats,
            max_new_tokens=benchmark.max_tokens,
            temperature=benchmark.temperature,
            top_p=benchmark.top_p,
            uniforms=torch.cat(rows),
        )
        lengths, ended = rollout.mask.sum(1).tolist(), rollout.finished.tolist()
        return [Response(*told) for told in zip(rollout.texts, lengths, ended, strict=True)]


def check_engine(name: str, runtime: EvaluateRuntime) -> None:
    """Raise ``LabError`` when the engine's package or its device is missing."""
    if name == "vllm" and find_spec("vllm") is None:
        raise LabError("engine=vllm needs vllm: pip install 'cegppo-lab[vllm]', or engine=embedded")
    if name == "embedded":
        device_of(runtime.device)


def make_engine(name: str, policy: PolicySpec, runtime: EvaluateRuntime) -> Engine:
    """The engine ``name`` with ``policy`` loaded.

    Raises:
        LabError: the policy cannot be loaded, or a package or device of the engine is missing.
    """
    if name == "vllm":
        from cegppo_lab.evaluate.vllm_engine import VllmEngine

        return VllmEngine(policy)
    return EmbeddedEngine(policy, runtime)
