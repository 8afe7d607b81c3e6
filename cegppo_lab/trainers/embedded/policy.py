"""The policy of the embedded trainer: a Hugging Face causal LM that samples and scores responses.

``generate`` gives rollouts with their log-probabilities; ``log_prob_and_entropy`` scores the same
tokens again with a gradient, without ever holding the logits of more than one chunk of tokens.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from cegppo_lab.errors import LabError, unknown
from cegppo_lab.models import local_folder, located, weights_hash
from cegppo_lab.models.paths import no_chat_template, unreadable
from cegppo_lab.trainers.embedded.decode import batches, make_decoder, positions
from cegppo_lab.trainers.embedded.recompute import RecomputedLayers
from cegppo_lab.trainers.embedded.rollout import Rollout, Samples, sample_tokens
from cegppo_lab.trainers.embedded.scoring import check_head, token_scores
from cegppo_lab.trainers.embedded.weights import rescale_head

__all__ = ["Policy", "Rollout"]


class Policy:
    """A causal language model with its tokenizer, on one device.

    ``source``: the folder or GGUF file that it came from; for the other options see :meth:`load`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        source: Path,
        *,
        chat_template: bool = True,
        gradient_checkpointing: bool = False,
        batch_size: int | None = None,
    ) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer
        self.device = model.device
        self._source, self._chat_template, self._batch_size = source, chat_template, batch_size
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        self._backbone, self._head = model.get_decoder(), model.get_output_embeddings()
        check_head(model)
        self._layers = RecomputedLayers(model) if gradient_checkpointing else None
        eos = model.generation_config.eos_token_id
        ends = {tokenizer.eos_token_id, *(eos if isinstance(eos, list) else [eos])} - {None}
        self._eos_ids = torch.tensor(sorted(ends), dtype=torch.long, device=self.device)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        head_scale: float = 1.0,
        device: str = "cpu",
        dtype: str = "float32",
        chat_template: bool = True,
        gradient_checkpointing: bool = False,
        batch_size: int | None = None,
    ) -> Policy:
        """Load a policy from safetensors; only a hub id that is not cached yet uses the network.

        Args:
            path: a name, folder, GGUF file or hub id, as :func:`cegppo_lab.models.located` reads
                it.
            head_scale: multiplies the final norm's weight by s and divides the head's by s. The
                function stays the same, but Adam, whose steps do not depend on the size of a
                weight, moves the logits s times more through the norm's output: disclose it
                wherever results are shown.
            device: as torch spells it.
            dtype: ``float32``, ``bfloat16`` or ``float16``.
            chat_template: write prompts as the tokenizer's chat template has them.
            gradient_checkpointing: compute the layers again in the backward pass instead of
                keeping what they computed: less memory, the same gradients.
            batch_size: rows that :meth:`generate` decodes at a time where it is not told.

        Raises:
            LabError: nothing loadable at ``path``, no chat template, or an option that the model
                cannot take.
        """
        types = {name: getattr(torch, name) for name in ("float32", "bfloat16", "float16")}
        if dtype not in types:
            raise unknown("dtype", dtype, types)
        folder = local_folder(path, download=True)
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model = AutoModelForCausalLM.from_pretrained(
                folder, dtype=types[dtype], use_safetensors=True, local_files_only=True
            )
        except (OSError, ValueError) as failure:
            raise unreadable(path, failure) from None
        if chat_template and not tokenizer.chat_template:
            raise no_chat_template(path)
        if head_scale != 1.0:
            rescale_head(model, head_scale)
        return cls(
            model.to(device),
            tokenizer,
            located(path),
            chat_template=chat_template,
            gradient_checkpointing=gradient_checkpointing,
            batch_size=batch_size,
        )

    @property
    def pad_id(self) -> int:
        """The token that fills prompts on the left and responses on the right."""
        return self.tokenizer.pad_token_id

    def weights_hash(self) -> str:
        """sha256 of the safetensors or the GGUF file that the policy was loaded from."""
        return weights_hash(self._source)

    @torch.no_grad()
    def generate(
        self,
        prompts: list[str],
        *,
        repeats: int,
        max_new_tokens: int,
        temperature: float,
        uniforms: Tensor,
        top_p: float = 1.0,
        batch_size: int | None = None,
    ) -> Rollout:
        """Sample ``repeats`` responses to each prompt; B = len(prompts) * repeats rows.

        Args:
            prompts: each becomes the one user message of the tokenizer's chat template (or is
                taken as it is, without ``chat_template``); no token is put in front.
            max_new_tokens: end of a response that has not ended itself.
            temperature: of the sampling; 0 is greedy.
            uniforms: (B, max_new_tokens) in [0, 1), the only source of randomness: a sample
                depends on its own row and on no other.
            top_p: nucleus of the sampling; log-probabilities remain those of the full softmax.
            batch_size: rows decoded at a time, at most; None: the policy's own; if None too, all.
        """
        uniforms = uniforms.to(self.device)
        prompts = self._messages(prompts)
        decoder, parts = make_decoder(self.model), []
        size = batch_size or self._batch_size or len(uniforms)
        for some, copies, rows in batches(len(prompts), repeats, size):
            ids, mask = self._encode(prompts[some])
            logits = decoder.prefill(ids, mask, copies, max_new_tokens)
            samples = sample_tokens(
                decoder,
                logits,
                uniforms[rows],
                eos_ids=self._eos_ids,
                temperature=temperature,
                top_p=top_p,
            )
            parts.append(self._rollout(ids, mask, samples, copies))
        return Rollout.concat(parts, self.pad_id)

    def log_prob_and_entropy(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        response_length: int,
        *,
        temperature: float = 1.0,
        chunk_tokens: int = 4096,
        entropy_grad: bool = False,
        pull: bool = False,
    ) -> tuple[Tensor, ...]:
        """Log-probability and entropy of the last ``response_length`` tokens of each row.

        Logits exist for at most ``chunk_tokens`` tokens at a time: if there are more, they are
        computed again in the backward pass.

        Args:
            input_ids: (B, P + response_length) left-padded prompts, then padded responses.
            attention_mask: (B, P + response_length), zero on both paddings.
            temperature: divides the logits.
            entropy_grad: let gradients flow through the entropy, too.
            pull: return the third tensor of :func:`.scoring.token_scores` as well.

        Returns:
            Two (B, response_length) float32 tensors in nats, 0 where the mask is zero; with
            ``pull`` three.
        """
        valid = attention_mask.bool()
        seen = valid.clone()
        seen[:, -response_length:] = True  # causal attention never looks ahead to that padding
        recompute = self._layers and torch.is_grad_enabled()
        with self._layers.recorded() if recompute else nullcontext():
            hidden = self._backbone(
                input_ids=input_ids,
                attention_mask=None if seen.all() else seen.long(),
                position_ids=positions(seen),
                use_cache=False,
            ).last_hidden_state[:, -response_length - 1 : -1]
        valid = valid[:, -response_length:]
        states, targets = hidden[valid], input_ids[:, -response_length:][valid]
        scores = token_scores(
            self._head,
            states,
            targets,
            temperature=temperature,
            chunk_tokens=chunk_tokens,
            entropy_grad=entropy_grad,
            pull=pull,
        )
        empty = hidden.new_zeros(valid.shape, dtype=torch.float32)
        return tuple(empty.masked_scatter(valid, score) for score in scores)

    def _messages(self, prompts: list[str]) -> list[str]:
        """The text that the model reads for each prompt."""
        if not self._chat_template:
            return prompts
        turns = [[{"role": "user", "content": prompt}] for prompt in prompts]
        return self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)

    def _encode(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        """Left-padded ids and their bool mask, each (P, L)."""
        batch = self.tokenizer(
            prompts,
            add_special_tokens=False,
            padding=True,
            padding_side="left",
            return_tensors="pt",
        )
        ids, mask = batch["input_ids"].long(), batch["attention_mask"].bool()
        if not mask.any(1).all():
            text = prompts[int(mask.any(1).long().argmin())]
            raise LabError(f"prompt {text!r} has no token in this policy's vocabulary.")
        return ids.to(self.device), mask.to(self.device)

    def _rollout(self, ids: Tensor, mask: Tensor, samples: Samples, repeats: int) -> Rollout:
        length = int(samples.mask.sum(1).max())
        sampled = samples.mask[:, :length]
        response = samples.tokens[:, :length].masked_fill(~sampled, self.pad_id)
        last = response.gather(1, sampled.sum(1, keepdim=True) - 1)
        return Rollout(
            input_ids=torch.cat([ids.repeat_interleave(repeats, 0), response], 1),
            attention_mask=torch.cat([mask.repeat_interleave(repeats, 0), sampled], 1),
            response_ids=response,
            mask=sampled,
            log_prob=samples.log_prob[:, :length],
            entropy=samples.entropy[:, :length],
            texts=self._decode(response, sampled),
            finished=torch.isin(last[:, 0], self._eos_ids),
        )

    def _decode(self, response: Tensor, sampled: Tensor) -> list[str]:
        lengths = sampled.sum(1).tolist()
        rows = [row[:n] for row, n in zip(response.tolist(), lengths, strict=True)]
        return self.tokenizer.batch_decode(rows, skip_special_tokens=True)
