"""Checkpoints on disk, of both trainers: which there are, and whether they are whole.

``step_000032/`` is the embedded trainer's, ``global_step_32/`` verl's.
"""

from __future__ import annotations

import json
import re
import zipfile
from itertools import chain, count
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from cegppo_lab.files import sha256_of

_NAME = re.compile(r"(global_)?step_(\d+)")
_ASIDE = re.compile(r"(global_)?step_\d+\.broken\d*")
HASHES = "sha256"
"""Key of ``state.json``: SHA-256 of the checkpoint's other files, by path."""
_OPTIMIZER = "optimizer.safetensors"
_POLICY = "policy"


def found(folder: Path) -> list[Path]:
    """The checkpoints in a trial's ``checkpoints`` folder, oldest first.

    Of a checkpoint that verl has dropped, a folder without weights stays behind: it is none.
    """
    folders = [path for path in folder.glob("*step_*") if _NAME.fullmatch(path.name)]
    whole = [p for p in folders if p.is_dir() and (_is_embedded(p) or (p / "actor").is_dir())]
    return sorted(whole, key=step_of)


def set_aside(folder: Path) -> list[Path]:
    """What training has set aside as damaged in a trial's ``checkpoints`` folder, by name."""
    return sorted(path for path in folder.glob("*step_*") if _ASIDE.fullmatch(path.name))


def aside(checkpoint: Path) -> Path:
    """A free name for a damaged checkpoint, that no search for checkpoints finds."""
    base = checkpoint.with_name(f"{checkpoint.name}.broken")
    numbered = (base.with_name(f"{base.name}{number}") for number in count(1))
    return next(path for path in chain([base], numbered) if not path.exists())


def step_of(checkpoint: Path) -> int:
    """The number of training steps that the folder's name says."""
    return int(_NAME.fullmatch(checkpoint.name)[2])


def flaw(checkpoint: Path) -> str | None:
    """What makes the checkpoint useless, in a few words; None for a whole one.

    Reads all that ``state.json`` has a hash of. Of other checkpoints (verl's, and the embedded
    trainer's older ones) headers and lengths, not the tensors themselves.
    """
    if not _is_embedded(checkpoint):
        return _file_flaw(checkpoint, checkpoint)
    missing = None if (checkpoint / _OPTIMIZER).is_file() else f"{_OPTIMIZER} is missing"
    return (
        missing
        or _embedded_flaw(checkpoint)
        or _file_flaw(checkpoint, checkpoint)
        or _hash_flaw(checkpoint)
    )


def policy_flaw(checkpoint: Path) -> str | None:
    """As :func:`flaw`, of what an embedded checkpoint's policy needs: no optimizer's state."""
    return (
        _embedded_flaw(checkpoint)
        or _file_flaw(checkpoint, checkpoint / _POLICY)
        or _hash_flaw(checkpoint, f"{_POLICY}/")
    )


def _is_embedded(checkpoint: Path) -> bool:
    return checkpoint.name.startswith("step_")


def _embedded_flaw(checkpoint: Path) -> str | None:
    for name in ("state.json", f"{_POLICY}/config.json"):
        if not (checkpoint / name).is_file():
            return f"{name} is missing"
    if not list((checkpoint / _POLICY).glob("*.safetensors")):
        return f"{_POLICY}/ has no weights"
    state = _json(checkpoint / "state.json")
    step = state.get("step") if isinstance(state, dict) else None
    if step != step_of(checkpoint):
        return f"state.json says step {step}"
    return None


def _file_flaw(checkpoint: Path, folder: Path) -> str | None:
    for path in sorted(folder.rglob("*")):
        check = _CHECKS.get(path.suffix)
        if check and path.is_file() and (told := check(path)):
            return f"{path.relative_to(checkpoint)} {told}"
    return None


def _hash_flaw(checkpoint: Path, prefix: str = "") -> str | None:
    """Of the files whose names begin with ``prefix``."""
    state = _json(checkpoint / "state.json")
    for name, digest in state.get(HASHES, {}).items():
        path = checkpoint / name
        if not name.startswith(prefix):
            continue
        if not path.is_file():
            return f"{name} is missing"
        if sha256_of(path) != digest:
            return f"{name} has another SHA-256 than when it was written"
    return None


def hashes_of(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below ``folder``, by its path in it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): sha256_of(path) for path in files}


def _safetensors_flaw(path: Path) -> str | None:
    try:
        with safe_open(path, framework="np"):  # checks the header, and the length against it
            return None
    except (SafetensorError, OSError) as error:
        return f"is cut short or damaged ({str(error).splitlines()[0]})"


def _torch_flaw(path: Path) -> str | None:
    # torch.save writes a zip, whose directory is at its end.
    return None if zipfile.is_zipfile(path) else "is cut short or damaged"


def _json_flaw(path: Path) -> str | None:
    value = _json(path)
    if value is None:
        return "is not valid JSON"
    if not path.name.endswith(".safetensors.index.json"):
        return None
    missing = {name for name in value["weight_map"].values() if not (path.parent / name).is_file()}
    return f"names {sorted(missing)[0]}, which is missing" if missing else None


def _json(path: Path) -> Any:
    """The file's value, or None for what is no JSON."""
    try:
        return json.loads(path.read_bytes())
    except ValueError:
        return None


_CHECKS = {".safetensors": _safetensors_flaw, ".pt": _torch_flaw, ".json": _json_flaw}
