"""The objective between the measured points: a Gaussian process over the numeric parameters."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LEAST = 8
"""Complete points below which no surface is fitted."""
FOLDS = 5
_USEFUL = 0.8
"""Of the mean's error: under noise alone, a fit is now and then a little better by chance."""


@dataclass(frozen=True)
class Axis:
    """One numeric parameter, mapped to [0, 1] from its low to its high end."""

    name: str
    low: float
    high: float
    log: bool

    def unit(self, values: Array) -> Array:
        """``values`` on the scale of the search: logarithmic where it samples so."""
        scale = np.log if self.log else np.asarray
        low, high = float(scale(self.low)), float(scale(self.high))
        return (scale(values) - low) / ((high - low) or 1.0)


def axis_of(name: str, limits: Mapping[str, Any]) -> Axis:
    """The axis of a parameter; ``limits``: its distribution as JSON values."""
    told = limits["attributes"]
    return Axis(name, float(told["low"]), float(told["high"]), bool(told["log"]))


@dataclass(frozen=True)
class Surface:
    """A fit to ``values`` (points,) at ``places`` (points, parameters in [0, 1]).

    ``error``: root mean square of the errors at points left out of the fit; ``error_of_mean``: the
    same where the mean of the other points is the prediction.
    """

    model: Any
    places: Array
    error: float
    error_of_mean: float

    @property
    def useful(self) -> bool:
        """Whether points left out are predicted clearly better than by the others' mean."""
        return self.error < _USEFUL * self.error_of_mean

    def over(self, columns: Sequence[int], grid: Array) -> Array:
        """The fit at ``grid`` (cells, columns), averaged over the other parameters as measured."""
        count = len(self.places)
        repeated = np.tile(self.places, (len(grid), 1))
        repeated[:, list(columns)] = np.repeat(grid, count, axis=0)
        return self.model.predict(repeated).reshape(len(grid), count).mean(axis=1)


def fit_surface(places: Array, values: Array) -> Surface | None:
    """Fit a Gaussian process; None below ``LEAST`` points or where all values are the same.

    Squared-exponential kernel with a length scale per parameter, and noise of the same size
    everywhere, all by maximum likelihood (Rasmussen and Williams 2006, ch. 5; scikit-learn). The
    errors are those of ``FOLDS``-fold cross-validation, the kernel fitted anew in each fold.
    """
    from sklearn.dummy import DummyRegressor
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
    from sklearn.model_selection import KFold, cross_val_predict

    count, dimensions = places.shape
    if count < LEAST or np.ptp(values) == 0:
        return None
    shape = RBF(np.full(dimensions, 0.5), (0.1, 10.0))
    kernel = ConstantKernel(1.0, (1e-2, 1e2)) * shape + WhiteKernel(0.1, (1e-4, 2.0))
    model = GaussianProcessRegressor(kernel, normalize_y=True)
    folds = KFold(FOLDS, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a parameter that does not matter
        fitted, mean = (
            cross_val_predict(each, places, values, cv=folds) for each in (model, DummyRegressor())
        )
        model.fit(places, values)
    return Surface(model, places, _size(fitted - values), _size(mean - values))


def _size(errors: Array) -> float:
    return math.sqrt(float((errors**2).mean()))


def inside(points: Array, grid: Array) -> NDArray[np.bool_]:
    """Which of ``grid`` (cells, d) lie in the convex hull of ``points`` (points, d), d 1 or 2."""
    from scipy.spatial import Delaunay, QhullError

    if points.shape[1] == 1:
        return (grid[:, 0] >= points.min()) & (grid[:, 0] <= points.max())
    try:
        return Delaunay(points).find_simplex(grid) >= 0
    except QhullError:  # all on one line
        return np.zeros(len(grid), dtype=bool)
