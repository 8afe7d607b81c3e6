"""Files that survive a kill at any instant: JSON replaced whole, JSON lines appended whole."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cegppo_lab.errors import LabError


class WriteError(LabError):
    """A file could not be written: a full disk, a store that we may only read."""


@contextmanager
def writing(path: Path, *failures: type[Exception]) -> Iterator[None]:
    """Turn an ``OSError`` (or one of ``failures``) of writing ``path`` into one line."""
    try:
        yield
    except (OSError, *failures) as error:
        why = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise WriteError(
            f"cannot write {path}: {why}; what is stored is whole: mend that and run the same again"
        ) from error


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A draft to write to, which becomes ``path`` at the end: readers see one of them, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield draft
        with open(draft, "rb") as file:
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Replace ``path`` by ``value`` as JSON: readers see the old file or the new one, whole.

    Raises :class:`WriteError` when the disk does not take it.
    """
    text = json.dumps(value, indent=1, sort_keys=True) + "\n"
    with writing(path), replaced(path) as draft:
        draft.write_text(text, encoding="utf-8")


def sha256_of(path: Path) -> str:
    """The file's SHA-256, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unreadable(path: Path, error: OSError) -> LabError:
    """The error of a file that is there and that we may not, or cannot, read."""
    return LabError(f"cannot read {path}: {error.strerror or error}; mend that and run it again")


def read_json(path: Path, default: Any = None) -> Any:
    """The JSON value in ``path``, or ``default`` where there is no such file.

    Raises ``LabError`` for a file that cannot be read or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return default
    except ValueError as error:
        raise LabError(f"{path} is not valid JSON ({error}); move it away and run again") from None
    except NotADirectoryError:
        raise LabError(f"cannot read {path}: a file is where a folder should be") from None
    except OSError as error:
        raise unreadable(path, error) from None


def _encode(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, allow_nan=True, separators=(",", ":")) + "\n").encode()


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSON-lines file, without a torn last line; none where there is no file.

    Raises ``LabError`` for a file that cannot be read, and for a row that is no JSON.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        raise unreadable(path, error) from None
    # What follows the last newline is a torn write.
    for number, line in enumerate(data.split(b"\n")[:-1], start=1):
        try:
            yield json.loads(line)
        except ValueError as error:
            raise LabError(
                f"{path}: line {number} is not valid JSON ({error}); "
                "move its folder away and run again"
            ) from None


class AppendLog:
    """A JSON-lines file whose rows have unique keys; a row that is there already is not repeated.

    A resumed run computes the steps after its checkpoint again; on the CPU they come out the same
    to the bit, and the rows first written stay.
    """

    def __init__(self, path: Path, key: Callable[[dict[str, Any]], Hashable]) -> None:
        self._key, self._path = key, path
        self._seen = {key(row) for row in read_lines(path)}
        with writing(path):
            # Unbuffered: what a full disk refused must not be written by a later call.
            self._file = open(path, "ab", buffering=0)  # noqa: SIM115 (see close)
            self._whole = path.read_bytes().rfind(b"\n") + 1
            self._drop_torn_line()

    def _drop_torn_line(self) -> None:
        self._file.truncate(self._whole)

    def append(self, row: dict[str, Any]) -> None:
        """Write ``row`` durably, unless a row with its key is there.

        Raises :class:`WriteError` when the disk does not take it; the file is then as it was.
        """
        if self._key(row) in self._seen:
            return
        line = _encode(row)
        try:
            with writing(self._path):
                self._write(line)
        except WriteError:
            with suppress(OSError):
                self._drop_torn_line()
            raise
        self._whole += len(line)
        self._seen.add(self._key(row))

    def _write(self, line: bytes) -> None:
        rest = memoryview(line)
        while rest:  # a disk that is nearly full takes a part
            rest = rest[self._file.write(rest) :]
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; the log cannot be appended to afterwards."""
        self._file.close()
