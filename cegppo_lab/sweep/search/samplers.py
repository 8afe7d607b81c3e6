"""Optuna's samplers by name. Each is made anew for every point, from a seed of that point."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

SAMPLERS: dict[str, str] = {
    "tpe": "TPESampler",
    "random": "RandomSampler",
    "gp": "GPSampler",
    "nsga2": "NSGAIISampler",
    "nsga3": "NSGAIIISampler",
}
"""Those of Optuna's whose next suggestion follows from the points so far and a seed alone.

CMA-ES and quasi-random sequences keep a state of their own, which a killed search would lose.
"""


def make_sampler(name: str, seed: int) -> BaseSampler:
    """The sampler ``name`` of ``SAMPLERS``; ``seed``: any whole number, 0 or more."""
    from optuna import samplers
    from optuna.exceptions import ExperimentalWarning

    kind: Callable[..., BaseSampler] = getattr(samplers, SAMPLERS[name])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # our constraints fix the version
        return kind(seed=seed % 2**32)
