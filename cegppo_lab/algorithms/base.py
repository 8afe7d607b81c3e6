"""What every algorithm shares: it is a weight F, and the loss is built from F once.

The policy gradient of every algorithm here is ``sum_t F_t * A_t * grad log pi_t`` (Eq. 9 and 10).
A subclass says what F is; this module turns F into a scalar whose gradient is exactly that sum,
adds the optional terms, and measures.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from cegppo_lab import metrics as names
from cegppo_lab.algorithms.batch import TokenBatch, Totals, token_weights
from cegppo_lab.errors import LabError
from cegppo_lab.schedule import Coefficient, changes, value_at

Aggregation = Literal["token-mean", "seq-mean-token-mean", "seq-mean-token-sum"]
KLEstimator = Literal["k1", "k2", "k3"]


@dataclass(frozen=True)
class LossOutput:
    """A loss with the quantities that explain it.

    ``loss``: scalar, to be minimised, with grad. ``weight``: F, shape (batch, tokens), no grad,
    0 outside the mask. ``metrics``: floats under the names of :mod:`cegppo_lab.metrics`; with
    ``totals`` given they are this micro-batch's parts of the mini-batch's values
    (:func:`cegppo_lab.algorithms.batch.merge_metrics` joins them).
    """

    loss: Tensor
    weight: Tensor
    metrics: dict[str, float]


class Algorithm(BaseModel):
    """One policy-optimisation algorithm: its coefficients, and its gradient weight F.

    Fields are the coefficients, each a number or a schedule ``{step: value}``. Instances are
    immutable; :meth:`at` gives the instance in force at a step.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str]
    title: ClassVar[str]
    equation: ClassVar[str]
    source: ClassVar[str]
    divides_by_std: ClassVar[bool] = True
    """Whether group advantages are divided by the deviation of the group's rewards."""
    neutral: ClassVar[frozenset[str]] = frozenset()
    """Options that came later: no part of trial ids while they have their defaults."""
    steered: ClassVar[tuple[str, ...]] = ()
    """What a controller moves and the target it follows: logged with every step."""

    clip_low: Coefficient = 0.2
    clip_high: Coefficient = 0.2
    aggregation: Aggregation = "token-mean"
    entropy_coef: Coefficient = 0.0
    kl_coef: Coefficient = 0.0
    kl_estimator: KLEstimator = "k3"
    positive_loss_coef: Coefficient = 0.0
    dynamic_sampling: bool = False

    @abstractmethod
    def weight(self, batch: TokenBatch) -> Tensor:
        """F, shape (batch, tokens): the factor of ``A * grad log pi`` at each token, no grad."""

    @property
    def needs(self) -> frozenset[str]:
        """The optional tensors of :meth:`loss` without which F cannot be told."""
        return frozenset()

    def set_apart(self, batch: TokenBatch) -> Tensor | None:
        """The tokens of a mini-batch that :meth:`weight` treats otherwise, (batch, tokens) bool.

        None: none. Chosen over a whole mini-batch by what is known before its update
        (``old_log_prob``, ``old_entropy``, ``advantages``, never ``log_prob``), so that the size of
        micro-batches changes nothing. Raises ``LabError`` when a needed tensor is missing.
        """
        return None

    def surrogate(self, batch: TokenBatch, weight: Tensor) -> Tensor:
        """The objective's value at each token, to maximise, no grad; by default ``F * A``."""
        return weight * batch.advantages

    def ratio(self, batch: TokenBatch) -> Tensor:
        """The importance ratio that is held against the clip interval, (batch, tokens)."""
        return batch.ratio

    def outside(self, batch: TokenBatch) -> tuple[Tensor, Tensor]:
        """Bool masks of the tokens outside the clip interval where PPO would cut the gradient.

        First the lower side (A < 0 and ratio < 1 - clip_low: the paper's NA&LP), then the upper
        (A > 0 and ratio > 1 + clip_high: PA&LP).
        """
        ratio, advantages = self.ratio(batch), batch.advantages
        low = batch.mask & (advantages < 0) & (ratio < 1 - self.clip_low)
        high = batch.mask & (advantages > 0) & (ratio > 1 + self.clip_high)
        return low, high

    def at(self, step: int) -> Self:
        """The algorithm with every schedule replaced by its value at ``step`` (0-based)."""
        fixed = {
            key: value_at(value, step) for key, value in self if key in self.scheduled_fields()
        }
        return self.model_copy(update=fixed) if fixed else self

    def scheduled_fields(self) -> dict[str, list[int]]:
        """The coefficients that change during training, each with the steps of its changes."""
        return {key: changes(value) for key, value in self if isinstance(value, dict)}

    def initial_state(self) -> dict[str, float]:
        """What a controller remembers before the first step; empty where nothing is controlled."""
        return {}

    def controlled(self, state: Mapping[str, float], step: int) -> Self:
        """The algorithm in force at ``step`` (0-based): :meth:`at`, moved by what ``state`` says.

        ``state``: :meth:`initial_state`, or what :meth:`observe` made of the step before. Without a
        state (:meth:`at`) a controlled coefficient has the value that it starts from.
        """
        return self.at(step)

    def observe(self, state: Mapping[str, float], entropy: float, step: int) -> dict[str, float]:
        """The state after ``step`` (0-based), whose rollouts had ``entropy`` (nats per token).

        A pure function, so that a resumed run finds the same numbers.
        """
        return dict(state)

    def loss(
        self,
        log_prob: Tensor,
        old_log_prob: Tensor,
        advantages: Tensor,
        mask: Tensor,
        *,
        entropy: Tensor | None = None,
        ref_log_prob: Tensor | None = None,
        correct: Tensor | None = None,
        totals: Totals | None = None,
        old_entropy: Tensor | None = None,
        apart: Tensor | None = None,
    ) -> LossOutput:
        """The scalar to minimise for a (micro-)batch.

        All tensors have shape (batch, tokens); ``mask`` is bool and what lies outside it is never
        read. ``entropy`` (nats, with grad) is needed when ``entropy_coef`` > 0, ``ref_log_prob``
        when ``kl_coef`` > 0. ``correct``, (batch,) bool, says which responses the positive-example
        loss takes; by default those with a positive advantage. ``totals``: the denominators of the
        whole mini-batch, when this is a micro-batch of it. ``old_entropy``: the rollout policy's,
        needed with ``entropy`` where :attr:`needs` says so. ``apart``: :meth:`set_apart` of the
        mini-batch, when this is a micro-batch of it; by default of this batch.

        Raises ``LabError`` when a coefficient is still a schedule (use :meth:`at`), when a needed
        tensor is missing, and when shapes differ.
        """
        if self.scheduled_fields():
            key = next(iter(self.scheduled_fields()))
            raise LabError(f"{key} is a schedule; use algorithm.at(step).loss(...)")
        batch = TokenBatch.of(
            *(log_prob, old_log_prob, advantages, mask),
            *(entropy, ref_log_prob, correct, old_entropy, apart),
        )
        if apart is None:
            batch = replace(batch, apart=self.set_apart(batch))
        totals = totals or Totals.of(batch.mask, batch.correct)
        average = token_weights(batch.mask, self.aggregation, totals, batch.log_prob.dtype)
        with torch.no_grad():
            weight = torch.where(batch.mask, self.weight(batch), 0.0)
            value = torch.where(batch.mask, self.surrogate(batch, weight), 0.0)
        # The second factor is 0 in value and d log pi in gradient.
        step = weight * batch.advantages * (batch.log_prob - batch.log_prob.detach())
        policy_loss = -(average * (value + step)).sum()
        extra = self._extra_terms(batch, average, totals)
        loss = policy_loss + sum(coef * term for coef, term in extra.values())
        measured = {names.PG_LOSS: policy_loss, names.LOSS: loss}
        measured |= {key: term for key, (_, term) in extra.items()}
        return LossOutput(loss, weight, self._measure(batch, totals, measured))

    def _extra_terms(
        self, batch: TokenBatch, average: Tensor, totals: Totals
    ) -> dict[str, tuple[float, Tensor]]:
        """The optional terms in use: metric name -> (signed coefficient, aggregated term)."""
        terms: dict[str, tuple[float, Tensor]] = {}
        if self.entropy_coef:
            entropy = batch.require("entropy", "entropy_coef > 0")
            terms[names.ENTROPY_LOSS] = (-self.entropy_coef, (average * entropy).sum())
        if self.kl_coef:
            batch.require("ref_log_prob", "kl_coef > 0")
            terms[names.KL_LOSS] = (self.kl_coef, (average * batch.kl(self.kl_estimator)).sum())
        if self.positive_loss_coef:
            positive = batch.mask & batch.correct[:, None]
            dtype, counts = batch.log_prob.dtype, totals.of_correct()
            of_positive = token_weights(positive, self.aggregation, counts, dtype)
            log_likelihood = (of_positive * batch.log_prob).sum()
            terms[names.POSITIVE_LOSS] = (self.positive_loss_coef, -log_likelihood)
        return terms

    @torch.no_grad()
    def _measure(
        self, batch: TokenBatch, totals: Totals, measured: dict[str, Tensor]
    ) -> dict[str, float]:
        low, high = self.outside(batch)
        improbable = batch.old_log_prob < math.log(names.LOW_PROBABILITY)
        per_token = {
            names.PPO_KL: -batch.log_ratio,
            names.RATIO_MEAN: batch.ratio,
            names.CLIPFRAC_LOW: low,
            names.CLIPFRAC_HIGH: high,
            names.CLIPFRAC: low | high,
            names.CLIPFRAC_IMPROBABLE: (low | high) & improbable,
            names.CLIPFRAC_DUAL: self.dual_clipped(batch),
        }
        values = {
            key: torch.where(batch.mask, value, 0).sum(dtype=batch.log_prob.dtype)
            / max(totals.tokens, 1)
            for key, value in per_token.items()
        }
        ratios = batch.ratio[batch.mask]
        ratios = ratios if len(ratios) else ratios.new_ones(1)
        values |= {names.RATIO_MAX: ratios.amax(), names.RATIO_MIN: ratios.amin()}
        values |= {key: value.detach() for key, value in measured.items()}
        numbers = torch.stack([value.double() for value in values.values()]).tolist()
        return dict(zip(values, numbers, strict=True))

    def dual_clipped(self, batch: TokenBatch) -> Tensor:
        """Bool mask of the tokens that the dual clip cuts; none where there is no dual clip."""
        return torch.zeros_like(batch.mask)
