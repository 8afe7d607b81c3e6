"""Sampled responses and what was known when they were sampled; the sampling loop itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cegppo_lab.trainers.embedded.decode import CacheDecoder


@dataclass
class Rollout:
    """B responses, those to one prompt next to each other; T is the longest one's length.

    ``log_prob`` and ``entropy`` are those of the full softmax at the sampling temperature (also
    under ``top_p`` < 1), in nats, float32, and 0 where ``mask`` is False.
    """

    input_ids: Tensor  # (B, P + T) left-padded prompts, then the responses
    attention_mask: Tensor  # (B, P + T) bool
    response_ids: Tensor  # (B, T), padded after the end-of-sequence token
    mask: Tensor  # (B, T) bool: tokens that were sampled, the end-of-sequence token included
    log_prob: Tensor  # (B, T)
    entropy: Tensor  # (B, T)
    texts: list[str]  # B decoded responses, special tokens dropped
    finished: Tensor  # (B,) bool: ended with an end-of-sequence token

    @property
    def prompt_length(self) -> int:
        """P, padding included."""
        return self.input_ids.shape[1] - self.response_ids.shape[1]

    def select(self, rows: Tensor) -> Rollout:
        """The rows given by indices or by a (B,) bool mask, with the widths P and T unchanged."""
        if rows.dtype == torch.bool:
            rows = rows.nonzero()[:, 0]
        return Rollout(
            input_ids=self.input_ids[rows],
            attention_mask=self.attention_mask[rows],
            response_ids=self.response_ids[rows],
            mask=self.mask[rows],
            log_prob=self.log_prob[rows],
            entropy=self.entropy[rows],
            texts=[self.texts[row] for row in rows.tolist()],
            finished=self.finished[rows],
        )

    def trimmed(self) -> Rollout:
        """The same rows without the padding columns that all of them have at either end."""
        used = self.mask.any(0).sum()
        first = int(self.attention_mask.any(0).int().argmax())
        last = self.prompt_length + int(used)
        return Rollout(
            input_ids=self.input_ids[:, first:last],
            attention_mask=self.attention_mask[:, first:last],
            response_ids=self.response_ids[:, :used],
            mask=self.mask[:, :used],
            log_prob=self.log_prob[:, :used],
            entropy=self.entropy[:, :used],
            texts=self.texts,
            finished=self.finished,
        )

    @staticmethod
    def concat(parts: list[Rollout], pad_id: int) -> Rollout:
        """All rows of ``parts``, widened to the longest prompt and the longest response."""
        prompt = max(part.prompt_length for part in parts)
        response = max(part.response_ids.shape[1] for part in parts)

        def join(name: str, left: bool, fill: float) -> Tensor:
            widened = []
            for part in parts:
                before = prompt - part.prompt_length if left else 0
                after = response - part.response_ids.shape[1]
                widened.append(F.pad(getattr(part, name), (before, after), value=fill))
            return torch.cat(widened)

        return Rollout(
            input_ids=join("input_ids", True, pad_id),
            attention_mask=join("attention_mask", True, False),
            response_ids=join("response_ids", False, pad_id),
            mask=join("mask", False, False),
            log_prob=join("log_prob", False, 0.0),
            entropy=join("entropy", False, 0.0),
            texts=[text for part in parts for text in part.texts],
            finished=torch.cat([part.finished for part in parts]),
        )


@dataclass
class Samples:
    """What ``sample_tokens`` fills in, each (B, max_new_tokens); a row is 0 after its end."""

    tokens: Tensor
    mask: Tensor
    log_prob: Tensor
    entropy: Tensor


@torch.no_grad()
def sample_tokens(
    decoder: CacheDecoder,
    logits: Tensor,
    uniforms: Tensor,
    *,
    eos_ids: Tensor,
    temperature: float,
    top_p: float,
) -> Samples:
    """Sample from a prefilled decoder until every row has ended or ``uniforms`` is used up.

    Args:
        logits: (B, V) of the first token.
        uniforms: (B, max_new_tokens) in [0, 1), one for each token; they alone decide what is
            sampled, so that it depends neither on the batching nor on which rows ended before.
        eos_ids: tokens that end a row, which then leaves the decoder's batch.
        temperature: of the sampling; 0 takes the likeliest token (and reports temperature 1).
        top_p: sample among the likeliest tokens that together have at least this probability.
    """
    shape = uniforms.shape
    samples = Samples(
        tokens=torch.zeros(shape, dtype=torch.long, device=logits.device),
        mask=torch.zeros(shape, dtype=torch.bool, device=logits.device),
        log_prob=torch.zeros(shape, device=logits.device),
        entropy=torch.zeros(shape, device=logits.device),
    )
    alive = torch.arange(shape[0], device=logits.device)
    for t in range(shape[1]):
        log_p = F.log_softmax(logits.float() / (temperature or 1.0), -1)
        p = log_p.exp()
        tokens = _choose(p, uniforms[alive, t], top_p) if temperature else log_p.argmax(-1)
        samples.tokens[alive, t] = tokens
        samples.mask[alive, t] = True
        samples.log_prob[alive, t] = log_p.gather(1, tokens[:, None])[:, 0]
        samples.entropy[alive, t] = -(p * log_p).sum(-1)
        going = ~torch.isin(tokens, eos_ids)
        if t + 1 == shape[1] or not going.any():
            break
        if not going.all():
            rows = going.nonzero()[:, 0]
            decoder.keep(rows)
            alive, tokens = alive[rows], tokens[rows]
        logits = decoder.step(tokens)
    return samples


def _choose(p: Tensor, uniform: Tensor, top_p: float) -> Tensor:
    """(B,) tokens: the inverse of the cumulative distribution at ``uniform``."""
    if top_p < 1.0:
        ordered, index = p.sort(-1, descending=True)
        before = ordered.cumsum(-1) - ordered
        p = torch.zeros_like(p).scatter(1, index, ordered.masked_fill(before >= top_p, 0.0))
    cumulative = p.cumsum(-1)
    total = cumulative[:, -1]
    # Rounding may lift the product to the total itself, where no token lies.
    wanted = torch.minimum(uniform * total, torch.nextafter(total, torch.zeros_like(total)))
    # Where the logits are nan no token is found; what was measured there tells.
    found = torch.searchsorted(cumulative, wanted[:, None], right=True)[:, 0]
    return found.clamp(max=p.shape[-1] - 1)
