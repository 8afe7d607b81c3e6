"""Random inputs and option sets that reach every branch of every algorithm."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, get_args

import torch
from torch import Tensor

from cegppo_lab.algorithms import Algorithm, TokenBatch, algorithm_class, algorithm_names
from cegppo_lab.algorithms.base import Aggregation

AGGREGATIONS = get_args(Aggregation)
CLIPS = ((0.2, 0.2), (0.2, 0.28), (0.45, 0.1))
BETAS = ((0.0, 0.0), (0.5, 1.0), (0.75, 1.0), (1.0, 0.25), (1.0, 1.0))
DUAL_CLIPS = (None, 3.0)
OWN_OPTIONS: dict[str, list[dict[str, Any]]] = {
    "cispo": [{"clamp": "upper"}, {"clamp": "cap", "cap": 2.0}],
    "dapo": [{"entropy_top": 0.5}],
    "cegppo": [{"entropy_top": 0.3, "beta1": 0.5}],
    "high_entropy_tokens": [{"entropy_top": 0.6}],
    "erc": [{"entropy_low": 0.8, "entropy_high": 1.2}],
    "clip_cov": [
        {"cov_share": 0.2, "cov_low": 0.1, "cov_high": 1.5},
        {"cov_share": 0.2, "cov_low": 0.1, "entropy_top": 0.6},
    ],
    "kl_cov": [{"cov_share": 0.3, "cov_coef": 0.5}],
    "sapo": [{"tau_pos": 0.5, "tau_neg": 3.0}],
}
"""Further option sets, of algorithms with options of their own."""
EVERY_TERM = {"entropy_coef": 0.01, "kl_coef": 0.02, "positive_loss_coef": 0.1}
LENGTHS = (11, 1, 7, 4, 11, 2, 9, 0)
# Standard deviation of the log-ratio a response: mostly .6, some near the on-policy point, where
# GSPO's narrow interval lies.
SPREADS = (0.6, 0.6, 0.05, 3e-4, 0.6, 0.6, 1e-4, 0.6)
FAR = (5.0, -5.0, 4.0, -4.0)


@dataclass(frozen=True)
class Inputs:
    """The positional arguments of ``loss``, each (8, 11); advantages are one a response.

    ``entropies``: the two that some algorithms need as well, by their names.
    """

    log_prob: Tensor
    old_log_prob: Tensor
    advantages: Tensor
    mask: Tensor
    entropies: dict[str, Tensor]

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.log_prob, self.old_log_prob, self.advantages, self.mask))


def random_inputs(seed: int, dtype: torch.dtype = torch.float64) -> Inputs:
    """Ragged responses with holes, one of them empty; ratios up to e^+-5; one advantage is 0."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    rows, width = len(LENGTHS), max(LENGTHS)
    mask = torch.arange(width) < torch.tensor(LENGTHS)[:, None]
    holes = torch.rand(rows, width, generator=generator) < 0.15
    holes[:, 0] = False
    mask &= ~holes
    log_ratio = normal(rows, width) * torch.tensor(SPREADS, dtype=torch.float64)[:, None]
    log_ratio[0, : len(FAR)] = torch.tensor(FAR, dtype=torch.float64)
    log_ratio[4, : len(FAR)] = torch.tensor(FAR, dtype=torch.float64)
    advantages = normal(rows)
    advantages[4] = -advantages[0]
    advantages[3] = 0
    # Two responses that lie beyond the edge as a whole, where PPO would clip them.
    for row, side in ((2, -1), (5, 1)):
        log_ratio[row] += side
        advantages[row] = side * advantages[row].abs()
    old_log_prob = -normal(rows, width).abs() * 2
    old_entropy = normal(rows, width).abs()
    entropy = old_entropy * (0.06 * normal(rows, width)).exp()
    return Inputs(
        (old_log_prob + log_ratio).to(dtype).requires_grad_(),
        old_log_prob.to(dtype),
        advantages[:, None].expand(rows, width).contiguous().to(dtype),
        mask,
        {"entropy": entropy.to(dtype), "old_entropy": old_entropy.to(dtype)},
    )


def set_apart(algorithm: Algorithm, inputs: Inputs) -> Tensor:
    """The tokens that the algorithm sets apart among all of ``inputs``, (8, 11) bool."""
    batch = TokenBatch.of(*inputs, old_entropy=inputs.entropies["old_entropy"])
    chosen = algorithm.set_apart(batch)
    return torch.zeros_like(inputs.mask) if chosen is None else chosen


def variants(name: str) -> list[dict[str, Any]]:
    """Option sets of one algorithm: its defaults, its own, clips x betas x dual clips."""
    fields = algorithm_class(name).model_fields
    betas = BETAS if "beta1" in fields else (None,)
    duals = DUAL_CLIPS if "dual_clip" in fields else (None,)
    sets: list[dict[str, Any]] = [{}, *OWN_OPTIONS.get(name, [])]
    for (low, high), pair, dual in product(CLIPS, betas, duals):
        options: dict[str, Any] = {"clip_low": low, "clip_high": high}
        options |= {"beta1": pair[0], "beta2": pair[1]} if pair else {}
        options |= {"dual_clip": dual} if dual else {}
        sets.append(options)
    return sets


def all_cases() -> list[tuple[str, dict[str, Any]]]:
    """(algorithm, options) over the whole registry."""
    return [(name, options) for name in algorithm_names() for options in variants(name)]


def case_id(value: Any) -> str | None:
    """A readable pytest id of an option set or a dtype."""
    if isinstance(value, dict):
        return ",".join(f"{key}={item}" for key, item in value.items()) or "defaults"
    return str(value).removeprefix("torch.") if isinstance(value, torch.dtype) else None


def gradient(loss: Tensor, of: Tensor) -> Tensor:
    """d loss / d ``of``; the graph stays, for losses that share parts of it."""
    return torch.autograd.grad(loss, of, retain_graph=True)[0]
