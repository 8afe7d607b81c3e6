"""The vLLM engine. Written against vLLM's documented interface and never run by us.

What is used of it: ``LLM(model=, dtype=)``, ``LLM.get_tokenizer()``, ``LLM.generate(prompts,
sampling_params, use_tqdm=)`` with one prompt of token ids and one ``SamplingParams(n, temperature,
top_p, max_tokens, seed)`` a request, and of each ``RequestOutput`` the one ``CompletionOutput``:
``text``, ``token_ids``, ``finish_reason`` (``stop`` or ``length``). Tests use a stand-in with these
signatures. vLLM does not promise equal numbers under other batching.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cegppo_lab.benchmark import Benchmark
from cegppo_lab.errors import LabError
from cegppo_lab.evaluate.engines import Request, Response
from cegppo_lab.evaluate.policies import PolicySpec
from cegppo_lab.models import local_folder
from cegppo_lab.streams import seed_of


class VllmEngine:
    """A policy served by vLLM in this process; head scales are left out: the same function."""

    def __init__(self, policy: PolicySpec) -> None:
        try:
            from vllm import LLM
        except ImportError as error:
            raise LabError(
                f"engine=vllm needs vllm ({error}): pip install 'cegppo-lab[vllm]', or "
                "engine=embedded"
            ) from None
        self._templated = policy.chat_template
        self._llm = LLM(model=str(local_folder(policy.path)), dtype=policy.dtype)
        self._tokenizer = self._llm.get_tokenizer()

    def answer(self, requests: Sequence[Request], benchmark: Benchmark) -> list[Response]:
        """See :class:`cegppo_lab.evaluate.engines.Engine`; vLLM batches as it sees fit."""
        from vllm import SamplingParams

        sampling = [
            SamplingParams(
                n=1,
                temperature=benchmark.temperature,
                top_p=benchmark.top_p,
                max_tokens=benchmark.max_tokens,
                seed=seed_of(*request.stream),
            )
            for request in requests
        ]
        prompts = [{"prompt_token_ids": self._ids(request.prompt)} for request in requests]
        outputs = self._llm.generate(prompts, sampling, use_tqdm=False)
        return [_response(output.outputs[0]) for output in outputs]

    def _ids(self, prompt: str) -> list[int]:
        """The tokens that ``Policy`` encodes a prompt to: templated, with nothing put in front."""
        text = prompt
        if self._templated:
            text = self._tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False
            )
        return self._tokenizer(text, add_special_tokens=False)["input_ids"]


def _response(output: Any) -> Response:
    return Response(output.text, len(output.token_ids), output.finish_reason == "stop")
