"""Checkpoints of the embedded trainer: a Hugging Face folder plus the optimizer's state.

Everything is safetensors or JSON. A checkpoint is written under a draft name and renamed, so a
folder that has its final name is whole. Random streams are counter-based: the step is their state.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from cegppo_lab.trainers.embedded.optimizer import MasterAdamW
from cegppo_lab.trainers.embedded.policy import Policy

_PREFIX = "step_"
_MASTER = "master"


def save_checkpoint(
    root: Path, step: int, policy: Policy, optimizer: MasterAdamW, keep: int
) -> None:
    """Write ``root/step_000032/`` atomically, then delete all but the newest ``keep``.

    ``policy/`` in it is a model folder of its own, with the head scale already applied: load it
    with ``head_scale=1``.
    """
    final = root / f"{_PREFIX}{step:06d}"
    draft = root / f".{final.name}.{os.getpid()}.tmp"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    policy.model.save_pretrained(draft / "policy", safe_serialization=True)
    policy.tokenizer.save_pretrained(draft / "policy")
    save_file(_optimizer_tensors(policy, optimizer), draft / "optimizer.safetensors")
    (draft / "state.json").write_text(json.dumps({"step": step}) + "\n")
    _sync(draft)
    shutil.rmtree(final, ignore_errors=True)
    os.replace(draft, final)
    for old in _found(root)[:-keep]:
        shutil.rmtree(old)
    for leftover in root.glob(f".{_PREFIX}*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)


def load_newest(root: Path, policy: Policy, optimizer: MasterAdamW) -> int:
    """Restore the newest checkpoint into ``policy`` and ``optimizer``; its step, or 0 if none."""
    found = _found(root)
    if not found:
        return 0
    folder = found[-1]
    weights = load_file(folder / "policy" / "model.safetensors")
    saved = load_file(folder / "optimizer.safetensors")
    with torch.no_grad():
        for name, parameter, master in _trained(policy, optimizer):
            parameter.copy_(weights[name])
            if master is not parameter:
                master.copy_(saved[f"{name}/{_MASTER}"])
            optimizer.state[master] = {
                key: saved[f"{name}/{key}"].to(master.device)
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"{name}/{key}" in saved
            }
    return json.loads((folder / "state.json").read_text())["step"]


def newest_policy(root: Path) -> Path | None:
    """The model folder of the newest checkpoint, or None."""
    found = _found(root)
    return found[-1] / "policy" if found else None


def _found(root: Path) -> list[Path]:
    return sorted(path for path in root.glob(f"{_PREFIX}*") if path.is_dir())


def _trained(policy: Policy, optimizer: MasterAdamW) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name, parameter and master of each; the last two are one where it is float32."""
    named = policy.model.named_parameters()
    for (name, parameter), master in zip(named, optimizer.masters, strict=True):
        yield name, parameter, master


def _optimizer_tensors(policy: Policy, optimizer: MasterAdamW) -> dict[str, Tensor]:
    tensors = {}
    for name, parameter, master in _trained(policy, optimizer):
        state = optimizer.state.get(master, {})
        kept = state if master is parameter else {**state, _MASTER: master.detach()}
        tensors |= {f"{name}/{key}": value.contiguous() for key, value in kept.items()}
    return tensors


def _sync(folder: Path) -> None:
    """Have the files of ``folder`` on disk before its final name is."""
    for path in folder.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)
