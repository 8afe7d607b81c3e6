"""Log-probabilities and entropies of tokens, a bounded number of logits at a time."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from cegppo_lab.errors import LabError


def token_scores(
    head: torch.nn.Module,
    states: Tensor,
    targets: Tensor,
    *,
    temperature: float,
    chunk_tokens: int,
    entropy_grad: bool,
    pull: bool = False,
) -> tuple[Tensor, ...]:
    """Log-probability of each target and entropy of its distribution, (tokens,) each, in nats.

    With ``pull`` a third: sum_k p_k^2 (log p_k + entropy), without grad, for the token ledger.

    With more than ``chunk_tokens`` tokens the logits are computed again in the backward pass.

    Args:
        head: from hidden states to logits, (tokens, V).
        states: (tokens, hidden).
        targets: (tokens,) ids.
        temperature: divides the logits.
        entropy_grad: let gradients flow through the entropy, too.
    """

    def score(states: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        log_p = F.log_softmax(head(states).float() / temperature, -1)
        kept = log_p if entropy_grad else log_p.detach()
        p = kept.exp()
        terms = p * kept
        entropy = -terms.sum(-1)
        log_prob = log_p.gather(1, targets[:, None])[:, 0]
        return (log_prob, entropy, _pull(p, terms, entropy)) if pull else (log_prob, entropy)

    recompute = len(states) > chunk_tokens and torch.is_grad_enabled()
    pieces = [
        checkpoint(score, *chunk, use_reentrant=False, preserve_rng_state=False)
        if recompute
        else score(*chunk)
        for chunk in zip(states.split(chunk_tokens), targets.split(chunk_tokens), strict=True)
    ]
    return tuple(torch.cat(column) for column in zip(*pieces, strict=True))


@torch.no_grad()
def _pull(p: Tensor, terms: Tensor, entropy: Tensor) -> Tensor:
    """sum_k p_k^2 (log p_k + entropy), (tokens,); ``terms``: p log p. No (tokens, V) copy."""
    return torch.linalg.vecdot(p, terms) + entropy * torch.linalg.vecdot(p, p)


@torch.no_grad()
def check_head(model: PreTrainedModel) -> None:
    """Refuse (``LabError``) models whose logits are more than a head over the last hidden state."""
    probe = torch.arange(4, device=model.device)[None] % model.config.vocab_size
    states = model.get_decoder()(input_ids=probe, use_cache=False).last_hidden_state
    logits = model(input_ids=probe, use_cache=False).logits
    head = model.get_output_embeddings()
    if not torch.allclose(head(states).float(), logits.float(), rtol=1e-2, atol=1e-2):
        raise LabError(
            f"model type {model.config.model_type!r} changes its logits after the head, which the "
            "embedded trainer does not follow; use a model of type qwen2 or llama, or trainer=verl."
        )
