"""Arms picked by what they are, not by what a sweep calls them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.load import Arm, SweepData

PLAIN = ("entropy_coef", "kl_coef", "positive_loss_coef")
"""Extras that a selector must ask for: a plain ``{algorithm: grpo}`` has none of them."""


def matches(arm: Arm, wanted: Mapping[str, Any]) -> bool:
    """Whether ``arm`` is the one that ``wanted`` describes.

    ``wanted``: ``algorithm`` and any of its coefficients, e.g. ``{algorithm: cegppo, beta1: 0.75,
    beta2: 1}``. A value is a number, ``scheduled`` (it changes during training) or ``positive``.
    Extras that are not named are 0.
    """
    if arm.algorithm != wanted["algorithm"]:
        return False
    keys = {key: value for key, value in wanted.items() if key != "algorithm"}
    return all(_is(arm, key, value) for key, value in (dict.fromkeys(PLAIN, 0.0) | keys).items())


def find(data: SweepData, wanted: Mapping[str, Any]) -> list[Arm]:
    """The arms that match, in the sweep's order."""
    return [arm for arm in data.arms if matches(arm, wanted)]


def by_model(data: SweepData) -> dict[str, SweepData]:
    """The sweep cut into its policies, by the policy's name ("" where unknown), in arm order."""
    models = data.models()
    if len(models) == 1:
        return {models[0]: data}
    return {m: data.only([arm for arm in data.arms if arm.model == m]) for m in models}


def short_named(data: SweepData) -> SweepData:
    """The sweep with its arms called without the policy's size, where that is not ambiguous."""
    titles = {arm.name: arm.title for arm in data.arms}
    return data.renamed(titles) if len(set(titles.values())) == len(titles) else data


def _is(arm: Arm, key: str, value: Any) -> bool:
    own = arm.coefficient(key)
    if value == "scheduled":
        return isinstance(own, dict) and len(set(own.values())) > 1
    if value == "positive":
        return isinstance(own, float) and own > 0
    return (0.0 if own is None else own) == value
