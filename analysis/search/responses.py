"""The response: measured points over one or two parameters, and what was fitted between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import numpy as np
from matplotlib.axes import Axes

from analysis.figures import Drawing
from analysis.search.drawing import BLUE, GREY, ORANGE, VALUES, compose, mark
from analysis.search.importance import Importance
from analysis.search.study import Point, Searched, short
from analysis.search.surface import LEAST, Array, Axis, Surface, axis_of, fit_surface, inside

_CELLS = 81
_MOST = 3
"""Parameters of which every pair has a panel: the most important ones."""


@dataclass(frozen=True)
class Response:
    """One objective over the numeric parameters that all complete points have."""

    searched: Searched
    place: int
    points: list[Point]
    axes: list[Axis]
    surface: Surface | None

    def places(self, axes: Sequence[Axis]) -> Array:
        """(points, axes), as measured."""
        return np.array([[float(p.parameters[a.name]) for a in axes] for p in self.points])

    @property
    def values(self) -> Array:
        """(points,)."""
        return self.searched.values(self.points)[:, self.place]


def draw_response(searched: Searched, place: int, shares: Sequence[Importance]) -> Drawing | None:
    """The figure of objective ``place``; None where there is no complete point or no parameter."""
    points = searched.complete
    if not points or not searched.limits:
        return None
    response = _response(searched, place, points)
    shown = _most_important(response, shares)
    name = short(list(searched.limits))
    if len(shown) > 1:
        panels = [partial(_pair, response, name, list(pair)) for pair in combinations(shown, 2)]
    else:
        panels = [partial(_single, response, name, axis) for axis in shown]
    strips = [key for key in searched.limits if key not in {a.name for a in response.axes}]
    panels += [partial(_strip, response, name, key) for key in strips]
    title = f"Response surface: {searched.objectives[place].title}"
    caption = _caption(response, shown, [name[key] for key in strips])
    low, high = response.values.min(), response.values.max()
    alt = (
        f"{searched.objectives[place].title} at {len(points)} points over "
        f"{', '.join(name[key] for key in searched.limits)}: {low:.4g} to {high:.4g}."
    )
    handles = [mark("measured", "o", BLUE), mark("best, or on the front", "o", ORANGE, hollow=True)]
    return compose(panels, title, caption, alt, handles)


def _response(searched: Searched, place: int, points: list[Point]) -> Response:
    shared = [
        name for name in searched.numeric() if all(name in point.parameters for point in points)
    ]
    axes = [axis_of(name, searched.limits[name]) for name in shared]
    bare = Response(searched, place, points, axes, None)
    if not axes:
        return bare
    units = np.column_stack([a.unit(c) for a, c in zip(axes, bare.places(axes).T, strict=True)])
    return Response(searched, place, points, axes, fit_surface(units, bare.values))


def _most_important(response: Response, shares: Sequence[Importance]) -> list[Axis]:
    title = response.searched.objectives[response.place].title
    rank = {one.parameter: -one.value for one in shares if one.objective == title}
    return sorted(response.axes, key=lambda axis: rank.get(axis.name, 0.0))[:_MOST]


def _pair(response: Response, name: dict[str, str], pair: list[Axis], axes: Axes) -> None:
    x, y = pair
    places, values = response.places(pair), response.values
    low, high = values.min(), values.max()
    span = {"vmin": low, "vmax": high if high > low else low + 1e-9, "cmap": VALUES}
    _scales(axes, x, y)
    if response.surface is not None:
        edges = [_between(axis) for axis in pair]
        grid = np.array([[a, b] for b in edges[1] for a in edges[0]])
        units = [np.column_stack([a.unit(c) for a, c in zip(pair, part.T, strict=True)])
                 for part in (grid, places)]  # fmt: skip
        columns = [response.axes.index(axis) for axis in pair]
        height = response.surface.over(columns, units[0])
        height[~inside(units[1], units[0])] = np.nan
        axes.pcolormesh(
            *edges, height.reshape(_CELLS, _CELLS), shading="nearest",
            rasterized=True, linewidth=0, **span,
        )  # fmt: skip
    front = {point.number for point in response.searched.best()}
    edge = [ORANGE if point.number in front else "white" for point in response.points]
    width = [2.0 if point.number in front else 1.0 for point in response.points]
    drawn = axes.scatter(
        *places.T, c=values, s=56, edgecolors=edge, linewidths=width, zorder=4, **span
    )
    bar = axes.figure.colorbar(drawn, ax=axes, pad=0.02, aspect=28)
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_visible(False)
    bar.set_label(response.searched.objectives[response.place].title, fontsize=8)
    axes.set(xlabel=name[x.name], ylabel=name[y.name])
    axes.grid(False)
    axes.margins(0.06)


def _single(response: Response, name: dict[str, str], axis: Axis, axes: Axes) -> None:
    _scales(axes, axis)
    column = response.places([axis])
    if response.surface is not None:
        line = _between(axis)
        units, own = axis.unit(line)[:, None], axis.unit(column)
        height = response.surface.over([response.axes.index(axis)], units)
        height[~inside(own, units)] = np.nan
        axes.plot(line, height, color=GREY, linewidth=1.4)
    _against(response, column[:, 0], range(len(response.points)), axes)
    axes.set(xlabel=name[axis.name], ylabel=response.searched.objectives[response.place].title)


def _strip(response: Response, name: dict[str, str], key: str, axes: Axes) -> None:
    """A choice, or a parameter that some points do not have: values of the points that have it."""
    have = [i for i, point in enumerate(response.points) if key in point.parameters]
    told = [response.points[i].parameters[key] for i in have]
    if key in response.searched.labels():
        labels = response.searched.limits[key]["attributes"]["choices"]
        places = np.array([float(labels.index(label)) for label in told])
        axes.set_xticks(range(len(labels)), [str(label) for label in labels])
        axes.set_xlim(-0.5, len(labels) - 0.5)
        spread = np.random.default_rng(0).uniform(-0.12, 0.12, len(places))
        places = places + spread  # points of one choice would hide each other
    else:
        places = np.array(told, dtype=float)
        _scales(axes, axis_of(key, response.searched.limits[key]))
    _against(response, places, have, axes)
    axes.set(xlabel=name[key], ylabel=response.searched.objectives[response.place].title)


def _against(response: Response, places: Array, indices: Sequence[int], axes: Axes) -> None:
    front = {point.number for point in response.searched.best()}
    for x, index in zip(places, indices, strict=True):
        point = response.points[index]
        best = point.number in front
        axes.plot(
            x, response.values[index], "o", color=BLUE, markersize=5.5, zorder=4,
            markeredgecolor=ORANGE if best else BLUE, markeredgewidth=1.8 if best else 0.5,
        )  # fmt: skip


def _scales(axes: Axes, x: Axis, y: Axis | None = None) -> None:
    if x.log:
        axes.set_xscale("log")
    if y is not None and y.log:
        axes.set_yscale("log")


def _between(axis: Axis) -> Array:
    """From the lowest to the highest value, evenly on the scale of the search."""
    space = np.geomspace if axis.log else np.linspace
    return space(axis.low, axis.high, _CELLS)


def _caption(response: Response, shown: Sequence[Axis], strips: Sequence[str]) -> str:
    searched, surface = response.searched, response.surface
    seeds = f"{len(searched.seeds)} seed{'s' * (len(searched.seeds) > 1)}"
    told = [f"Dots: measured, a mean over {seeds}; ringed: best, or on the Pareto front."]
    if surface is not None:
        what = "Shade" if len(shown) > 1 else "Line"
        told.append(
            f"{what} between them: not measured, but a Gaussian process fitted to the "
            f"{len(response.points)} points, averaged over the other parameters as measured, "
            "within the points' hull. Points left out of the fit are missed by "
            f"{surface.error:.2g} (root mean square), by the mean of the others by "
            f"{surface.error_of_mean:.2g}."
        )
        if not surface.useful:
            told.append("So the fit predicts hardly better than a constant: do not read its shape.")
    elif response.axes:
        count = len(response.points)
        few = count < LEAST
        why = f"{count} complete points, {LEAST} are needed" if few else "the values are all alike"
        told.append(f"No surface is fitted: {why}.")
    if len(shown) < len(response.axes):
        told.append(f"The {len(shown)} most important of {len(response.axes)} numbers are shown.")
    if strips:
        told.append(f"Not part of the fit: {', '.join(strips)} (a choice, or not in all points).")
    told.append("The search put its points where it hoped for good ones, not evenly.")
    return " ".join(told)
