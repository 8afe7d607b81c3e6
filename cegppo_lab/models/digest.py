"""Hashes of weight files, each computed once while the file stays as it is."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

_BLOCK = 1 << 20  # bytes


def file_hash(file: Path) -> str:
    """sha256 of one file."""
    known = file.stat()
    return _file_hash(file, known.st_mtime_ns, known.st_size)


@lru_cache(maxsize=64)
def _file_hash(file: Path, changed: int, size: int) -> str:
    return joint_hash([file])


def joint_hash(files: Sequence[Path]) -> str:
    """sha256 over the contents of ``files``, one after the other."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()
