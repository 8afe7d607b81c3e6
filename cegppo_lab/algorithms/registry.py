"""Algorithms by name."""

from __future__ import annotations

from typing import Any, TypeVar

from cegppo_lab.algorithms.base import Algorithm
from cegppo_lab.algorithms.outside import entry_points, is_reference, load
from cegppo_lab.errors import LabError, unknown
from cegppo_lab.validation import validated

Class = TypeVar("Class", bound=type[Algorithm])
_REGISTRY: dict[str, type[Algorithm]] = {}


def register(cls: Class) -> Class:
    """Class decorator: makes an :class:`Algorithm` known under its ``name``.

    Raises ``ValueError`` when another class has the name already: one name, one loss.
    """
    if cls.name in _REGISTRY:
        raise ValueError(f"algorithm {cls.name!r} is registered already by {_REGISTRY[cls.name]}")
    _REGISTRY[cls.name] = cls
    return cls


def algorithm_names() -> list[str]:
    """The names of the package's own algorithms, sorted."""
    return sorted(_REGISTRY)


def algorithm_class(name: str) -> type[Algorithm]:
    """The class registered as ``name``, or one from outside: ``module:Class``, an entry point.

    Raises ``LabError`` naming the nearest names if there is none, for a name that the package and
    an entry point share, and for what :func:`cegppo_lab.algorithms.outside.load` refuses.
    """
    if is_reference(name):
        return _outside(name)
    points = entry_points().get(name, [])
    if len(points) + (name in _REGISTRY) > 1:
        owners = ["this package", *points] if name in _REGISTRY else points
        raise LabError(
            f"algorithm {name!r} is the name of several: {', '.join(owners)}; rename an entry "
            f"point, or say which class: algorithm={points[0]}"
        )
    if name in _REGISTRY:
        return _REGISTRY[name]
    if not points:
        raise unknown("algorithm", name, {*_REGISTRY, *entry_points()})
    return _outside(points[0])


def _outside(reference: str) -> type[Algorithm]:
    cls = load(reference)
    if cls in _REGISTRY.values():
        raise LabError(f"algorithm {reference}: take @register off; it is known by where it is")
    return cls


def make_algorithm(name: str, **options: Any) -> Algorithm:
    """The algorithm ``name`` with ``options`` over its defaults (the paper's, appendix A.1).

    ``name``: as :func:`algorithm_class` takes it.

    Raises ``LabError`` for an unknown name or option (naming the nearest valid ones) and for a
    value out of its range.
    """
    return validated(algorithm_class(name), options, "algorithm")
