"""Parameter importances as bars."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from matplotlib.axes import Axes

from analysis.figures import Drawing
from analysis.search.drawing import BLUE, compose
from analysis.search.importance import FEW, RESAMPLES, SHARE, Importance, rated_parameters
from analysis.search.study import Searched, short


def draw_importances(searched: Searched, shares: Sequence[Importance]) -> Drawing | None:
    """A panel an objective; None where there are none."""
    if not shares:
        return None
    titles = list(dict.fromkeys(one.objective for one in shares))
    name = short(list(searched.limits))
    parts = {title: [one for one in shares if one.objective == title] for title in titles}
    panels = [partial(_bars, part, name) for part in parts.values()]
    alt = " ".join(
        f"{title}: " + ", ".join(f"{name[one.parameter]} {one.value:.2f}" for one in part) + "."
        for title, part in parts.items()
    )
    height = 1.2 + 0.33 * max(len(part) for part in parts.values())
    told = explanation(searched)
    return compose(panels, "Parameter importances", told, alt, size=(4.3, height))


def explanation(searched: Searched) -> str:
    """What an importance is and how far it can be trusted."""
    rated, done = rated_parameters(searched), len(searched.complete)
    told = (
        "Importance: the share of the objective's variance over the space that the parameter alone "
        f"explains (functional ANOVA of a random forest), from {done} complete points. Bar: the "
        f"middle {SHARE:.0%} of {RESAMPLES} resamples of the points."
    )
    if done < FEW * len(rated):
        told += f" {done} points say little of {len(rated)} parameters: take them as a hint."
    if left := [key for key in searched.limits if key not in rated]:
        told += f" Not rated, because not in all points: {', '.join(short(left).values())}."
    return told


def _bars(part: Sequence[Importance], name: dict[str, str], axes: Axes) -> None:
    places = range(len(part))[::-1]
    axes.barh(places, [one.value for one in part], color=BLUE, height=0.55, alpha=0.75)
    for place, one in zip(places, part, strict=True):
        axes.plot([one.low, one.high], [place] * 2, color="#222222", linewidth=1.3)
    axes.set_yticks(places, [name[one.parameter] for one in part])
    axes.set_xlim(0, 1)
    axes.set(xlabel="share of the variance", title=part[0].objective)
    axes.grid(axis="y", visible=False)
