"""Where torch computes."""

from __future__ import annotations

import torch

from cegppo_lab.errors import LabError


def device_of(name: str) -> str:
    """The device that ``runtime.device`` (cpu, cuda, auto) means, as torch spells it.

    Raises:
        LabError: cuda where this process sees no GPU.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise LabError("runtime.device=cuda: this process sees no GPU; say runtime.device=cpu")
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name
