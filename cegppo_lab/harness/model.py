"""The embedded policy as a model of lm-evaluation-harness. Needs lm-eval."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.models.utils import normalize_gen_kwargs
from tqdm import tqdm

from cegppo_lab.errors import LabError
from cegppo_lab.evaluate.policies import PolicySpec
from cegppo_lab.streams import uniforms
from cegppo_lab.trainers.embedded.policy import Policy

_KNOWN = {"until", "do_sample", "temperature", "top_p", "max_gen_toks"}


@dataclass(frozen=True)
class Sampling:
    """How a response is sampled; requests of the same kind are decoded together."""

    max_tokens: int
    temperature: float
    top_p: float


@dataclass(frozen=True)
class _Job:
    prompt: str
    sampling: Sampling
    stops: tuple[str, ...]
    stream: tuple[int | str, ...]


class PolicyLM(LM):
    """Text generation over :class:`Policy`; a response depends on its own request and no other.

    Its random numbers are those of the stream (seed, task, problem, number of the response).
    Prompts are taken as lm-eval writes them; a chat template is lm-eval's to apply.
    """

    def __init__(self, policy: Policy, *, seed: int, batch_size: int) -> None:
        super().__init__()
        self.policy, self._seed, self._batch_size = policy, seed, batch_size

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """One response to each request, cut before the first of its stop sequences.

        Raises:
            LabError: an option of generation that is not served, or a prompt and a budget that
                are more than the policy's context.
        """
        seen: Counter[tuple[str, int]] = Counter()
        kinds: dict[Sampling, list[tuple[int, _Job]]] = {}
        for place, request in enumerate(requests):
            problem = (request.task_name or "", request.doc_id or 0)
            job = self._job(request, (self._seed, "harness", *problem, seen[problem]))
            seen[problem] += 1
            kinds.setdefault(job.sampling, []).append((place, job))
        for sampling, some in kinds.items():
            self._check_room(sampling, [job.prompt for _, job in some])
        answers = [""] * len(requests)
        with tqdm(total=len(requests), disable=disable_tqdm, desc="responses") as progress:
            for sampling, some in kinds.items():
                for first in range(0, len(some), self._batch_size):
                    batch = some[first : first + self._batch_size]
                    texts = self._sample(sampling, [job for _, job in batch])
                    for (place, job), text in zip(batch, texts, strict=True):
                        answers[place] = cut(text, job.stops)
                    progress.update(len(batch))
        return answers

    def _job(self, request: Instance, stream: tuple[int | str, ...]) -> _Job:
        prompt, given = request.args
        options: dict[str, Any] = dict(normalize_gen_kwargs(given))
        if unserved := sorted(set(options) - _KNOWN):
            raise LabError(
                f"task {request.task_name!r} asks for {', '.join(unserved)}, which the embedded "
                f"policy does not serve; it has {', '.join(sorted(_KNOWN))}"
            )
        temperature = given.get("temperature", 1.0) if options["do_sample"] else 0.0
        sampling = Sampling(
            options["max_gen_toks"], float(temperature), float(options.get("top_p", 1.0))
        )
        return _Job(prompt, sampling, tuple(filter(None, options["until"])), stream)

    def _check_room(self, sampling: Sampling, prompts: Sequence[str]) -> None:
        room = getattr(self.policy.model.config, "max_position_embeddings", None)
        longest = max(
            len(ids)
            for ids in self.policy.tokenizer(list(prompts), add_special_tokens=False).input_ids
        )
        if room is not None and longest + sampling.max_tokens > room:
            raise LabError(
                f"a prompt of {longest} tokens and a response of {sampling.max_tokens} are more "
                f"than the policy's context of {room}; say --max-tokens {max(room - longest, 1)}"
            )

    def _sample(self, sampling: Sampling, jobs: Sequence[_Job]) -> list[str]:
        rows = [uniforms(1, sampling.max_tokens, *job.stream) for job in jobs]
        rollout = self.policy.generate(
            [job.prompt for job in jobs],
            repeats=1,
            max_new_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            uniforms=torch.cat(rows),
        )
        return rollout.texts

    def loglikelihood(self, requests: list[Instance]) -> NoReturn:
        """Not served; always raises ``LabError``."""
        _refuse(requests)

    def loglikelihood_rolling(self, requests: list[Instance]) -> NoReturn:
        """Not served; always raises ``LabError``."""
        _refuse(requests)

    @property
    def tokenizer_name(self) -> str:
        """A name for caches of templated prompts."""
        return self.policy.tokenizer.name_or_path.replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str:
        """The template's text, for lm-eval's records."""
        return self.policy.tokenizer.chat_template or ""

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The prompt that the tokenizer's template makes of the messages."""
        return self.policy.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )


def load_model(spec: PolicySpec, seed: int, batch_size: int, device: str) -> PolicyLM:
    """The policy of ``spec``, which reads prompts as they are.

    Raises:
        LabError: it cannot be loaded, or has no chat template though ``spec`` wants one.
    """
    from cegppo_lab.models.paths import no_chat_template

    policy = Policy.load(
        spec.path,
        head_scale=spec.head_scale,
        device=device,
        dtype=spec.dtype,
        chat_template=False,
    )
    if spec.chat_template and not policy.tokenizer.chat_template:
        raise no_chat_template(spec.path)
    return PolicyLM(policy, seed=seed, batch_size=batch_size)


def cut(text: str, stops: Sequence[str]) -> str:
    """``text`` up to the first occurrence of any of ``stops``."""
    return text[: min([len(text), *(at for stop in stops if (at := text.find(stop)) >= 0)])]


def _refuse(requests: list[Instance]) -> NoReturn:
    task = requests[0].task_name if requests else None
    raise LabError(
        f"task {task!r} needs log-likelihoods, which the harness command does not serve; "
        "name a task of generated text"
    )
