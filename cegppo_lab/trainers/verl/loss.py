"""Our algorithms as one policy loss of verl, selected and configured through verl's own config.

Importing this module registers the loss; verl does so in every worker, because the config names
:class:`LabPolicyLoss` as the ``_target_`` of ``actor_rollout_ref.actor.policy_loss``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor
from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY, register_policy_loss
from verl.workers.config import ActorConfig, PolicyLossConfig

from cegppo_lab import metrics as names
from cegppo_lab.algorithms import Algorithm, Totals, make_algorithm
from cegppo_lab.errors import LabError

LOSS_MODE = "cegppo_lab"
"""The name of the loss in verl's registry."""
TARGET = f"{__name__}.LabPolicyLoss"
"""What ``actor_rollout_ref.actor.policy_loss._target_`` must be."""

_MAPPED = {"entropy_coef": "actor.entropy_coeff", "kl_coef": "actor.use_kl_loss"}
_VERLS_OWN = (names.LOSS, names.PG_LOSS)
_EXTREMES = (names.RATIO_MAX, names.RATIO_MIN)


@dataclass
class LabPolicyLoss(PolicyLossConfig):
    """verl's ``policy_loss`` section for one of our algorithms.

    ``algorithm``: its name. ``options``: its options, as :func:`make_algorithm` takes them, in
    plain JSON values. verl itself adds the entropy bonus and the pull to the reference policy,
    and filters groups, so that only F and the positive-example loss are applied here.

    Raises ``LabError`` for what ``make_algorithm`` refuses, for a schedule, and for a coefficient
    that verl's own config has to carry.
    """

    loss_mode: str = LOSS_MODE
    algorithm: str = ""
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.loss_mode != LOSS_MODE:
            raise LabError(f"policy_loss.loss_mode={self.loss_mode}: must be {LOSS_MODE} with us")
        for key in self.resolved.scheduled_fields():
            raise LabError(
                f"algorithm.{key} is a schedule; verl runs one as consecutive phases, each with "
                "a number: use algorithm.at(step)"
            )
        for key, verls in _MAPPED.items():
            if value := getattr(self.resolved, key):
                raise LabError(
                    f"algorithm.{key}={value:g} is not the loss's: the trainer maps it to verl's "
                    f"{verls}; leave it 0 here"
                )

    @cached_property
    def resolved(self) -> Algorithm:
        """The algorithm that ``algorithm`` and ``options`` describe."""
        return make_algorithm(self.algorithm, **self.options)


def policy_loss(
    old_log_prob: Tensor,
    log_prob: Tensor,
    advantages: Tensor,
    response_mask: Tensor,
    loss_agg_mode: str,
    config: ActorConfig,
    rollout_is_weights: Tensor | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """The loss of a micro-batch, as verl calls it; all tensors are (batch, tokens).

    Averages are taken over verl's global mini-batch and multiplied by the number of data-parallel
    ranks, over which FSDP averages gradients. Four things are verl's way:

    - Its sequence means divide by all responses of the mini-batch, empty ones (padding) included.
    - Rewards do not reach the loss: the positive-example loss takes responses with a positive
      advantage. Nor does their number in the mini-batch: it is estimated from the micro-batch
      at hand, exactly when correct responses make up the same share of each.
    - Tokens that an algorithm sets apart are chosen over the micro-batch, as by verl's own losses.
    - ``rollout_is_weights`` multiply F: verl's correction for a rollout engine that samples from
      other probabilities than the trainer computes.

    Metrics come under our names. verl takes their mean over micro-batches and ranks, then over
    mini-batches. They are exact for micro-batches of a fixed size; under ``use_dynamic_bsz`` each
    micro-batch's own mean counts alike, as with verl's own losses. ``ratio_max`` and ``ratio_min``
    are extremes over mini-batches of the mean over micro-batches of their extremes.
    """
    algorithm = _algorithm(config, loss_agg_mode)
    correct = (response_mask & (advantages > 0)).any(-1)
    totals = _totals(response_mask, correct, config.global_batch_info)
    if rollout_is_weights is not None:
        advantages = advantages * rollout_is_weights  # F * w * A; w >= 0 leaves A's sign alone.
    out = algorithm.loss(
        log_prob, old_log_prob, advantages, response_mask, correct=correct, totals=totals
    )
    parts = _micro_batches(config, response_mask, totals)
    metrics = {
        key: value if key in _EXTREMES else value * parts
        for key, value in out.metrics.items()
        if key not in _VERLS_OWN
    }
    return out.loss, metrics


def _algorithm(config: ActorConfig, loss_agg_mode: str) -> Algorithm:
    section = config.policy_loss
    if not isinstance(section, LabPolicyLoss):
        raise LabError(f"loss_mode={LOSS_MODE} needs policy_loss._target_={TARGET}")
    if section.resolved.aggregation != loss_agg_mode:
        raise LabError(
            f"actor.loss_agg_mode={loss_agg_mode} differs from the algorithm's; "
            f"say actor.loss_agg_mode={section.resolved.aggregation}"
        )
    return section.resolved


def _totals(mask: Tensor, correct: Tensor, batch_info: dict[str, Any]) -> Totals:
    """One rank's share of the global mini-batch's counts; the micro-batch's own without any."""
    local = Totals.of(mask, correct)
    ranks = batch_info.get("dp_size") or 1
    tokens, rows = (batch_info.get(key) for key in ("batch_num_tokens", "global_batch_size"))
    if tokens is None or rows is None:
        if ranks > 1:
            raise LabError("verl gave no counts of the global mini-batch to the loss")
        return local
    return Totals(
        tokens=tokens / ranks,
        sequences=rows / ranks,
        correct_tokens=local.correct_tokens * tokens / ranks / max(local.tokens, 1.0),
        correct_sequences=local.correct_sequences * rows / ranks / max(local.sequences, 1.0),
    )


def _micro_batches(config: ActorConfig, mask: Tensor, totals: Totals) -> float:
    """How many micro-batches a rank's mini-batch has, which verl's mean will divide by.

    Of dynamic micro-batches only the present one's share of the tokens is known.
    """
    if config.global_batch_info.get("global_batch_size") is None:
        return 1.0
    if config.use_dynamic_bsz:
        return totals.tokens / max(float(mask.sum()), 1.0)
    return totals.sequences / config.ppo_micro_batch_size_per_gpu


def _register() -> None:
    taken = POLICY_LOSS_REGISTRY.get(LOSS_MODE)
    if taken is not None and taken.__module__ != __name__:
        raise LabError(f"verl has a loss {LOSS_MODE!r} already, of {taken.__module__}")
    register_policy_loss(LOSS_MODE)(policy_loss)


_register()
