"""Algorithms by name."""

from __future__ import annotations

from typing import Any, TypeVar

from cegppo_lab.algorithms.base import Algorithm
from cegppo_lab.errors import unknown
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
    """The names of all registered algorithms, sorted."""
    return sorted(_REGISTRY)


def algorithm_class(name: str) -> type[Algorithm]:
    """The class registered as ``name``; ``LabError`` naming the nearest ones if there is none."""
    if name not in _REGISTRY:
        raise unknown("algorithm", name, _REGISTRY)
    return _REGISTRY[name]


def make_algorithm(name: str, **options: Any) -> Algorithm:
    """The algorithm ``name`` with ``options`` over its defaults (the paper's, appendix A.1).

    Raises ``LabError`` for an unknown name or option (naming the nearest valid ones) and for a
    value out of its range.
    """
    return validated(algorithm_class(name), options, "algorithm")
