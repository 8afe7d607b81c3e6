"""Token-by-token decoding with a key-value cache: for any Hugging Face causal LM, and a fast one.

``CacheDecoder`` calls the model itself. ``Qwen2Decoder`` does the same arithmetic on the same
weights for small Qwen2 models, where the module's own overhead is most of the time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel


class CacheDecoder:
    """Continues left-padded prompts; each of them is encoded once and shared by its repeats."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model

    def prefill(self, ids: Tensor, mask: Tensor, repeats: int, room: int) -> Tensor:
        """Encode prompts and return the logits of what follows them.

        Args:
            ids: (P, L) left-padded prompts.
            mask: (P, L) bool, False on the padding.
            repeats: rows per prompt; row p * repeats + i continues prompt p.
            room: tokens that ``step`` will be given at most.

        Returns:
            (P * repeats, V) logits.
        """
        out = self.model(
            input_ids=ids,
            attention_mask=mask.long(),
            position_ids=positions(mask),
            use_cache=True,
            logits_to_keep=1,
        )
        self._cache = out.past_key_values
        self._cache.batch_repeat_interleave(repeats)
        self._mask = mask.repeat_interleave(repeats, 0)
        self._position = self._mask.sum(1)
        return out.logits[:, -1].repeat_interleave(repeats, 0)

    def step(self, tokens: Tensor) -> Tensor:
        """(B, V) logits after appending ``tokens``, (B,), one to each row."""
        self._mask = F.pad(self._mask, (0, 1), value=True)
        out = self.model(
            input_ids=tokens[:, None],
            attention_mask=self._mask.long(),
            position_ids=self._position[:, None],
            past_key_values=self._cache,
            use_cache=True,
        )
        self._position = self._position + 1
        return out.logits[:, -1]

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only (indices into the present ones)."""
        self._cache.batch_select_indices(rows)
        self._mask, self._position = self._mask[rows], self._position[rows]


@dataclass(frozen=True)
class _Layer:
    """The weights of one Qwen2 block, those that read the same input side by side."""

    attention_norm: Tensor
    qkv: Tensor
    qkv_bias: Tensor
    output: Tensor
    mlp_norm: Tensor
    gate_up: Tensor
    down: Tensor


class Qwen2Decoder(CacheDecoder):
    """The same for small float32 Qwen2 models, with a preallocated cache and fused projections."""

    LARGEST_HIDDEN_SIZE = 1024  # beyond it arithmetic dominates, and copied weights cost memory

    @classmethod
    def supports(cls, model: PreTrainedModel) -> bool:
        """Whether ``model`` is a small float32 Qwen2 without sliding windows."""
        config = model.config
        return (
            config.model_type == "qwen2"
            and model.dtype == torch.float32
            and config.hidden_size <= cls.LARGEST_HIDDEN_SIZE
            and config.hidden_act == "silu"
            and set(config.layer_types) == {"full_attention"}
            and config.rope_parameters["rope_type"] == "default"
        )

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        config = model.config
        self._heads, self._groups = config.num_attention_heads, config.num_key_value_heads
        self._head_dim = model.model.layers[0].self_attn.head_dim
        self._layers = [_read_layer(block) for block in model.model.layers]

    def prefill(self, ids: Tensor, mask: Tensor, repeats: int, room: int) -> Tensor:
        logits = super().prefill(ids, mask, repeats, room)
        rows, length = self._mask.shape
        shape = (len(self._layers), rows, self._groups, length + room, self._head_dim)
        self._keys, self._values = logits.new_empty(shape), logits.new_empty(shape)
        for l, layer in enumerate(self._cache.layers):
            self._keys[l, :, :, :length] = layer.keys
            self._values[l, :, :, :length] = layer.values
        self._cache = None
        self._length = length
        self._bias = None
        if not mask.all():
            self._bias = logits.new_zeros(rows, 1, 1, length + room)
            self._bias[:, 0, 0, :length].masked_fill_(~self._mask, -torch.inf)
        span = torch.arange(length + room, device=ids.device)[None]
        self._cos, self._sin = (x[0] for x in self.model.model.rotary_emb(logits, span))
        return logits

    def step(self, tokens: Tensor) -> Tensor:
        rotation = (self._cos[self._position][:, None], self._sin[self._position][:, None])
        x = self.model.model.embed_tokens(tokens)
        for l, layer in enumerate(self._layers):
            x = x + F.linear(self._attend(l, layer, x, rotation), layer.output)
            gate, up = F.linear(self._norm(x, layer.mlp_norm), layer.gate_up).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, layer.down)
        self._length += 1
        self._position = self._position + 1
        return self.model.lm_head(self._norm(x, self.model.model.norm.weight))

    def _attend(self, l: int, layer: _Layer, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        """(B, heads * head_dim): what the new token reads from the cache, itself included."""
        rows, end = len(x), self._length + 1
        projected = F.linear(self._norm(x, layer.attention_norm), layer.qkv, layer.qkv_bias)
        projected = projected.view(rows, self._heads + 2 * self._groups, self._head_dim)
        turned = _rotate(projected[:, : self._heads + self._groups], *rotation)
        query = turned[:, : self._heads] * self._head_dim**-0.5
        self._keys[l, :, :, self._length] = turned[:, self._heads :]
        self._values[l, :, :, self._length] = projected[:, self._heads + self._groups :]
        query = query.view(rows, self._groups, -1, self._head_dim)
        scores = query @ self._keys[l, :, :, :end].transpose(-1, -2)
        if self._bias is not None:
            scores = scores + self._bias[..., :end]
        return (scores.softmax(-1) @ self._values[l, :, :, :end]).reshape(rows, -1)

    def keep(self, rows: Tensor) -> None:
        self._mask, self._position = self._mask[rows], self._position[rows]
        self._keys, self._values = self._keys[:, rows], self._values[:, rows]
        if self._bias is not None:
            self._bias = self._bias[rows]

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, weight.shape, weight, self.model.config.rms_norm_eps)


def make_decoder(model: PreTrainedModel) -> CacheDecoder:
    """The fastest decoder that reproduces ``model``; it reads the weights as they are now."""
    return (Qwen2Decoder if Qwen2Decoder.supports(model) else CacheDecoder)(model)


def positions(mask: Tensor) -> Tensor:
    """(B, L) position of each token of left-padded rows, counted from the first real one."""
    return (mask.long().cumsum(1) - 1).clamp(min=0)


def batches(prompts: int, repeats: int, size: int) -> Iterator[tuple[slice, int, slice]]:
    """Prompts, responses to each and rows of every batch of at most ``size`` rows.

    Whole prompts as long as one fits, else parts of one prompt's responses.
    """
    whole, copies = max(1, size // repeats), min(size, repeats)
    for first in range(0, prompts, whole):
        last = min(first + whole, prompts)
        for start in range(0, repeats, copies):
            count = min(copies, repeats - start)
            row = first * repeats + start
            yield slice(first, last), count, slice(row, row + (last - first) * count)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of (B, heads, head_dim), in the half-split layout of Qwen2."""
    left, right = x.chunk(2, -1)
    return x * cos + torch.cat([-right, left], -1) * sin


def _read_layer(block: torch.nn.Module) -> _Layer:
    attention, mlp = block.self_attn, block.mlp
    qkv = (attention.q_proj, attention.k_proj, attention.v_proj)
    return _Layer(
        attention_norm=block.input_layernorm.weight,
        qkv=torch.cat([part.weight for part in qkv]),
        qkv_bias=torch.cat([part.bias for part in qkv]),
        output=attention.o_proj.weight,
        mlp_norm=block.post_attention_layernorm.weight,
        gate_up=torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]),
        down=mlp.down_proj.weight,
    )
