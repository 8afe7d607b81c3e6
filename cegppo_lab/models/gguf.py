"""GGUF files as folders in Hugging Face format: converted once, kept in the user's cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock

from cegppo_lab.errors import LabError
from cegppo_lab.models.digest import file_hash


def is_gguf(path: Path) -> bool:
    """Whether ``path`` is named like a GGUF file."""
    return path.suffix.lower() == ".gguf"


def only_file(folder: Path) -> Path | None:
    """The GGUF file of a folder that has no safetensors; None where there is none.

    Raises:
        LabError: there are several.
    """
    files = sorted(path for path in folder.glob("*") if is_gguf(path))
    if not files or any(folder.glob("*.safetensors")):
        return None
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise LabError(f"model.path={str(folder)!r} has several GGUF files ({names}): name one")
    return files[0]


def cache_folder(file: Path) -> Path:
    """Where the converted copy of ``file`` is or will be: named by the file's content."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "cegppo-lab" / "models" / file_hash(file)[:16]


def cached(file: Path) -> Path | None:
    """The converted copy of ``file``, if there is one."""
    folder = cache_folder(file)
    return folder if folder.is_dir() else None


def converted(file: Path) -> Path:
    """A folder with float32 safetensors and the tokenizer of the GGUF ``file``.

    The first process that asks converts; others wait for it. A killed conversion leaves a draft,
    which the next one deletes.

    Raises:
        LabError: the package ``gguf`` is missing, transformers cannot read the file, or the cache
            cannot be written.
    """
    if folder := cached(file):
        return folder
    check_reader()
    folder = cache_folder(file)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.is_dir():
                _convert(file, folder)
    except OSError as failure:
        raise LabError(
            f"cannot write the converted model to {folder.parent}: {failure.strerror}; name "
            "another place with XDG_CACHE_HOME=FOLDER"
        ) from None
    return folder


def check_reader() -> None:
    """Raise ``LabError`` when the package that reads GGUF files is missing."""
    if find_spec("gguf") is None:
        raise LabError(
            "models in GGUF format are read by a package: pip install 'cegppo-lab[gguf]'"
        )


def chat_template(file: Path) -> str | None:
    """The chat template in the metadata of ``file``, if any. Raises ``LabError``: unreadable."""
    check_reader()
    from gguf import GGUFReader

    try:
        field = GGUFReader(file).get_field("tokenizer.chat_template")
        return None if field is None else field.contents()
    except (OSError, ValueError, IndexError) as failure:
        raise LabError(f"{file} cannot be read as GGUF: {failure}") from None


def _convert(file: Path, folder: Path) -> None:
    """Convert in a process of its own: its progress bars, warnings and memory end with it."""
    for leftover in folder.parent.glob(f".{folder.name}.*.tmp"):
        shutil.rmtree(leftover)
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    command = [sys.executable, "-m", "cegppo_lab.models.convert", str(file), str(draft)]
    child = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if child.returncode:
        told = child.stderr.strip().splitlines() or [f"exit status {child.returncode}"]
        shutil.rmtree(draft, ignore_errors=True)
        raise LabError(f"{file} cannot be converted: {told[-1]}")
    os.replace(draft, folder)
