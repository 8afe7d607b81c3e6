"""A trial: one fully resolved run, named by what its numbers depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cegppo_lab.config import RunConfig
from cegppo_lab.models import fingerprint

SEMANTICS = {"algorithms": 1, "trainer": 1}
"""Bumped when the same configuration begins to give other numbers, so that old runs are not
mistaken for new ones. A task has a version of its own."""


@dataclass(frozen=True)
class Trial:
    """One run of one arm at one seed. Two sweeps that need the same run share its ``trial_id``."""

    config: RunConfig
    trial_id: str
    arm: str = ""

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.config.seed

    def stored_config(self) -> dict[str, Any]:
        """What the store keeps as the run's configuration: all that the id was made from."""
        return hashed_content(self.config)


def hashed_content(config: RunConfig) -> dict[str, Any]:
    """The content that a trial id stands for; paths, resources and names of sweeps are not in it.

    The model's path gives way to its weights' hash.
    """
    content = config.identity()
    content["model"] = {
        **{key: value for key, value in content["model"].items() if key != "path"},
        "weights_hash": fingerprint(config.model.path),
    }
    return {**content, "semantics": SEMANTICS}


def make_trial(config: RunConfig, arm: str = "") -> Trial:
    """The trial of ``config``; ``LabError`` when its model cannot be found."""
    return Trial(config, content_id(hashed_content(config)), arm)


def content_id(content: Mapping[str, Any]) -> str:
    """The trial id of a hashed content, as it is stored: twelve characters.

    A model preset's name is a label: two presets with equal values are one run.
    """
    model = content.get("model")
    if isinstance(model, Mapping):
        content = {**content, "model": {k: v for k, v in model.items() if k != "name"}}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
