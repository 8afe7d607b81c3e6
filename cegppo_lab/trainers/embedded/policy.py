"""The policy of the embedded trainer: a Hugging Face causal LM that samples and scores responses.

``generate`` gives rollouts with their log-probabilities; ``log_prob_and_entropy`` scores the same
tokens again with a gradient, without ever holding the logits of more than one chunk of tokens.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from cegppo_lab.errors import LabError, unknown
from cegppo_lab.models import local_folder, weights_hash
from cegppo_lab.trainers.embedded.decode import make_decoder, positions
from cegppo_lab.trainers.embedded.rollout import Rollout, Samples, sample_tokens
from cegppo_lab.trainers.embedded.weights import rescale_head

__all__ = ["Policy", "Rollout"]


class Policy:
    """A causal language model with its tokenizer, on one device."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path
    ) -> None:
        self.model, self.tokenizer, self.folder = model.eval(), tokenizer, folder
        self.device = model.device
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        self._backbone, self._head = model.get_decoder(), model.get_output_embeddings()
        self._check_head()
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
    ) -> Policy:
        """Load a policy from safetensors; only a hub id that is not cached yet uses the network.

        Args:
            path: the name of a shipped policy, a local folder, or a hub id ``owner/name``.
            head_scale: multiplies the final norm's weight by s and divides the head's by s. The
                function stays the same, but Adam, whose steps do not depend on the size of a
                weight, moves the logits s times more through the norm's output: disclose it
                wherever results are shown.
            device: as torch spells it.
            dtype: ``float32``, ``bfloat16`` or ``float16``.

        Raises:
            LabError: nothing loadable at ``path``, or a ``head_scale`` that the model cannot take.
        """
        types = {name: getattr(torch, name) for name in ("float32", "bfloat16", "float16")}
        if dtype not in types:
            raise unknown("dtype", dtype, types)
        folder = local_folder(path, download=True)
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=types[dtype], use_safetensors=True, local_files_only=True
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        if head_scale != 1.0:
            rescale_head(model, head_scale)
        return cls(model.to(device), tokenizer, folder)

    @property
    def pad_id(self) -> int:
        """The token that fills prompts on the left and responses on the right."""
        return self.tokenizer.pad_token_id

    def weights_hash(self) -> str:
        """sha256 over the safetensors files that the policy was loaded from."""
        return weights_hash(self.folder)

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
            prompts: encoded as they are, without a chat template or tokens put in front.
            max_new_tokens: end of a response that has not ended itself.
            temperature: of the sampling; 0 is greedy.
            uniforms: (B, max_new_tokens) in [0, 1), the only source of randomness: a sample
                depends on its own row and on no other.
            top_p: nucleus of the sampling; log-probabilities remain those of the full softmax.
            batch_size: rows decoded at a time (rounded down to whole prompts); None: all.
        """
        uniforms = uniforms.to(self.device)
        at_a_time = max(1, (batch_size or len(uniforms)) // repeats)
        decoder, parts = make_decoder(self.model), []
        for first in range(0, len(prompts), at_a_time):
            ids, mask = self._encode(prompts[first : first + at_a_time])
            logits = decoder.prefill(ids, mask, repeats, max_new_tokens)
            samples = sample_tokens(
                decoder,
                logits,
                uniforms[first * repeats : (first + at_a_time) * repeats],
                eos_ids=self._eos_ids,
                temperature=temperature,
                top_p=top_p,
            )
            parts.append(self._rollout(ids, mask, samples, repeats))
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
    ) -> tuple[Tensor, Tensor]:
        """Log-probability and entropy of the last ``response_length`` tokens of each row.

        Logits exist for at most ``chunk_tokens`` tokens at a time: if there are more, they are
        computed again in the backward pass.

        Args:
            input_ids: (B, P + response_length) left-padded prompts, then padded responses.
            attention_mask: (B, P + response_length), zero on both paddings.
            temperature: divides the logits.
            entropy_grad: let gradients flow through the entropy, too.

        Returns:
            Two (B, response_length) float32 tensors in nats, 0 where the mask is zero.
        """
        valid = attention_mask.bool()
        seen = valid.clone()
        seen[:, -response_length:] = True  # causal attention never looks ahead to that padding
        hidden = self._backbone(
            input_ids=input_ids,
            attention_mask=None if seen.all() else seen.long(),
            position_ids=positions(seen),
            use_cache=False,
        ).last_hidden_state[:, -response_length - 1 : -1]
        valid = valid[:, -response_length:]
        states, targets = hidden[valid], input_ids[:, -response_length:][valid]
        pieces = [
            self._score(*chunk, temperature, entropy_grad, recompute=len(states) > chunk_tokens)
            for chunk in zip(states.split(chunk_tokens), targets.split(chunk_tokens), strict=True)
        ]
        empty = hidden.new_zeros(valid.shape, dtype=torch.float32)
        log_prob, entropy = (torch.cat(column) for column in zip(*pieces, strict=True))
        return empty.masked_scatter(valid, log_prob), empty.masked_scatter(valid, entropy)

    def _score(
        self,
        states: Tensor,
        targets: Tensor,
        temperature: float,
        entropy_grad: bool,
        *,
        recompute: bool,
    ) -> tuple[Tensor, Tensor]:
        def score(states: Tensor) -> tuple[Tensor, Tensor]:
            log_p = F.log_softmax(self._head(states).float() / temperature, -1)
            kept = log_p if entropy_grad else log_p.detach()
            entropy = -(kept.exp() * kept).sum(-1)
            return log_p.gather(1, targets[:, None])[:, 0], entropy

        if recompute and torch.is_grad_enabled():
            return checkpoint(score, states, use_reentrant=False, preserve_rng_state=False)
        return score(states)

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

    @torch.no_grad()
    def _check_head(self) -> None:
        """Refuse models whose logits are more than a head over the last hidden state."""
        probe = torch.arange(4, device=self.device)[None] % self.model.config.vocab_size
        states = self._backbone(input_ids=probe, use_cache=False).last_hidden_state
        logits = self.model(input_ids=probe, use_cache=False).logits
        if not torch.allclose(self._head(states).float(), logits.float(), rtol=1e-2, atol=1e-2):
            kind = self.model.config.model_type
            raise LabError(
                f"model type {kind!r} changes its logits after the head, which the embedded "
                "trainer does not follow; use a model of type qwen2 or llama, or trainer=verl."
            )
