"""How many seeds a question needs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from analysis.stats.compare import smallest_p
from analysis.stats.estimate import LEVEL, t_quantile
from analysis.stats.inputs import seed_values, settle, size_of
from cegppo_lab.errors import LabError


@dataclass(frozen=True)
class SeedsNeeded:
    """A number of seeds, the ``low`` to ``high`` that holds it at ``LEVEL``, and both in words.

    All three are None where they are refused; ``text`` says why.
    """

    value: int | None
    low: int | None
    high: int | None
    text: str


def seeds_needed(differences: pd.Series, wanted: float, power: float = 0.8) -> SeedsNeeded:
    """Seeds for a paired t test, two-sided at 1 - ``LEVEL``, to find a true mean difference.

    ``differences``: arm minus reference, indexed by seed, from seeds that were run; only their
    standard deviation counts, not their mean. ``wanted``: the mean difference, in their unit, that
    should not be missed. ``low`` and ``high`` come from the chi-square interval of that standard
    deviation (exact for normal differences): from three seeds it spans a factor of 12, and the
    number needed the square of that. Plan with ``high`` where missing it is dear. Noncentral t
    power (Cohen 1988, Statistical Power Analysis, ch. 2). Refused below two seeds, and where
    all differences are the same. Raises ``LabError`` for a ``wanted`` of 0 or not finite, a
    ``power`` outside 1 - ``LEVEL`` to 1, or a duplicate seed.
    """
    if not math.isfinite(wanted) or wanted == 0:
        raise LabError(
            f"wanted={wanted} was given; allowed is a finite difference other than 0. Give the "
            "smallest difference that matters."
        )
    if not 1 - LEVEL < power < 1:
        raise LabError(
            f"power={power} was given; allowed is above {1 - LEVEL:.2g} and below 1. 0.8 is usual."
        )
    given = seed_values(differences)
    n = len(given)
    if n < 2:
        held = "1 seed" if n else "no seed"
        return SeedsNeeded(None, None, None, f"{held}: the spread over seeds is not known")
    settled = settle(given.to_numpy(), size_of(given))
    if np.ptp(settled) == 0:
        reason = f"same in all {n} seeds: the spread over seeds is not known"
        return SeedsNeeded(None, None, None, reason)
    spread = float(settled.std(ddof=1))
    tails = stats.chi2.ppf([0.5 + LEVEL / 2, 0.5 - LEVEL / 2], n - 1)
    low, high = spread * np.sqrt((n - 1) / tails)
    value, least, most = (_smallest_n(abs(wanted) / sd, power) for sd in (spread, low, high))
    text = (
        f"to detect {abs(wanted):g} with {power * 100:g} % power: {value} seeds ({least} to {most})"
    )
    return SeedsNeeded(value, least, most, text)


def _smallest_n(effect: float, power: float) -> int:
    """Fewest seeds with the power for ``effect`` (in standard deviations), two at least."""

    def enough(n: int) -> bool:
        # t squared is a noncentral F, whose tail scipy gives where that of the noncentral t is NaN
        return bool(stats.ncf.sf(t_quantile(n - 1) ** 2, 1, n - 1, n * effect**2) >= power)

    most = 2
    while not enough(most):
        most *= 2
    least = most // 2
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (least, middle) if enough(middle) else (middle, most)
    return most


def seeds_for_permutation(comparisons: int) -> int:
    """Fewest seeds with which the sign-flip test can find anything among so many comparisons.

    The smallest n with ``smallest_p(n) <= (1 - LEVEL) / comparisons``, what Holm asks of the first
    of them. Raises ``LabError`` for fewer than 1 comparison.
    """
    if comparisons < 1:
        raise LabError(
            f"comparisons={comparisons} was given; at least 1 is allowed. Give the number of arms "
            "besides the reference."
        )
    n = 1
    while smallest_p(n) > (1 - LEVEL) / comparisons:
        n += 1
    return n
