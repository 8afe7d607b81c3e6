"""The token ledger: what each of the paper's kinds of tokens does to the policy and its entropy.

Classes are the sign of the advantage (PA, NA) x the probability under the rollout policy (HP from
``metrics.LOW_PROBABILITY`` on, else LP) x whether PPO's clip would cut the gradient
(:meth:`Algorithm.outside`; ``in`` is every other token). Tokens with advantage 0 are in no class:
they have no gradient.

A plain gradient step of size lr on the logits of a token y with weight w = c F A (c: the
aggregation's factor) moves them by ``lr w (onehot(y) - pi)``, and the entropy H of that
distribution, to first order, by::

    lr w [ -pi_y (log pi_y + H)  +  sum_k pi_k^2 (log pi_k + H) ]

The first part is the paper's Eq. 7, ``-lr Cov_{y~pi}(log pi(y), pi(y) A(y))``, at one sample y; the
second is 0 on average where advantages are 0 on average. Both together are ``entropy_change``, for
which the whole distribution must be at hand. Without it ``entropy_covariance`` is the first part
alone, with the mean of -log pi over the batch's tokens in the place of H.

Summed over tokens, ``entropy_change`` is the first-order change of the entropies of all contexts
together, exact for a tabular softmax policy and plain gradient steps. A network shares parameters
between contexts and Adam scales its steps, so there only signs and shares mean something. The
entropy bonus, the KL and the positive-example loss are not in it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cegppo_lab import metrics as names
from cegppo_lab.algorithms import Algorithm, Totals
from cegppo_lab.algorithms.batch import TokenBatch, token_weights

FAR = 0.75
"""Ratios below this part of the lower edge, 1 - clip_low, are far below it."""

_EXACT = (names.LEDGER_TOKENS, names.LEDGER_MASS, names.LEDGER_ENTROPY)
_COVARIANCE = (names.LEDGER_TOKENS, names.LEDGER_MASS, names.LEDGER_COVARIANCE)
_ROWS = len(_EXACT)


def entropy_response(log_prob: Tensor, entropy: Tensor, pull: Tensor) -> Tensor:
    """dH per unit of ``lr w``: how entropy answers a step towards the sampled token.

    ``log_prob``: of the sampled tokens; ``entropy``, ``pull``: H and sum_k pi_k^2 (log pi_k + H)
    of their distributions. All of one shape, nats.
    """
    return pull - log_prob.exp() * (log_prob + entropy)


def covariance_response(log_prob: Tensor, mask: Tensor) -> Tensor:
    """Eq. 7's part of :func:`entropy_response`, H being the mean of -log pi over the tokens."""
    mean = torch.where(mask, log_prob, 0.0).sum() / mask.sum().clamp(min=1)
    return -log_prob.exp() * (log_prob - mean)


@torch.no_grad()
def class_sums(
    algorithm: Algorithm, batch: TokenBatch, weight: Tensor, totals: Totals, response: Tensor
) -> Tensor:
    """(3, 8) float64: tokens, gradient mass and entropy change per lr of a (micro-)batch's classes.

    Columns are in the order of ``metrics.LEDGER_CLASSES``; ``weight``: F; ``totals``: of the whole
    mini-batch; ``response``: dH per unit of lr w; tensors are (batch, tokens).
    """
    low, high = algorithm.outside(batch)
    improbable = batch.old_log_prob < math.log(names.LOW_PROBABILITY)
    place = 4 * (batch.advantages < 0) + 2 * improbable + (low | high)
    counted = batch.mask & (batch.advantages != 0)
    average = token_weights(batch.mask, algorithm.aggregation, totals, batch.log_prob.dtype)
    step = average * weight * batch.advantages
    table = torch.stack([torch.ones_like(step), step.abs(), step * response])
    # A product with 0 and 1 instead of a scatter: on a GPU its order of summation is fixed.
    classes = torch.nn.functional.one_hot(place[counted], len(names.LEDGER_CLASSES))
    return table[:, counted].double() @ classes.double()


@torch.no_grad()
def far_below(algorithm: Algorithm, batch: TokenBatch) -> Tensor:
    """Bool mask of the ratchet: A < 0, probable in the rollout, ratio below FAR (1 - clip_low)."""
    probable = batch.old_log_prob >= math.log(names.LOW_PROBABILITY)
    far = batch.ratio < FAR * (1 - algorithm.clip_low)
    return batch.mask & (batch.advantages < 0) & probable & far


class TokenLedger:
    """Sums a training step's tokens by class, on the device of the tensors, until ``result``."""

    def __init__(self) -> None:
        self._sums: Tensor | float = 0.0
        self._last: Tensor | float = 0.0

    def next_mini_batch(self) -> None:
        """The tokens that follow belong to another mini-batch."""
        self._last = 0.0

    @torch.no_grad()
    def add(
        self,
        algorithm: Algorithm,
        batch: TokenBatch,
        weight: Tensor,
        totals: Totals,
        pull: Tensor,
        rollout_entropy: Tensor,
    ) -> None:
        """Enter a (micro-)batch, whose ``entropy`` is the current policy's.

        ``weight``: F; ``pull``: see :func:`entropy_response`; ``rollout_entropy``: of the policy
        that sampled; all (batch, tokens).
        """
        log_prob = batch.log_prob.detach()
        entropy = batch.require("entropy", "runtime.ledger").detach()
        response = entropy_response(log_prob, entropy, pull)
        sums = class_sums(algorithm, batch, weight, totals, response)
        far = far_below(algorithm, batch).sum()
        self._sums = self._sums + torch.cat([sums.flatten(), far.double()[None]])
        moved = torch.where(batch.mask, entropy - rollout_entropy, 0.0).sum(dtype=torch.float64)
        self._last = self._last + moved / totals.tokens

    def result(self, lr: float) -> dict[str, float]:
        """The step's metrics; ``lr``: the learning rate of its optimizer steps."""
        *sums, far, moved = torch.cat([self._sums, self._last[None]]).tolist()
        width = len(names.LEDGER_CLASSES)
        rows = [sums[place : place + width] for place in range(0, len(sums), width)]
        rows[-1] = [lr * value for value in rows[-1]]
        negative = sum(rows[0][width // 2 :])
        return _named(_EXACT, rows) | {
            names.LEDGER_PREDICTED: sum(rows[-1]),
            names.LEDGER_MEASURED: moved,
            names.LEDGER_RATCHET: far / max(negative, 1.0),
        }


@torch.no_grad()
def covariance_ledger(
    algorithm: Algorithm, batch: TokenBatch, weight: Tensor, totals: Totals
) -> dict[str, float]:
    """A micro-batch's ledger where only log-probabilities are at hand, in parts to be added up.

    ``entropy_covariance`` is per unit of learning rate, its mean of log pi the micro-batch's own.
    """
    response = covariance_response(batch.log_prob.detach(), batch.mask)
    sums = class_sums(algorithm, batch, weight, totals, response)
    return _named(_COVARIANCE, sums.tolist())


def _named(quantities: tuple[str, ...], rows: list[list[float]]) -> dict[str, float]:
    return {
        names.ledger(kind, quantity): value
        for quantity, row in zip(quantities, rows, strict=True)
        for kind, value in zip(names.LEDGER_CLASSES, row, strict=True)
    }
