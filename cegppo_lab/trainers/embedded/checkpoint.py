"""Checkpoints of the embedded trainer: a Hugging Face folder plus the optimizer's state.

Everything is safetensors or JSON. A checkpoint is written under a draft name and renamed, so a
folder that has its final name is whole; what a disk does to it later shows in the hashes that
``state.json`` has. Random streams are counter-based: the step is their state.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cegppo_lab.errors import LabError
from cegppo_lab.files import writing
from cegppo_lab.store import checkpoints
from cegppo_lab.trainers.embedded.optimizer import MasterAdamW
from cegppo_lab.trainers.embedded.policy import Policy

_PREFIX = "step_"
_MASTER = "master"
_STATE = "state.json"
_CONTROL = "control"
"""Key of ``state.json``: the state of the algorithm's controller, where it has one."""

_logger = logging.getLogger(__name__)


def save_checkpoint(
    root: Path,
    step: int,
    policy: Policy,
    optimizer: MasterAdamW,
    keep: int,
    control: Mapping[str, float] | None = None,
) -> None:
    """Write ``root/step_000032/`` atomically, then delete all but the newest ``keep``.

    ``policy/`` in it is a model folder of its own, with the head scale already applied: load it
    with ``head_scale=1``. ``control``: the state of the algorithm's controller. Raises
    ``LabError`` when the disk does not take it; what is there stays.
    """
    final = root / f"{_PREFIX}{step:06d}"
    draft = root / f".{final.name}.{os.getpid()}.tmp"
    shutil.rmtree(draft, ignore_errors=True)
    try:
        with writing(final, SafetensorError):
            _write(draft, step, policy, optimizer, control or {})
            shutil.rmtree(final, ignore_errors=True)
            os.replace(draft, final)
    except LabError:
        shutil.rmtree(draft, ignore_errors=True)  # a full disk has no room for half a checkpoint
        raise
    for old in _found(root)[:-keep]:
        shutil.rmtree(old)
    for leftover in root.glob(f".{_PREFIX}*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)


def _write(
    folder: Path, step: int, policy: Policy, optimizer: MasterAdamW, control: Mapping[str, float]
) -> None:
    folder.mkdir(parents=True)
    policy.model.save_pretrained(folder / "policy", safe_serialization=True)
    policy.tokenizer.save_pretrained(folder / "policy")
    save_file(_optimizer_tensors(policy, optimizer), folder / "optimizer.safetensors")
    state = {"step": step, checkpoints.HASHES: checkpoints.hashes_of(folder)}
    state |= {_CONTROL: dict(control)} if control else {}
    (folder / _STATE).write_text(json.dumps(state, indent=1) + "\n")
    _sync(folder)


def load_newest(root: Path, policy: Policy, optimizer: MasterAdamW) -> int:
    """Restore the newest whole checkpoint; its step, or 0 if there is none.

    A checkpoint that is damaged is set aside under another name, with a warning in the log.
    """
    folder = _newest_whole(root)
    if folder is None:
        return 0
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
    return checkpoints.step_of(folder)


def control_state(root: Path, step: int) -> dict[str, float]:
    """The controller's state in the checkpoint of ``step``; empty for one that has none."""
    path = root / f"{_PREFIX}{step:06d}" / _STATE
    return json.loads(path.read_text()).get(_CONTROL, {}) if path.is_file() else {}


def _newest_whole(root: Path) -> Path | None:
    for folder in reversed(_found(root)):
        flaw = checkpoints.flaw(folder)
        if flaw is None:
            return folder
        aside = checkpoints.aside(folder)
        with writing(folder):
            os.replace(folder, aside)
        _logger.warning("checkpoint %s: %s; set aside as %s", folder, flaw, aside.name)
    return None


def newest_policy(root: Path, note: Callable[[str], None] = _logger.warning) -> Path | None:
    """The model folder of the newest checkpoint whose policy is whole, or None.

    Nothing is changed; ``note`` is told of the damaged ones that were passed over.
    """
    for folder in reversed(_found(root)):
        flaw = checkpoints.policy_flaw(folder)
        if flaw is None:
            return folder / "policy"
        note(f"checkpoint {folder} is damaged and not used: {flaw}")
    return None


def _found(root: Path) -> list[Path]:
    return [path for path in checkpoints.found(root) if path.name.startswith(_PREFIX)]


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
