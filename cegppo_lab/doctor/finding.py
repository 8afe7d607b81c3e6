"""The answer of one check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

OK, WARN, MISSING = "ok", "warn", "missing"
PATIENCE_S = 3.0
"""Seconds that a check waits for an answer from outside."""


@dataclass(frozen=True)
class Finding:
    """One check's answer. ``missing``: what was asked for cannot run; ``mend``: what to type."""

    name: str
    state: Literal["ok", "warn", "missing"]
    told: str
    mend: str = ""
