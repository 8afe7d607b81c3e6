"""What a figure draws, as numbers: the panels, the smoothed seed x step tables, the axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.load import SweepData
from cegppo_lab.metrics import ENTROPY, GRAD_NORM, PPO_KL, REWARD_MEAN

DECADES = 1.5
"""A log axis is used from this many decades between small (2 % quantile) and largest values."""


@dataclass(frozen=True)
class Panel:
    """What one set of axes shows. ``metric`` None: held-out accuracy, from the evaluations.

    ``lowest`` and ``highest`` bound the quantity; ``log_from_data`` lets it have a log axis.
    """

    title: str
    ylabel: str
    metric: str | None
    lowest: float = -np.inf
    highest: float = np.inf
    log_from_data: bool = False


PANELS = {
    "entropy": Panel("Policy entropy", "entropy (nats per token)", ENTROPY, lowest=0),
    "accuracy": Panel("Held-out accuracy", "share of responses correct", None, lowest=0, highest=1),
    "reward": Panel("Training reward", "mean reward per response", REWARD_MEAN),
    "kl": Panel(
        "KL(old policy, policy)", "KL, k1 estimate (nats per token)", PPO_KL, log_from_data=True
    ),
    "grad_norm": Panel(
        "Gradient norm", "L2 norm before clipping", GRAD_NORM, lowest=0, log_from_data=True
    ),
}


@dataclass(frozen=True)
class Scale:
    """A y axis: ``kind`` linear, log or symlog (linear within ``threshold``), and its limits."""

    kind: str
    low: float
    high: float
    threshold: float = 0.0
    note: str = ""


def smoothing_window(steps: int) -> int:
    """Length of the rolling mean for a run of ``steps`` steps: odd, about a twelfth (5 of 64)."""
    return 2 * (steps // 26) + 1


def smoothing_windows(*sweeps: SweepData) -> dict[str, int]:
    """The rolling mean's length by arm: what a figure's record tells of its smoothing."""
    return {
        arm.name: smoothing_window(data.length(arm.name)) for data in sweeps for arm in data.arms
    }


def smooth(values: pd.DataFrame, window: int) -> pd.DataFrame:
    """Centred rolling mean along the steps of each seed (row); the window is cut at the ends."""
    rolled = values.T.rolling(window, center=True, min_periods=1).mean().T
    return rolled.where(values.notna())


def available(data: SweepData) -> list[str]:
    """The keys of ``PANELS`` that at least one run has numbers for."""
    logged = set(data.steps["metric"])
    has_evals = bool(data.benchmarks())
    return [k for k, panel in PANELS.items() if (panel.metric in logged or
            (panel.metric is None and has_evals))]  # fmt: skip


def table_of(data: SweepData, panel: Panel, arm: str, benchmark: str = "") -> pd.DataFrame:
    """What a panel draws for an arm, seed x step: smoothed metrics, or accuracies as they are."""
    if panel.metric is None:
        return data.accuracy(arm, benchmark)
    return smooth(data.metric(arm, panel.metric), smoothing_window(data.length(arm)))


def common_end(table: pd.DataFrame) -> NDArray[np.bool_]:
    """Mask of the columns up to the last that every seed has: a mean of survivors is not drawn."""
    whole = table.notna().all(axis=0).to_numpy()
    return np.arange(len(whole)) <= (whole.nonzero()[0].max() if whole.any() else -1)


def scale_of(panel: Panel, tables: Sequence[pd.DataFrame]) -> Scale:
    """The axis for what the panel draws: room for every seed, a log where they span decades.

    Limits come from the seeds, not from the bands: an interval from two seeds may be ten times
    as wide as all the data, and would flatten them.
    """
    values = np.concatenate([table.to_numpy().ravel() for table in tables])
    values = values[np.isfinite(values)]
    size = np.abs(values[values != 0])
    decades = float(np.log10(size.max() / np.quantile(size, 0.02))) if size.size else 0.0
    low, high = float(values.min()), float(values.max())
    if not (panel.log_from_data and decades >= DECADES):
        room = 0.15 * (high - low) or 0.1 * abs(high) or 0.1
        return Scale("linear", max(low - room, panel.lowest), min(high + room, panel.highest))
    if low > 0:
        note = f"{panel.title}: log axis, the values span {decades:.1f} decades."
        return Scale("log", low / 1.5, high * 1.5, note=note)
    threshold = float(10 ** np.floor(np.log10(np.quantile(size, 0.25))))
    note = (
        f"{panel.title}: symmetric log axis, linear within {threshold:g} of 0; the values span "
        f"{decades:.1f} decades and reach 0 or below."
    )
    return Scale("symlog", 1.5 * min(low, -threshold), 1.5 * high, threshold, note)
