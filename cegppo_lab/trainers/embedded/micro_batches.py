"""How a batch is split so that a forward and backward pass fits the memory."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from cegppo_lab.config import RuntimeConfig
from cegppo_lab.trainers.embedded.rollout import Rollout


def micro_batches(rollout: Rollout, rows: Tensor, runtime: RuntimeConfig) -> Sequence[Tensor]:
    """``rows`` in parts of at most ``micro_batch_size`` rows and ``micro_batch_tokens`` tokens.

    The tokens of a part are those of its tensors, padding included: its rows times its longest
    prompt and longest response together. When they are limited, the longest rows come first, and
    a row that alone exceeds the limit is a part of its own; else rows keep their order.
    """
    size, tokens = runtime.micro_batch_size, runtime.micro_batch_tokens
    if tokens is None:
        return rows.split(size)
    responses = rollout.mask[rows].sum(1).cpu()
    prompts = rollout.attention_mask[rows].sum(1).cpu() - responses
    parts: list[list[int]] = []
    prompt, response = 0, 0
    for row in (prompts + responses).argsort(descending=True, stable=True).tolist():
        wider = max(prompt, int(prompts[row])), max(response, int(responses[row]))
        if parts and len(parts[-1]) < size and (len(parts[-1]) + 1) * sum(wider) <= tokens:
            parts[-1].append(row)
            prompt, response = wider
        else:
            parts.append([row])
            prompt, response = int(prompts[row]), int(responses[row])
    return [rows[part] for part in parts]
