"""Figure 1, left: where the tokens outside the clip interval lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter, ScalarFormatter

from analysis.figures.drawing import Told
from analysis.load import Arm, SweepData
from analysis.stats import Estimate, mean_estimate
from analysis.style import Look
from cegppo_lab.errors import LabError
from cegppo_lab.metrics import LOW_PROBABILITY

KINDS = (
    ("inside", "#9AA3AC", "o"),
    ("outside, A > 0", "#B8500A", "^"),
    ("outside, A < 0", "#1F5FBF", "v"),
)
SHOWN = 0.999
"""Share of the stored tokens that the ratio's axis has room for."""
LARGEST = 20_000
"""Points drawn at most; the shares are of all stored tokens."""


@dataclass(frozen=True)
class ScatterCell:
    """Token probability against importance ratio, from the stored samples of one arm."""

    data: SweepData
    arm: Arm
    tokens: pd.DataFrame
    title: str = ""
    kind: str = "tokens"

    def draw(self, axes: Axes, styles: dict[str, Look]) -> Told:
        """Draw the tokens with the edges of the clip interval and p = 0.5 as rules."""
        low, high = 1 - self.arm.coefficient("clip_low"), 1 + self.arm.coefficient("clip_high")
        shown = self.tokens
        if len(shown) > LARGEST:
            shown = shown.sample(LARGEST, random_state=0)
        kinds = np.where(shown["outside"], np.where(shown["advantage"] > 0, 1, 2), 0)
        for place, (label, color, marker) in enumerate(KINDS):
            part = shown[kinds == place]
            axes.scatter(
                part["probability"], part["ratio"], s=5 if place else 2.5, c=color, marker=marker,
                alpha=0.5 if place else 0.3, linewidths=0, label=label, rasterized=True,
            )  # fmt: skip
        rules = {"color": "#333333", "linewidth": 0.9, "linestyle": (0, (4, 2))}
        for edge in (low, high):
            axes.axhline(edge, **rules)
        axes.axvline(LOW_PROBABILITY, **rules)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.yaxis.set_minor_formatter(NullFormatter())
        edge = self._edge()
        ticks = [tick for tick in (0.1, 0.2, 0.5, 0.8, 1, 1.2, 2, 5, 10) if 1 / edge < tick < edge]
        axes.set_yticks(ticks)
        axes.set(
            xlabel="token probability under the rollout policy",
            ylabel="importance ratio (log axis)",
            title=self.title or "Tokens and the clip interval",
            xlim=(-0.02, 1.02),
            ylim=(1 / edge, edge),
        )
        axes.legend(loc="upper right", markerscale=3, fontsize=7.5, handletextpad=0.2)
        return Told([self._reading(low, high)], self._alt())

    def _edge(self) -> float:
        """The largest ratio of the axis; a few of the tokens may lie beyond it."""
        size = np.abs(np.log(self.tokens["ratio"]))
        return float(np.exp(max(np.log(2), 1.1 * size.quantile(SHOWN))))

    def share(self) -> Estimate:
        """The share of low-probability tokens among those outside, mean over seeds."""
        outside = self.tokens[self.tokens["outside"]]
        low = outside["weight"].where(outside["probability"] < LOW_PROBABILITY, 0.0)
        per_seed = low.groupby(outside["seed"]).sum() / outside.groupby("seed")["weight"].sum()
        return mean_estimate(per_seed).within(0, 1)

    def _reading(self, low: float, high: float) -> str:
        steps, edge = self.tokens["step"].nunique(), np.log(self._edge())
        beyond = int((np.abs(np.log(self.tokens["ratio"])) > edge).sum())
        return (
            f"Tokens: {self.arm.name}, a sample from each of {steps} steps and "
            f"{self.tokens['seed'].nunique()} seeds; as many are drawn outside [{low:g}, {high:g}] "
            f"as inside at most, though outside are only {self._outside():.2%} of all. Of those "
            f"outside, a share of {self.share().text(2)} has p < {LOW_PROBABILITY:g} "
            f"(t interval over seeds). {beyond} of {len(self.tokens)} points lie beyond the axis."
        )

    def _outside(self) -> float:
        weights = self.tokens["weight"]
        return float(weights[self.tokens["outside"]].sum() / weights.sum())

    def _alt(self) -> str:
        return (
            f"Scatter of token probability against importance ratio for {self.arm.name}: the share "
            f"of tokens outside the clip interval that have a probability below "
            f"{LOW_PROBABILITY:g} is {self.share().text(2)}."
        )


def scatter_cell(data: SweepData, arm: Arm, title: str = "") -> ScatterCell:
    """The scatter of one arm; ``LabError`` when none of its runs stored token samples."""
    tokens = data.tokens()
    mine = tokens[tokens["arm"] == arm.name].reset_index(drop=True)
    if mine.empty:
        raise LabError(
            f"no run of {arm.name} in {data.name!r} has stored token samples, so there is no token "
            "scatter; the embedded trainer stores them (runtime.token_samples)"
        )
    return ScatterCell(data, arm, mine, title)
