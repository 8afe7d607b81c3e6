"""From runs to tidy frames: out of the run store, or out of any MLflow."""

from __future__ import annotations

from typing import Protocol

from analysis.load.foreign import ForeignSource
from analysis.load.frames import SCALES, Arm, SweepData
from analysis.load.mapping import RunMapping, load_mapping
from analysis.load.mlflow import MlflowSource
from analysis.load.store import StoreSource, load_sweep

__all__ = [
    "SCALES",
    "Arm",
    "ForeignSource",
    "MlflowSource",
    "RunMapping",
    "Source",
    "StoreSource",
    "SweepData",
    "load_mapping",
    "load_sweep",
]


class Source(Protocol):
    """Where sweeps are read from. ``where`` names it in messages and artifacts."""

    where: str

    def names(self) -> list[str]:
        """The sweeps that can be read, sorted."""
        ...

    def sweep(self, name: str) -> SweepData:
        """The frames of a sweep; ``LabError`` when there is none of that name, or no step."""
        ...
