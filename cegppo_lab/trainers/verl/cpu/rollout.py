"""A rollout engine for verl on a CPU: token ids in, token ids and log-probabilities out.

It samples with the embedded trainer's decoder. Each request has a random stream of its own, so a
response depends on the weights, the prompt and how often that prompt was asked before, not on
which requests happened to be decoded together.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import ray
import torch
import torch.nn.functional as F
from omegaconf import DictConfig
from torch import Tensor
from transformers import AutoModelForCausalLM
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.config import HFModelConfig, RolloutConfig
from verl.workers.rollout.base import BaseRollout
from verl.workers.rollout.replica import RolloutReplica, TokenOutput

from cegppo_lab.errors import LabError
from cegppo_lab.streams import torch_stream
from cegppo_lab.trainers.embedded.decode import make_decoder
from cegppo_lab.trainers.embedded.rollout import Samples, sample_tokens

_GATHER_SECONDS = 0.02
"""How long a batch waits for more requests before it is decoded."""


@dataclass(frozen=True)
class _Request:
    prompt: tuple[int, ...]
    temperature: float
    top_p: float
    uniforms: Tensor  # (response_length,) in [0, 1)
    answer: asyncio.Future[TokenOutput]

    def goes_with(self, other: _Request) -> bool:
        return (self.temperature, self.top_p) == (other.temperature, other.top_p)


class SamplingServer:
    """The model of one rollout replica, in a Ray actor."""

    def __init__(self, config: RolloutConfig, model_config: DictConfig, replica_rank: int) -> None:
        torch.set_num_threads(1)
        model = omega_conf_to_dataclass(model_config, HFModelConfig)
        self._config, self._rank, self._step = config, replica_rank, 0
        self._model = AutoModelForCausalLM.from_config(model.hf_config, dtype=torch.float32).eval()
        ends = model.generation_config and model.generation_config.eos_token_id
        ends = {model.tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}
        self._eos_ids = torch.tensor(sorted(ends - {None}))
        self._asked: Counter[tuple[int, ...]] = Counter()
        self._waiting: list[_Request] = []
        self._decoding: asyncio.Task[None] | None = None

    async def generate(
        self,
        request_id: str,
        prompt_ids: Iterable[int],
        sampling_params: dict[str, Any],
        **_: Any,
    ) -> TokenOutput:
        """verl's call for one response; it uses ``temperature`` (0 is greedy) and ``top_p``."""
        prompt = tuple(int(token) for token in prompt_ids)
        labels = (self._config.seed, "rollout", self._rank, self._step, str(prompt))
        stream = torch_stream(*labels, self._asked[prompt])
        self._asked[prompt] += 1
        request = _Request(
            prompt,
            float(sampling_params["temperature"]),
            float(sampling_params["top_p"]),
            torch.rand(self._config.response_length, generator=stream),
            asyncio.get_running_loop().create_future(),
        )
        self._waiting.append(request)
        if self._decoding is None or self._decoding.done():
            self._decoding = asyncio.create_task(self._decode_waiting())
        return await request.answer

    async def load_weights(self, weights: dict[str, Tensor], step: int | None) -> None:
        """Take over the trainer's weights; ``step`` is the training step that they come from."""
        weights = {name: tensor.float() for name, tensor in weights.items()}
        missing, unexpected = self._model.load_state_dict(weights, strict=False)
        tied = {"lm_head.weight"} if self._model.config.tie_word_embeddings else set()
        if unexpected or set(missing) - tied:
            raise RuntimeError(f"weights do not fit: {missing} missing, {unexpected} unexpected")
        self._model.tie_weights()
        self._step = step or 0
        self._asked.clear()

    async def nothing(self, *_: Any, **__: Any) -> None:
        """What verl's memory, profiling and interruption calls do here."""

    wake_up = sleep = clear_kv_cache = release_kv_cache = resume_kv_cache = nothing
    abort_all_requests = resume_generation = start_profile = stop_profile = nothing

    async def _decode_waiting(self) -> None:
        while self._waiting:
            await asyncio.sleep(_GATHER_SECONDS)
            first = self._waiting[0]
            batch = [r for r in self._waiting if r.goes_with(first)][: self._config.max_num_seqs]
            taken = {id(request) for request in batch}
            self._waiting = [r for r in self._waiting if id(r) not in taken]
            try:
                samples = self._sample(batch)
            except Exception as failure:  # whoever asked has to hear of it
                for request in batch:
                    request.answer.set_exception(failure)
                continue
            for row, request in enumerate(batch):
                request.answer.set_result(self._output(samples, row))

    def _sample(self, batch: list[_Request]) -> Samples:
        longest = max(len(request.prompt) for request in batch)
        ids = torch.stack([_left_padded(request.prompt, longest) for request in batch])
        lengths = torch.tensor([len(request.prompt) for request in batch])
        mask = torch.arange(longest) >= longest - lengths[:, None]
        decoder = make_decoder(self._model)
        with torch.no_grad():
            logits = decoder.prefill(ids, mask, 1, self._config.response_length)
            return sample_tokens(
                decoder,
                logits,
                torch.stack([request.uniforms for request in batch]),
                eos_ids=self._eos_ids,
                temperature=batch[0].temperature,
                top_p=batch[0].top_p,
            )

    def _output(self, samples: Samples, row: int) -> TokenOutput:
        sampled = samples.mask[row]
        return TokenOutput(
            token_ids=samples.tokens[row, sampled].tolist(),
            log_probs=samples.log_prob[row, sampled].tolist(),
            stop_reason="completed",
            num_preempted=0,
            extra_fields={"global_steps": self._step},
        )


class CPUReplica(RolloutReplica):
    """verl's handle of one :class:`SamplingServer`, which it starts."""

    def rollout_worker_use_gpu(self) -> bool:
        """No: the server computes on the CPU cores that Ray does not count."""
        return False

    async def launch_servers(self) -> None:
        """Start the server; ``LabError`` for sampling options that it does not have."""
        for options in (self.config, self.config.val_kwargs):
            if options.top_k not in (-1, 0):
                raise LabError(f"rollout.top_k={options.top_k}: not on a CPU; use -1")
        name = _server_name(self.replica_rank)
        options = {"num_cpus": 0, "name": name, "max_concurrency": self.max_concurrency}
        server = (
            ray.remote(SamplingServer)
            .options(**options)
            .remote(self.config, self.model_config, self.replica_rank)
        )
        await server.nothing.remote()
        self.servers, self._server_handle, self._server_address = [server], server, name


class WeightPusher(BaseRollout):
    """The rollout's end in each training process: it sends the weights to the server."""

    async def resume(self, tags: list[str]) -> None:
        """Nothing: the server keeps its memory."""

    async def release(self) -> None:
        """Nothing: the server keeps its memory."""

    async def update_weights(
        self,
        weights: Iterable[tuple[str, Tensor]],
        wire_format: str = "named_tensors",
        global_steps: int | None = None,
        **_: Any,
    ) -> None:
        """Send full tensors; every rank has to consume ``weights``, which gathers the shards."""
        if wire_format != "named_tensors":
            raise LabError(f"checkpoint engine format {wire_format!r}: on a CPU use backend=naive")
        gathered = {name: tensor.detach().cpu().clone() for name, tensor in weights}
        server = ray.get_actor(_server_name(int(os.environ["RANK"])))
        await server.load_weights.remote(gathered, global_steps)


def _server_name(rank: int) -> str:
    return f"cegppo_lab_cpu_server_{rank}"


def _left_padded(prompt: tuple[int, ...], width: int) -> Tensor:
    return F.pad(torch.tensor(prompt), (width - len(prompt), 0))
