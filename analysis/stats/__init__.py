"""Statistics over seeds: estimates with intervals, comparisons, power, trends.

The unit of replication is the seed: everything inside one run (steps, problems, samples) is
averaged before it comes here, except where a function takes a table of seeds x problems, and in
``passk`` and ``problems``, where the policy is fixed and the unit is the problem. Values
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
from analysis.stats.passk import SOLVED, majority, pass_at_k, powers_up_to
from analysis.stats.power import SeedsNeeded, seeds_for_permutation, seeds_needed
from analysis.stats.problems import (
    ProblemComparison,
    average_estimate,
    compare_on_problems,
    pass_at,
    per_problem,
    problem_estimate,
)
from analysis.stats.trend import page_p, slope_estimate

__all__ = [
    "LEVEL",
    "SOLVED",
    "Comparison",
    "Curve",
    "Estimate",
    "ProblemComparison",
    "SeedsNeeded",
    "average_estimate",
    "best_of",
    "bootstrap_estimate",
    "compare",
    "compare_on_problems",
    "crossed_difference",
    "crossed_estimate",
    "hierarchical_difference",
    "hierarchical_estimate",
    "holm",
    "iqm_estimate",
    "majority",
    "mean_curve",
    "mean_estimate",
    "page_p",
    "paired_difference",
    "pass_at",
    "pass_at_k",
    "per_problem",
    "permutation_p",
    "permutation_p_problems",
    "powers_up_to",
    "probability_of_improvement",
    "problem_estimate",
    "seeds_for_permutation",
    "seeds_needed",
    "slope_estimate",
    "smallest_p",
]
