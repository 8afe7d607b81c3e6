"""Pareto fronts of several objectives, and the history of one."""

from __future__ import annotations

from functools import partial
from itertools import combinations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis.figures import Drawing
from analysis.search.drawing import BLUE, GREY, ORANGE, compose, mark
from analysis.search.study import PRUNED, Point, Searched
from analysis.stats import LEVEL

CHOSEN = (
    "The best points were chosen by looking at these seeds, and are so partly for their luck: run "
    "them at other seeds before they are called better."
)
_HOLLOW = ("s", "D", "^", "v", "P", "X")


def draw_found(searched: Searched) -> Drawing | None:
    """Pareto front, one panel a pair of objectives, or history; None where no point has a value."""
    if not searched.complete:
        return None
    return _history(searched) if len(searched.objectives) == 1 else _fronts(searched)


def bars(searched: Searched) -> str:
    """What the light bars are, if there are any."""
    shown = [*searched.complete, *searched.fixed]
    if not any(point.estimate(0).low is not None for point in shown):
        return "One run a point, or seeds that agree: no interval is shown."
    return (
        f"Light bars: {LEVEL:.0%} t interval over a point's seeds, not corrected for the choice; "
        "they may leave the axes."
    )


def _fronts(searched: Searched) -> Drawing:
    pairs = list(combinations(range(len(searched.objectives)), 2))
    panels = [partial(_front, searched, x=second, y=first) for first, second in pairs]
    best = searched.best()
    names = ", ".join(str(point.number) for point in best)
    caption = (
        f"{_points(searched)} Orange: no other complete point is at least as good in all "
        f"objectives and better in one (points {names}). {bars(searched)} {CHOSEN}"
    )
    values = "; ".join(_told(searched, point) for point in best)
    alt = f"Scatter of the objectives of {len(searched.complete)} points. Pareto front: {values}."
    handles = [
        mark("Pareto front", "o", ORANGE, line="-" if len(pairs) == 1 else ""),
        mark("other points", "o", BLUE),
        *_pruned_mark(searched),
        *(
            mark(arm.arm, marker, GREY, hollow=True)
            for arm, marker in zip(searched.fixed, _HOLLOW * len(searched.fixed), strict=False)
        ),
    ]
    return compose(panels, "Pareto front", caption, alt, handles, columns=2, size=(5.8, 3.6))


def _front(searched: Searched, axes: Axes, *, x: int, y: int) -> None:
    best = searched.best()
    for point in searched.complete:
        color = ORANGE if point in best else BLUE
        _point(axes, point, x, y, color, "o")
    for point in _pruned(searched):
        axes.plot(point.values[x], point.values[y], "x", color=GREY, markersize=5)
    for arm, marker in zip(searched.fixed, _HOLLOW * len(searched.fixed), strict=False):
        if arm.by_seed:
            _point(axes, arm, x, y, GREY, marker, hollow=True)
    if len(searched.objectives) == 2:
        corners = sorted((point.values[x], point.values[y]) for point in best)
        places = np.array(corners)
        # Between two points of the front nothing better is known than the worse of each value.
        where = "post" if not searched.objectives[x].larger else "pre"
        axes.step(places[:, 0], places[:, 1], where=where, color=ORANGE, linewidth=1.2, zorder=2)
    for point in best:
        axes.annotate(
            str(point.number), (point.values[x], point.values[y]), (4, 4),
            textcoords="offset points", fontsize=7.5, color=ORANGE, zorder=6,
        )  # fmt: skip
    axes.set(xlabel=_label(searched, x), ylabel=_label(searched, y))
    axes.set_xlim(_room(searched, x))
    axes.set_ylim(_room(searched, y))


def _room(searched: Searched, place: int) -> tuple[float, float]:
    """Limits of an axis that show every mean, with a seventh of their range to either side."""
    shown = [point.values[place] for point in [*searched.complete, *_pruned(searched)]]
    shown += [arm.estimate(place).value for arm in searched.fixed if arm.by_seed]
    low, high = min(shown), max(shown)
    margin = (high - low) / 7 or 0.5
    return low - margin, high + margin


