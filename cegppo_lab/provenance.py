"""Where a number came from: code, package versions, machine."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import cegppo_lab
from cegppo_lab.config import RuntimeConfig

PACKAGES = ("torch", "transformers", "ray", "mlflow", "numpy", "hydra-core", "verl", "safetensors")


def attempt(resumed_from: int) -> dict[str, Any]:
    """The record of an attempt that starts now, after ``resumed_from`` steps done before."""
    return {
        "started": time.time(),
        "resumed_from": resumed_from,
        "pid": os.getpid(),
        **environment(),
    }


def resources(runtime: RuntimeConfig) -> dict[str, Any]:
    """What the time of a step depends on besides the run and the machine."""
    return {key: getattr(runtime, key) for key in ("device", "threads", "gpus", "nodes")}


@lru_cache(maxsize=1)
def environment() -> dict[str, Any]:
    """Versions and machine of this process, as plain JSON values."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    sha, dirty = git_state()
    return {
        "cegppo_lab": cegppo_lab.__version__,
        "git_sha": sha,
        "git_dirty": dirty,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "machine": {
            "platform": platform.platform(),
            "processor": platform.machine(),
            "cpus": os.cpu_count(),
            "cuda": gpu,
        },
        "command": " ".join(Path(sys.argv[0]).name if not i else a for i, a in enumerate(sys.argv)),
    }


def version(package: str) -> str | None:
    """Of an installed package; None where it is not."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@lru_cache(maxsize=1)
def git_state() -> tuple[str | None, bool | None]:
    """The checkout's commit and whether it has changes; (None, None) for an installed package."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None, None
    try:
        sha = _git_output(root, "rev-parse", "HEAD")
        return sha, bool(_git_output(root, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, None


def _git_output(root: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", *words], cwd=root, capture_output=True, text=True, timeout=10, check=True
    )
    return done.stdout.strip()
