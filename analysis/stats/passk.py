"""Of n sampled responses to a problem: is one of k right, and is the commonest answer right?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cegppo_lab.errors import LabError

SOLVED = 1.0
"""A response counts as right from this score on; a partial score is none for pass@k."""


def pass_at_k(samples: ArrayLike, right: ArrayLike) -> NDArray[np.float64]:
    """Chance that one of k samples drawn without replacement is right, for every k.

    ``samples``: n of each problem; ``right``: how many of them are right, c; both (problems,).
    Returns (problems, smallest n): column k-1 has pass@k = 1 - C(n-c, k) / C(n, k), the unbiased
    estimator of Chen et al. 2021 (arXiv 2107.03374, Eq. 1). C(n-c, k) / C(n, k) is the product over
    j < k of 1 - c / (n - j): factors within [0, 1], so that nothing overflows or cancels.
    Raises ``LabError`` for a problem without samples, or with more right ones than samples.
    """
    n, c = np.asarray(samples, dtype=float), np.asarray(right, dtype=float)
    if n.size == 0 or n.min() < 1 or (c < 0).any() or (c > n).any():
        raise LabError(
            f"pass@k of {c.tolist()} right among {n.tolist()} samples; each problem needs at "
            "least 1 sample, and from 0 to as many right ones. Count them again."
        )
    drawn = np.arange(int(n.min()))
    missed = np.clip(1 - c[:, None] / (n[:, None] - drawn), 0, 1)
    return 1 - np.cumprod(missed, axis=1)


def powers_up_to(n: int) -> list[int]:
    """1, 2, 4, ... up to ``n``, and ``n`` itself: the k that curves of pass@k show."""
    return sorted({*(2**i for i in range(n.bit_length()) if 2**i <= n), n} - {0})


def majority(answers: Sequence[str | None], correct: Sequence[float]) -> float:
    """Score of the commonest answer to one problem: maj@k of its k samples.

    ``answers``: what each response answers, anything but a string for no answer, which has no
    vote; ``correct``: the score of each response. An answer's score is the mean over the responses
    that give it. Tied answers: the mean of their scores, which is what a random tie-break gives on
    average. 0 without any answer.
    """
    scores: dict[str, list[float]] = {}
    for answer, score in zip(answers, correct, strict=True):
        if isinstance(answer, str):
            scores.setdefault(answer, []).append(float(score))
    if not scores:
        return 0.0
    most = max(map(len, scores.values()))
    tied = [np.mean(given) for given in scores.values() if len(given) == most]
    return float(np.mean(tied))
