"""A limit on the hours that one call of a sweep may use; what is left is run by the next call."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cegppo_lab.config import RuntimeConfig
from cegppo_lab.errors import LabError

_FORM = re.compile(r"(\d+(?:\.\d+)?)\s*(gpuh|cpuh|h)")
_UNITS = {"gpuh": "GPU-hours", "cpuh": "CPU-hours", "h": "hours"}


@dataclass(frozen=True)
class Budget:
    """So many hours of GPUs (``gpuh``), of CPUs (``cpuh``) or of wall time (``h``)."""

    amount: float
    unit: str

    def text(self) -> str:
        """As it is told, e.g. ``40 GPU-hours``."""
        return f"{self.amount:g} {_UNITS[self.unit]}"

    def rate(self, runtime: RuntimeConfig) -> float:
        """What one trial uses of it in an hour; wall time passes whatever runs (0)."""
        per_trial = {"gpuh": runtime.gpus, "cpuh": runtime.cpus, "h": 0.0}
        return per_trial[self.unit] * runtime.nodes


def parse_budget(text: str, runtime: RuntimeConfig) -> Budget:
    """The budget that ``text`` states, e.g. ``40gpuh``, ``12cpuh`` or ``8h``.

    Raises:
        LabError: another form, nothing at all, or GPU-hours of trials that use no GPU.
    """
    match = _FORM.fullmatch(text.strip().lower())
    if not match or not float(match[1]):
        raise LabError(f"--budget {text}: say hours and their kind, e.g. 40gpuh, 12cpuh or 8h")
    budget = Budget(float(match[1]), match[2])
    if budget.unit == "gpuh" and not runtime.gpus:
        raise LabError(
            f"--budget {text}: runtime.gpus=0, these trials use no GPU; say e.g. 12cpuh or 8h"
        )
    return budget
