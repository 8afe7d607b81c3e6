"""The MLflow mirror: what the run store holds, for the MLflow UI. Training never depends on it."""

from cegppo_lab.tracking.background import Mirror
from cegppo_lab.tracking.connection import DEFAULT_URI, UI_ENVIRONMENT, ui_command
from cegppo_lab.tracking.evaluations import Scores, mirror_evaluations
from cegppo_lab.tracking.mirror import MirrorReport, mirror_sweep, sync

__all__ = [
    "DEFAULT_URI",
    "UI_ENVIRONMENT",
    "Mirror",
    "MirrorReport",
    "Scores",
    "mirror_evaluations",
    "mirror_sweep",
    "sync",
    "ui_command",
]
