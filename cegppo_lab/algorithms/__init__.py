"""Policy-optimisation algorithms as pure tensor functions.

>>> algorithm = make_algorithm("cegppo", beta1=0.5, beta2=1.0, clip_low=0.2, clip_high=0.2)
>>> out = algorithm.loss(log_prob, old_log_prob, advantages, mask)  # doctest: +SKIP
"""

from cegppo_lab.algorithms import (  # noqa: F401 (they register)
    adaptive_entropy,
    cegppo,
    cegppo_adaptive,
    cegppo_decay,
    cispo,
    clip_cov,
    dr_grpo,
    erc,
    gmpo,
    gppo,
    grpo,
    gspo,
    high_entropy,
    kl_cov,
    sapo,
)
from cegppo_lab.algorithms.base import Algorithm, LossOutput
from cegppo_lab.algorithms.batch import TokenBatch, Totals, merge_metrics
from cegppo_lab.algorithms.ppo import TokenRatioPPO
from cegppo_lab.algorithms.registry import (
    algorithm_class,
    algorithm_names,
    make_algorithm,
    register,
)
from cegppo_lab.schedule import Coefficient

__all__ = [
    "Algorithm",
    "Coefficient",
    "LossOutput",
    "TokenBatch",
    "TokenRatioPPO",
    "Totals",
    "algorithm_class",
    "algorithm_names",
    "make_algorithm",
    "merge_metrics",
    "register",
]