def _point(
    axes: Axes, point: Point, x: int, y: int, color: str, marker: str, *, hollow: bool = False
) -> None:
    across, up = point.estimate(x), point.estimate(y)
    light = {"color": color, "alpha": 0.28, "linewidth": 1.0, "zorder": 1}
    if across.low is not None:
        axes.plot([across.low, across.high], [up.value] * 2, **light)
    if up.low is not None:
        axes.plot([across.value] * 2, [up.low, up.high], **light)
    axes.plot(
        across.value, up.value, marker, color=color, markersize=5.5, zorder=4,
        markerfacecolor="white" if hollow else color, markeredgewidth=1.2,
    )  # fmt: skip


def _history(searched: Searched) -> Drawing:
    (best,) = searched.best()[:1]
    caption = (
        f"{_points(searched)} Step: the best of the points so far, in the order of suggestion; "
        f"the last is point {best.number}. {bars(searched)} {CHOSEN}"
    )
    alt = f"{searched.objectives[0].title} against point number; best: {_told(searched, best)}."
    handles = [
        mark("best so far", "", ORANGE, line="-"),
        mark("points", "o", BLUE),
        *_pruned_mark(searched),
        *(mark(arm.arm, "", GREY, line=(0, (4, 2))) for arm in searched.fixed[:1]),
        *(mark(arm.arm, "", GREY, line=(0, (1, 2))) for arm in searched.fixed[1:2]),
    ]
    panel = partial(_over_points, searched)
    return compose([panel], "History of the search", caption, alt, handles, size=(5.8, 3.2))


def _over_points(searched: Searched, axes: Axes) -> None:
    done = searched.complete
    numbers = [point.number for point in done]
    values = searched.values(done)[:, 0]
    for point, value in zip(done, values, strict=True):
        told = point.estimate(0)
        if told.low is not None:
            axes.plot([point.number] * 2, [told.low, told.high], color=BLUE, alpha=0.28)
        axes.plot(point.number, value, "o", color=BLUE, markersize=5)
    for point in _pruned(searched):
        axes.plot(point.number, point.values[0], "x", color=GREY, markersize=5)
    keep = np.maximum if searched.objectives[0].larger else np.minimum
    axes.step(numbers, keep.accumulate(values), where="post", color=ORANGE, linewidth=1.4)
    for arm, dashes in zip(searched.fixed, ((4, 2), (1, 2)), strict=False):
        if arm.by_seed:
            axes.axhline(arm.estimate(0).value, color=GREY, linewidth=1.1, linestyle=(0, dashes))
    axes.set(xlabel="point", ylabel=_label(searched, 0), ylim=_room(searched, 0))
    axes.xaxis.get_major_locator().set_params(integer=True)


def _pruned(searched: Searched) -> list[Point]:
    count = len(searched.objectives)
    return [p for p in searched.points if p.state == PRUNED and len(p.values or ()) == count]


def _pruned_mark(searched: Searched) -> list[Line2D]:
    label = "pruned: the value it had by then"
    return [mark(label, "x", GREY)] if _pruned(searched) else []


def _points(searched: Searched) -> str:
    done = len(searched.complete)
    seeds = f"{len(searched.seeds)} seed{'s' * (len(searched.seeds) > 1)}"
    return f"{done} of {searched.planned} points are complete, each a mean over {seeds}."


def _label(searched: Searched, place: int) -> str:
    objective = searched.objectives[place]
    return f"{objective.title} ({'larger' if objective.larger else 'smaller'} is better)"


def _told(searched: Searched, point: Point) -> str:
    titles = [objective.title for objective in searched.objectives]
    values = zip(titles, point.values, strict=True)
    return f"point {point.number}, " + ", ".join(f"{title} {v:.4g}" for title, v in values)
