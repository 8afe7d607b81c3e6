"""Statistics over seeds: estimates with intervals, comparisons, power, trends.

The unit of replication is the seed: everything inside one run (steps, problems, samples) is
averaged before it comes here, except where a function takes a table of seeds x problems. Values
are indexed by seed; NaN is a seed that lacks it, and ``n_seeds`` counts those that have it. No
function makes an interval from one seed, and every random draw takes a seed.
"""

from analysis.stats.bootstrap import (
    bootstrap_estimate,
    hierarchical_difference,
    hierarchical_estimate,
    iqm_estimate,
)
from analysis.stats.compare import (
    Comparison,
    best_of,
    compare,
    holm,
    permutation_p,
    permutation_p_problems,
    probability_of_improvement,
    smallest_p,
)
from analysis.stats.estimate import LEVEL, Estimate
from analysis.stats.intervals import (
    Curve,
    crossed_difference,
    crossed_estimate,
    mean_curve,
    mean_estimate,
    paired_difference,
)
from analysis.stats.power import SeedsNeeded, seeds_for_permutation, seeds_needed
from analysis.stats.trend import page_p, slope_estimate

__all__ = [
    "LEVEL",
    "Comparison",
    "Curve",
    "Estimate",
    "SeedsNeeded",
    "best_of",
    "bootstrap_estimate",
    "compare",
    "crossed_difference",
    "crossed_estimate",
    "hierarchical_difference",
    "hierarchical_estimate",
    "holm",
    "iqm_estimate",
    "mean_curve",
    "mean_estimate",
    "page_p",
    "paired_difference",
    "permutation_p",
    "permutation_p_problems",
    "probability_of_improvement",
    "seeds_for_permutation",
    "seeds_needed",
    "slope_estimate",
    "smallest_p",
]
