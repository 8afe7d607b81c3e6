"""The tensors of a (micro-)batch of tokens, their ratio, and how token terms are averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from cegppo_lab import metrics as names
from cegppo_lab.errors import LabError

MAX_LOG_RATIO = 20.0
"""Log-ratios are clamped to +-20 (as verl does), so that no finite input gives inf or nan."""


@dataclass(frozen=True)
class Totals:
    """Denominators of a whole mini-batch: what makes micro-batch losses add up exactly.

    Counts over the mini-batch: response ``tokens``, ``sequences`` with at least one of them, and
    the same for the correct responses only.
    """

    tokens: float
    sequences: float
    correct_tokens: float = 0.0
    correct_sequences: float = 0.0

    @staticmethod
    def of(mask: Tensor, correct: Tensor) -> Totals:
        """The counts of ``mask``, (batch, tokens) bool; ``correct``, (batch,) bool, marks rows."""
        lengths, rows = mask.sum(-1), mask.any(-1)
        counts = [lengths.sum(), rows.sum(), (lengths * correct).sum(), (rows & correct).sum()]
        return Totals(*(float(count) for count in torch.stack(counts).tolist()))

    def of_correct(self) -> Totals:
        """The counts of the correct responses as the counts of a batch of their own."""
        return replace(self, tokens=self.correct_tokens, sequences=self.correct_sequences)


@dataclass(frozen=True)
class TokenBatch:
    """Inputs of a loss, each (batch, tokens) unless said otherwise; what is masked out reads 0.

    ``log_prob`` and ``entropy`` (nats) may carry grad; the others never do. ``correct``: (batch,).
    ``old_entropy``: the rollout policy's, nats. ``apart``: bool, see ``Algorithm.set_apart``.
    """

    log_prob: Tensor
    old_log_prob: Tensor
    advantages: Tensor
    mask: Tensor
    correct: Tensor
    entropy: Tensor | None = None
    ref_log_prob: Tensor | None = None
    old_entropy: Tensor | None = None
    apart: Tensor | None = None

    @staticmethod
    def of(
        log_prob: Tensor,
        old_log_prob: Tensor,
        advantages: Tensor,
        mask: Tensor,
        entropy: Tensor | None = None,
        ref_log_prob: Tensor | None = None,
        correct: Tensor | None = None,
        old_entropy: Tensor | None = None,
        apart: Tensor | None = None,
    ) -> TokenBatch:
        """A checked batch in at least float32; ``LabError`` when a shape or the mask is off."""
        given = {"old_log_prob": old_log_prob, "advantages": advantages, "mask": mask}
        given |= {"entropy": entropy, "ref_log_prob": ref_log_prob}
        given |= {"old_entropy": old_entropy, "apart": apart}
        _check(log_prob, mask, correct, given)
        dtype = torch.promote_types(log_prob.dtype, torch.float32)

        def clean(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else torch.where(mask, tensor.to(dtype), 0.0)

        def without_grad(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else clean(tensor.detach())

        advantages = without_grad(advantages)
        return TokenBatch(
            log_prob=clean(log_prob),
            old_log_prob=without_grad(old_log_prob),
            advantages=advantages,
            mask=mask,
            correct=(advantages > 0).any(-1) if correct is None else correct.bool(),
            entropy=clean(entropy),
            ref_log_prob=without_grad(ref_log_prob),
            old_entropy=without_grad(old_entropy),
            apart=apart,
        )

    @cached_property
    def log_ratio(self) -> Tensor:
        """log pi - log pi_old, clamped to +-:data:`MAX_LOG_RATIO`, without grad."""
        difference = self.log_prob.detach() - self.old_log_prob
        return difference.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)

    @cached_property
    def ratio(self) -> Tensor:
        """pi / pi_old of each token, without grad; 1 where masked out."""
        return self.log_ratio.exp()

    def require(self, key: str, of: str) -> Tensor:
        """The optional tensor ``key``; ``LabError`` naming ``of``, what needs it."""
        tensor = getattr(self, key)
        if tensor is None:
            raise LabError(f"{of} needs {key}; pass loss(..., {key}=...)")
        return tensor

    def kl(self, estimator: str) -> Tensor:
        """Per-token estimate of KL(pi || pi_ref), with grad (Schulman's k1, k2, k3).

        k3 is clamped as in verl's ``low_var_kl``: the log-ratio to +-20, the estimate to +-10.
        """
        difference = self.log_prob - self.ref_log_prob
        if estimator == "k1":
            return difference
        if estimator == "k2":
            return 0.5 * difference.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).square()
        reverse = (-difference).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
        return (reverse.exp() - reverse - 1).clamp(-10.0, 10.0)


def _check(
    log_prob: Tensor, mask: Tensor, correct: Tensor | None, like: dict[str, Tensor | None]
) -> None:
    shape = tuple(log_prob.shape)
    if mask.dtype != torch.bool:
        raise LabError(f"mask must be bool, not {mask.dtype}; pass mask.bool()")
    if len(shape) != 2:
        raise LabError(f"log_prob has shape {shape}; it must be (batch, tokens)")
    for key, tensor in like.items():
        if tensor is not None and tuple(tensor.shape) != shape:
            raise LabError(
                f"{key} has shape {tuple(tensor.shape)}, log_prob has {shape}; "
                "all must be (batch, tokens)"
            )
    if correct is not None and tuple(correct.shape) != shape[:1]:
        raise LabError(f"correct has shape {tuple(correct.shape)}; it must be (batch,)")


def token_weights(mask: Tensor, aggregation: str, totals: Totals, dtype: torch.dtype) -> Tensor:
    """The factors c, (batch, tokens), with which ``sum(c * x)`` aggregates a token term x.

    ``token-mean``: over all tokens of the mini-batch (DAPO; the released scripts).
    ``seq-mean-token-mean``: over each response's tokens, then over responses (Eq. 3 and 8).
    ``seq-mean-token-sum``: sum over tokens, mean over responses. Zero outside the mask.
    """
    share = mask.to(dtype)
    if aggregation == "token-mean":
        return share / max(totals.tokens, 1.0)
    if aggregation == "seq-mean-token-mean":
        share = share / share.sum(-1, keepdim=True).clamp(min=1.0)
    return share / max(totals.sequences, 1.0)


def merge_metrics(parts: Sequence[dict[str, float]]) -> dict[str, float]:
    """The metrics of a mini-batch from those of its micro-batches (computed with its totals)."""
    extremes = {names.RATIO_MAX: max, names.RATIO_MIN: min}
    return {key: extremes.get(key, sum)(part[key] for part in parts) for key in parts[0]}
