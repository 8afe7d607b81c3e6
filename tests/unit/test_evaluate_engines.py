"""A sample depends on its own request; vLLM is asked as its interface has it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from cegppo_lab.benchmark import Benchmark
from cegppo_lab.errors import LabError
from cegppo_lab.evaluate.engines import EmbeddedEngine, Request, Response, make_engine
from cegppo_lab.evaluate.policies import PolicySpec
from cegppo_lab.evaluate.settings import EvaluateRuntime
from cegppo_lab.streams import seed_of
from cegppo_lab.trainers.embedded.policy import Policy

RUNTIME = EvaluateRuntime(store="", mlflow="", report="", device="cpu", threads=1)
WALK = PolicySpec("table_walk", "table_walk", "table_walk")
PROMPTS = ("^35:", "^12:", "^70:")


def _benchmark(**changes: Any) -> Benchmark:
    values = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 52, **changes}
    task = {"name": "table_walk"}
    return Benchmark(name="walk", title="t", source="s", task=task, count=12, **values)


def _requests(*prompts: str, samples: int = 2) -> list[Request]:
    return [Request(p, (0, "walk", p, i)) for p in prompts for i in range(samples)]


@pytest.fixture(scope="module")
def engine() -> EmbeddedEngine:
    return make_engine("embedded", WALK, RUNTIME)


def test_a_sample_depends_on_its_own_request_only(engine: EmbeddedEngine) -> None:
    together = engine.answer(_requests(*PROMPTS), _benchmark())
    alone = [engine.answer([request], _benchmark())[0] for request in _requests(*PROMPTS)]
    assert together == alone
    assert len({response.text for response in together}) == 6
    other = engine.answer([Request("^35:", (1, "walk", "^35:", 0))], _benchmark())
    assert other[0] != together[0]


def test_unequal_numbers_of_samples_are_answered_in_order(engine: EmbeddedEngine) -> None:
    requests = [*_requests("^35:", samples=1), *_requests("^12:"), *_requests("^70:")]
    whole = engine.answer(requests, _benchmark())
    assert whole == [engine.answer([request], _benchmark())[0] for request in requests]


def test_length_counts_tokens_and_finished_says_whether_it_ended(engine: EmbeddedEngine) -> None:
    answered = engine.answer(_requests(*PROMPTS), _benchmark())
    ended = [response for response in answered if response.finished]
    assert ended
    assert all(response.text[-2] == "=" for response in ended)
    assert all(response.length <= 52 for response in ended)
    (cut,) = engine.answer(_requests("^35:", samples=1), _benchmark(max_tokens=9))
    assert (cut.length, cut.finished) == (9, False)


def test_a_prompt_is_encoded_once_for_all_its_samples(
    engine: EmbeddedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[tuple[list[str], int]] = []
    generate = Policy.generate

    def counted(self: Policy, prompts: list[str], **options: Any) -> Any:
        encoded.append((prompts, options["repeats"]))
        return generate(self, prompts, **options)

    monkeypatch.setattr(Policy, "generate", counted)
    engine.answer(_requests("^35:", "^12:", samples=3), _benchmark(max_tokens=2))
    assert encoded == [(["^35:", "^12:"], 3)]


def test_the_benchmarks_temperature_and_nucleus_are_used(engine: EmbeddedEngine) -> None:
    greedy = engine.answer(_requests("^35:", samples=3), _benchmark(temperature=0.0))
    assert len({response.text for response in greedy}) == 1
    tiny = engine.answer(_requests("^35:", samples=3), _benchmark(top_p=1e-6))
    assert tiny == greedy


def test_threads_are_those_of_the_settings() -> None:
    before = torch.get_num_threads()
    try:
        EmbeddedEngine(WALK, RUNTIME.model_copy(update={"threads": 2}))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_cuda_without_a_gpu_is_told() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(LabError, match=r"sees no GPU; say runtime\.device=cpu"):
        make_engine("embedded", WALK, RUNTIME.model_copy(update={"device": "cuda"}))


@dataclass
class SamplingParams:
    """The fields of vLLM's that are used; others are refused, as vLLM does."""

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    max_tokens: int | None = 16


class LLM:
    """Answers with its prompt's tokens; ends itself unless the budget is 1 token."""

    made: list[dict[str, Any]] = []  # noqa: RUF012

    def __init__(self, model: str, *, dtype: str = "auto", **options: Any) -> None:
        from transformers import AutoTokenizer

        LLM.made.append({"model": model, "dtype": dtype, **options})
        self._tokenizer = AutoTokenizer.from_pretrained(model)

    def get_tokenizer(self) -> Any:
        return self._tokenizer

    def generate(
        self, prompts: list[dict], sampling_params: list[SamplingParams], *, use_tqdm: bool = True
    ) -> list[Any]:
        self.asked = sampling_params
        pairs = zip(prompts, sampling_params, strict=True)
        return [SimpleNamespace(outputs=[self._output(*pair)]) for pair in pairs]

    def _output(self, prompt: dict, params: SamplingParams) -> Any:
        ids = prompt["prompt_token_ids"]
        reason = "length" if params.max_tokens == 1 else "stop"
        text = self._tokenizer.decode(ids)
        return SimpleNamespace(index=0, text=text, token_ids=ids, finish_reason=reason)


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = LLM, SamplingParams
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setattr(LLM, "made", [])
    return module


def test_vllm_is_asked_for_each_sample_with_its_own_seed(vllm: ModuleType) -> None:
    engine = make_engine("vllm", PolicySpec("w", "w", "table_walk", dtype="bfloat16"), RUNTIME)
    requests = _requests("^35:", "^12:")
    answered = engine.answer(requests, _benchmark(temperature=0.6, top_p=0.95))
    assert [r.text.replace(" ", "") for r in answered] == ["^35:", "^35:", "^12:", "^12:"]
    assert answered[0] == Response(answered[0].text, 4, True)
    assert engine._llm.asked == [
        SamplingParams(1, 0.6, 0.95, seed_of(*request.stream), 52) for request in requests
    ]
    assert len({params.seed for params in engine._llm.asked}) == 4
    assert LLM.made[0]["dtype"] == "bfloat16"
    (cut,) = engine.answer(requests[:1], _benchmark(max_tokens=1))
    assert not cut.finished


def test_vllm_gets_prompts_in_the_chat_template(vllm: ModuleType) -> None:
    engine = make_engine("vllm", WALK, RUNTIME)
    template = "^{{ messages[0]['content'] }}{% if add_generation_prompt %}:{% endif %}"
    engine._tokenizer.chat_template = template
    templated = engine.answer(_requests("35", samples=1), _benchmark())
    assert templated[0].text.replace(" ", "") == "^35:"
    plain = make_engine("vllm", PolicySpec("w", "w", "table_walk", chat_template=False), RUNTIME)
    plain._tokenizer.chat_template = template
    assert plain.answer(_requests("35", samples=1), _benchmark())[0].length == 2


def test_without_vllm_it_is_told_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(LabError, match=r"pip install 'cegppo-lab\[vllm\]', or engine=embedded"):
        make_engine("vllm", WALK, RUNTIME)
