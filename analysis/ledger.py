"""The token ledger's numbers: shares by class as seed x step tables, and their estimates."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.load import SweepData
from analysis.series import smooth, smoothing_window
from analysis.stats import LEVEL, mean_estimate
from analysis.tables import Section
from cegppo_lab.diagnostics import FAR
from cegppo_lab.metrics import (
    LEDGER_CLASSES,
    LEDGER_ENTROPY,
    LEDGER_MASS,
    LEDGER_MEASURED,
    LEDGER_PREDICTED,
    LEDGER_RATCHET,
    LEDGER_TOKENS,
    LOW_PROBABILITY,
    ledger,
)


def arms(data: SweepData) -> list[str]:
    """The arms of which some run has logged the ledger."""
    logged = data.steps.loc[data.steps["metric"] == LEDGER_PREDICTED, "arm"].unique()
    return [arm.name for arm in data.arms if arm.name in logged]


def label(kind: str) -> str:
    """``NA&LP, clipped`` for ``na_lp_out``."""
    sign, probability, place = kind.upper().split("_")
    return f"{sign}&{probability}" + (", clipped" if place == "OUT" else "")


def by_class(data: SweepData, arm: str, quantity: str) -> dict[str, pd.DataFrame]:
    """The quantity's seed x step table for each class."""
    return {kind: data.metric(arm, ledger(kind, quantity)) for kind in LEDGER_CLASSES}


def shares(data: SweepData, arm: str, quantity: str) -> dict[str, pd.DataFrame]:
    """Each class's part of the sum of the sizes, signed, seed x step; NaN where the sum is 0."""
    tables = by_class(data, arm, quantity)
    total = sum(table.abs() for table in tables.values())
    return {kind: table / total.where(total > 0) for kind, table in tables.items()}


def smoothed(data: SweepData, arm: str, table: pd.DataFrame) -> pd.DataFrame:
    """As the curves are smoothed."""
    return smooth(table, smoothing_window(data.length(arm)))


def correlations(data: SweepData, arm: str) -> pd.Series:
    """For each seed, Pearson's r over its steps of predicted and measured entropy change."""
    predicted, measured = (data.metric(arm, key) for key in (LEDGER_PREDICTED, LEDGER_MEASURED))
    found = {}
    for seed in predicted.index.intersection(measured.index):
        pair = pd.DataFrame({"p": predicted.loc[seed], "m": measured.loc[seed]}).dropna()
        varied = len(pair) > 2 and pair.std().min() > 0
        found[seed] = pair["p"].corr(pair["m"]) if varied else np.nan
    return pd.Series(found, dtype=float)


def sections(data: SweepData) -> list[Section]:
    """Tables of the report: means over a run's steps, with intervals over seeds; none, no ledger.

    A run that was stopped early counts with the steps it has.
    """
    shown = arms(data)
    if not shown:
        return []
    parts = {
        "Share of the tokens (%)": LEDGER_TOKENS,
        "Share of the gradient mass (%)": LEDGER_MASS,
        "Share of the predicted entropy change (%, signed)": LEDGER_ENTROPY,
    }
    header = ["arm", *(label(kind) for kind in LEDGER_CLASSES)]
    tables = [
        Section(
            title,
            header,
            [
                [arm, *(_share(table) for table in shares(data, arm, quantity).values())]
                for arm in shown
            ],
        )
        for title, quantity in parts.items()
    ]
    head = ["arm", "correlation of predicted and measured", "ratchet, largest step (%)"]
    return [*tables, Section("Checks", head, [_checks(data, arm) for arm in shown])]


def _share(table: pd.DataFrame) -> str:
    return mean_estimate(table.mean(axis=1)).text(1, scale=100)


def _checks(data: SweepData, arm: str) -> list[str]:
    correlation = mean_estimate(correlations(data, arm)).within(-1, 1)
    ratchet = mean_estimate(data.metric(arm, LEDGER_RATCHET).max(axis=1)).within(0, 1)
    return [arm, correlation.text(2, signed=True), ratchet.text(2, scale=100)]


def explanation() -> str:
    """How to read the tables."""
    return (
        "PA, NA: positive, negative advantage; HP, LP: probability in the rollout of at least, "
        f"below {LOW_PROBABILITY:g}; clipped: outside the clip interval on the side where PPO cuts "
        "the gradient. Gradient mass: sum of |F A| with the aggregation's weights. Predicted "
        "entropy change: Eq. 7 for each token, exact to first order for plain gradient steps on "
        "the logits; signed shares of the sum of the classes' sizes. With shared parameters and "
        "Adam its size means nothing: read signs and shares. Correlation: of the classes' sum with "
        "the measured change of entropy, over a run's steps. Ratchet: share of the tokens with "
        f"negative advantage that were HP and whose ratio is below {FAR:g} (1 - clip_low). "
        f"Means over a run's steps; brackets: {LEVEL:.0%} t intervals over seeds."
    )
