"""What lies in a store, and who may touch it."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from cegppo_lab.errors import LabError
from cegppo_lab.store import RunDir, RunStore

ROWS = ("evals.jsonl", "tokens.jsonl", "steps.jsonl")
"""A trial's append-only files in the order in which a step is written to them."""
FINAL_ROWS = "evaluations.jsonl"
ORIGIN = "origin.json"
"""Where an imported trial came from: one entry an import, see ``arrival.py``."""
DRAFTS = "_drafts"
"""Folder of the store for what comes in or goes out; its content is never needed."""
_LOCK = ".housekeeping.lock"
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


def require_store(store: RunStore) -> None:
    """Raise ``LabError`` when there is no store."""
    if not store.root.is_dir():
        raise LabError(f"there is no store at {store.root}; say where it is: --store FOLDER")


def is_draft(path: Path) -> bool:
    """Whether ``path`` has the name of something that was never finished."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


def is_lock(name: str) -> bool:
    """Whether a file of this name is a lock, which says nothing on another machine."""
    return name == "lock" or name.endswith(".lock")


def drafts_below(folder: Path) -> list[Path]:
    """Drafts in ``folder``, at any depth; a draft's own content is not listed. Sorted."""
    found = []
    for parent, folders, files in os.walk(folder):
        found += [Path(parent, name) for name in (*folders, *files) if is_draft(Path(name))]
        folders[:] = [name for name in folders if not is_draft(Path(name))]
    return sorted(found)


def files_below(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Plain files below ``folder`` with their stat; links are neither listed nor followed."""
    for parent, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            path = Path(parent, name)
            with suppress(FileNotFoundError):  # a running trial replaces its files
                if path.is_file() and not path.is_symlink():
                    yield path, path.stat()


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    if path.is_dir() and not path.is_symlink():
        return sum(stat.st_size for _, stat in files_below(path))
    with suppress(FileNotFoundError):
        return path.lstat().st_size
    return 0


def whole_lines(path: Path) -> bytes:
    """A JSON-lines file without a torn last line; empty where there is no file."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return b""
    return data[: data.rfind(b"\n") + 1]


@contextmanager
def held(run: RunDir) -> Iterator[bool]:
    """The trial's lock for the time of the context; False: another process has it.

    In a store that we may only read nothing can be locked: then as ``RunDir.locked`` says.
    """
    lock = FileLock(run.path / "lock", timeout=0)
    try:
        lock.acquire()
        free = True
    except Timeout:
        free = False
    except OSError as error:
        if error.errno not in _READ_ONLY:
            raise
        free = not run.locked()
    try:
        yield free
    finally:
        lock.release()


@contextmanager
def alone(store: RunStore) -> Iterator[Path]:
    """Keep ``gc`` and ``import`` of other processes out; yields the empty folder for drafts.

    Raises ``LabError`` when another one is at work, and for an ``OSError`` of what is done in the
    context: a full disk, a store that we may only read.
    """
    try:
        store.root.mkdir(parents=True, exist_ok=True)
        with FileLock(store.root / _LOCK, timeout=0):
            drafts = store.root / DRAFTS
            try:
                shutil.rmtree(drafts, ignore_errors=True)
                drafts.mkdir()
                yield drafts
            finally:
                shutil.rmtree(drafts, ignore_errors=True)
    except Timeout:
        raise LabError(f"another gc or import is at work in {store.root}; wait for it") from None
    except OSError as error:
        raise LabError(
            f"cannot write to {store.root}: {error.strerror or error}; what is there is whole: "
            "mend that and type the same again"
        ) from None
