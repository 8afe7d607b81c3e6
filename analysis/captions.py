"""The words on a figure: how its lines were made, and which runs are not whole."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.load import SweepData
from analysis.series import PANELS, smoothing_window
from analysis.stats import LEVEL

SHOWN = 3
"""So many early endings are told one by one; the page lists them all."""


def line_notes(data: SweepData, keys: Sequence[str]) -> list[str]:
    """What the lines, bands and markers of these panels mean; sentences."""
    notes = []
    if any(key in PANELS and PANELS[key].metric is not None for key in keys):
        notes.append(f"Line: {_smoothing(data)}mean over seeds; band: {LEVEL:.0%} t interval.")
    if "accuracy" in keys:
        notes.append(
            f"Accuracy: one marker an evaluation, not smoothed, bar: {LEVEL:.0%} t interval over "
            "seeds; the arms are set side by side."
        )
    return [*notes, "Wide intervals may leave the axes."] if notes else []


def _smoothing(data: SweepData) -> str:
    windows = sorted({smoothing_window(data.length(arm.name)) for arm in data.arms} - {1})
    if not windows:
        return "not smoothed, "
    lengths = " or ".join(str(window) for window in windows)
    return f"each seed smoothed by a centred rolling mean of {lengths} steps (fewer at the ends), "


def endings(data: SweepData) -> list[str]:
    """A sentence for the crosses: which runs ended early, and why."""
    early = data.early_ends().to_dict("records")
    if not early:
        return []
    told = [
        f"{unbroken(row['arm'])} seed {row['seed']} {row['state']} at step {row['step']}"
        + (f" ({row['reason']})" if row["reason"] else "")
        for row in early[:SHOWN]
    ]
    more = f" and {len(early) - SHOWN} more" if len(early) > SHOWN else ""
    return [
        f"Cross: a run that ended early: {'; '.join(told)}{more}. The arm's mean ends there; its "
        "other seeds go on as thin lines."
    ]


def switches(data: SweepData) -> list[str]:
    """A sentence for every rule: which coefficient changes, from what to what, at which step."""
    return [
        f"Dotted rule: {unbroken(arm.name)} switches {key} from {before:g} to {after:g} at step "
        f"{step}."
        for arm in data.arms
        for key, step, before, after in arm.switches()
    ]


def unbroken(name: str) -> str:
    """The name with its blanks made no-break, so that a line never ends inside it."""
    return name.replace(" ", "\N{NO-BREAK SPACE}")
