"""F against the ratio: the gradient weight of one token, for either sign of its advantage."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from cegppo_lab.algorithms import Algorithm
from cegppo_lab.algorithms.batch import TokenBatch

PROBABILITY = 0.1
"""Of the token under the rollout policy; algorithms that weigh by probability are drawn at it."""
RATIOS = (0.1, 0.5, 0.7, 0.79, 0.9, 1.0, 1.1, 1.21, 1.29, 1.5, 2.0)
"""The ratios of the table in the terminal; they lie beside the usual edges."""
_LEAST = 1e-6
"""Stands for a ratio of 0, which has no logarithm."""


@dataclass(frozen=True)
class Curve:
    """F of one algorithm: ``positive`` and ``negative`` at each of ``ratios``, by A's sign."""

    ratios: list[float]
    positive: list[float]
    negative: list[float]


def curves(
    algorithms: Mapping[str, Algorithm], ratios: list[float], step: int = 0
) -> dict[str, Curve]:
    """F of each algorithm at each ratio, for a response of one token whose A is +1 or -1.

    The token is one that is not set apart, and its entropy has not moved since the rollout.
    ``step``: 0-based, where coefficients are scheduled.
    """
    return {
        label: Curve(ratios, *(_weights(algorithm.at(step), ratios, sign) for sign in (1.0, -1.0)))
        for label, algorithm in algorithms.items()
    }


def grid(points: int = 601, highest: float = 2.5) -> list[float]:
    """Ratios from 0 to ``highest`` for a drawn curve."""
    return torch.linspace(0, highest, points, dtype=torch.float64).tolist()


def _weights(algorithm: Algorithm, ratios: list[float], sign: float) -> list[float]:
    """One row a ratio, so that a response's own ratio is its token's."""
    log_ratio = torch.tensor(ratios, dtype=torch.float64).clamp(min=_LEAST).log()[:, None]
    old = torch.full_like(log_ratio, math.log(PROBABILITY))
    mask = torch.ones_like(log_ratio, dtype=torch.bool)
    even = torch.ones_like(old)  # an entropy that the update leaves alone
    told = (old + log_ratio, old, sign * even, mask)
    batch = TokenBatch.of(*told, entropy=even, old_entropy=even)
    return _column(algorithm.weight(batch))


def _column(weight: Tensor) -> list[float]:
    return weight[:, 0].tolist()
