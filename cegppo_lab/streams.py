"""Counter-based random streams: the numbers at a step depend on its labels, on nothing before it.

So a resumed run draws what the uninterrupted one drew, and two arms at one seed see the same
prompts and the same noise.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def seed_of(*labels: int | str) -> int:
    """A 63-bit seed that any change to ``labels`` changes, the same on every machine."""
    digest = hashlib.sha256(repr(labels).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def numpy_stream(*labels: int | str) -> np.random.Generator:
    """A NumPy generator for ``labels``, e.g. ``(seed, "prompts", step)``."""
    return np.random.default_rng(seed_of(*labels))


def uniforms(rows: int, columns: int, *labels: int | str) -> torch.Tensor:
    """(rows, columns) float32 numbers in [0, 1) of the stream for ``labels``."""
    return torch.rand(rows, columns, generator=torch_stream(*labels))


def torch_stream(*labels: int | str) -> torch.Generator:
    """A torch generator for ``labels``, on the CPU, so that every device draws the same."""
    return torch.Generator().manual_seed(seed_of(*labels))
