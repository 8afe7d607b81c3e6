"""An archive of runs: a tar in the store's own layout, with the hash of every file in it.

Members are sorted by name; the last, ``_archive.json``, lists all others::

    {"format": 1, "host": ..., "cegppo_lab": version, "files": {name: {"sha256", "bytes"}}}

so that an archive that was cut short has none. Times of change are kept (whole seconds), owner and
mode are not: the same store gives the same bytes. ``.tar`` or, by name, ``.tar.gz``/``.tgz``.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import platform
import re
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import cegppo_lab
from cegppo_lab.errors import LabError
from cegppo_lab.housekeeping.contents import is_lock
from cegppo_lab.housekeeping.manifests import manifest_flaw
from cegppo_lab.store import SWEEP_NAME

FORMAT = 1
LISTING = "_archive.json"
SWEEPS = "_sweeps"
_SUFFIXES = (".tar", ".tar.gz", ".tgz")
_GZIP = b"\x1f\x8b"
_BLOCK = 1 << 20
_MAX_JSON = 1 << 28
"""Bytes of a manifest or listing that are read into memory."""
_END_OF_TIME = 1 << 33


@dataclass(frozen=True)
class Listing:
    """A checked archive. ``files``: name -> {"sha256", "bytes"}; ``sweeps``: name -> manifest."""

    files: dict[str, dict[str, Any]]
    sweeps: dict[str, dict[str, Any]]
    host: str
    sha256: str
    """Of the listing itself, which names the archive's whole content."""


class _Hashed:
    """A stream that hashes and counts what is read from it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._digest, self.bytes = stream, hashlib.sha256(), 0

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._digest.update(data)
        self.bytes += len(data)
        return data

    @property
    def entry(self) -> dict[str, Any]:
        return {"sha256": self._digest.hexdigest(), "bytes": self.bytes}


class Packer:
    """Adds files to an archive, in the order of their names; see ``packing``."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._files: dict[str, dict[str, Any]] = {}

    def add_bytes(self, name: str, data: bytes, mtime: float) -> None:
        """Add ``data`` as file ``name``."""
        self._add(name, io.BytesIO(data), len(data), mtime)

    def add_file(self, name: str, path: Path) -> None:
        """Add the file ``path``, as long as it is now, as ``name``."""
        with open(path, "rb") as file:
            stat = os.fstat(file.fileno())
            self._add(name, file, stat.st_size, stat.st_mtime)

    def _add(self, name: str, stream: IO[bytes], size: int, mtime: float) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mtime, member.mode = size, int(mtime), 0o644
        hashed = _Hashed(stream)
        self._tar.addfile(member, hashed)
        self._files[name] = hashed.entry

    def finish(self) -> int:
        """Add the listing; how many bytes of files it lists."""
        listing = {
            "format": FORMAT,
            "host": platform.node(),
            "cegppo_lab": cegppo_lab.__version__,
            "files": self._files,
        }
        self.add_bytes(LISTING, json.dumps(listing, indent=1, sort_keys=True).encode(), 0)
        return sum(entry["bytes"] for entry in self._files.values())


@contextmanager
def packing(path: Path, name: str) -> Iterator[Packer]:
    """Write an archive to ``path``; ``name``, which it will have, says whether it is compressed."""
    with open(path, "wb") as file:
        if name.endswith(".tar"):
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
                yield Packer(tar)
            return
        with (
            gzip.GzipFile("", "wb", 6, file, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
        ):
            yield Packer(tar)


def check_name(archive: Path) -> None:
    """Raise ``LabError`` for a name whose kind of archive cannot be written."""
    if not archive.name.endswith(_SUFFIXES):
        raise LabError(f"{archive}: name it {' or '.join(f'*{each}' for each in _SUFFIXES)}")


def check_archive(archive: Path) -> Listing:
    """Read the whole archive; nothing of it is written anywhere.

    Raises ``LabError`` for what is no archive or was cut short, for a hash that differs, and for
    members that have no business in a store: links, devices, names that lead out of it.
    """
    found, sweeps, listing, digest = {}, {}, None, ""
    with _told(archive):
        for member, stream in _members(archive):
            hashed = _Hashed(stream)
            if member.name == LISTING:
                listing = _json(archive, member, hashed)
                digest = hashed.entry["sha256"]
                continue
            if member.name.startswith(f"{SWEEPS}/"):
                name = member.name.removeprefix(f"{SWEEPS}/").removesuffix(".json")
                sweeps[name] = _manifest(archive, member, hashed, name)
            while hashed.read(_BLOCK):
                pass
            found[member.name] = hashed.entry
    _check_listing(archive, listing, found)
    return Listing(found, sweeps, str(listing.get("host")), digest)


def read_again(archive: Path, listing: Listing) -> Iterator[tuple[str, Path, IO[bytes], float]]:
    """The files of trials in a checked archive: (trial id, path within it, content, mtime).

    The content must be read before the next is asked for. Raises ``LabError`` when the archive is
    no longer the one that was checked; the last file that was read may be wrong then.
    """
    with _told(archive):
        for member, stream in _members(archive):
            if member.name.startswith("_"):
                continue
            hashed = _Hashed(stream)
            trial_id, _, inner = member.name.partition("/")
            yield trial_id, Path(inner), hashed, member.mtime
            if hashed.bytes and hashed.entry != listing.files.get(member.name):
                raise LabError(f"{archive} was changed while it was read; type the same again")


def _members(archive: Path) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
    """Members in their order, each checked before it is yielded."""
    with open(archive, "rb") as file:
        packed = file.read(2) == _GZIP
        file.seek(0)
        stream = gzip.GzipFile(fileobj=file) if packed else file
        before = ""
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            while (member := tar.next()) is not None:
                if told := _member_flaw(member):
                    raise LabError(f"{archive} is refused: member {member.name!r} {told}")
                name = member.name
                if before == LISTING or (name <= before and name != LISTING):
                    raise LabError(f"{archive} is refused: {name!r} is out of order or repeated")
                before = name
                yield member, tar.extractfile(member)
                tar.members.clear()  # which would grow with the archive


def _member_flaw(member: tarfile.TarInfo) -> str | None:
    """Why a member must not come near a store; None for one that may."""
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
        return "is no plain file"
    if not (0 <= member.mtime < _END_OF_TIME and member.size >= 0):
        return "has a size or time that cannot be"
    top, *rest = parts = member.name.split("/")
    if not all(_is_plain(part) for part in parts):
        return "has a name that is not allowed"
    if member.name == LISTING:
        return None
    if not rest:
        return "belongs to no trial"
    if top == SWEEPS:
        name = "/".join(rest)
        good = name.endswith(".json") and re.fullmatch(SWEEP_NAME, name.removesuffix(".json"))
        return None if good else "is no sweep's manifest"
    if top.startswith("_"):
        return "belongs to no trial"
    return "is a lock" if is_lock(rest[-1]) else None


def _is_plain(part: str) -> bool:
    hidden = part.startswith(".")  # also '.' and '..'
    return bool(part) and not hidden and part.isprintable() and not set(part) & set("\\:")


def _manifest(archive: Path, member: tarfile.TarInfo, stream: Any, name: str) -> dict[str, Any]:
    manifest = _json(archive, member, stream)
    if flaw := manifest_flaw(manifest, name):
        raise LabError(f"{archive} is refused: sweep {name!r}: {flaw}")
    return manifest


def _json(archive: Path, member: tarfile.TarInfo, stream: Any) -> Any:
    if member.size > _MAX_JSON:
        raise LabError(f"{archive} is refused: member {member.name!r} is too large")
    try:
        return json.loads(stream.read())
    except (ValueError, RecursionError):
        raise LabError(f"{archive} is refused: {member.name!r} is not valid JSON") from None


def _check_listing(archive: Path, listing: Any, found: dict[str, dict[str, Any]]) -> None:
    if listing is None:
        raise LabError(f"{archive} was cut short, or `export` did not write it; copy it again")
    if not isinstance(listing, dict) or listing.get("format") != FORMAT:
        raise LabError(f"{archive} has a format that this version does not know; update cegppo-lab")
    listed = listing.get("files")
    if listed != found:
        listed = listed if isinstance(listed, dict) else {}
        names = sorted(listed.keys() | found.keys())
        wrong = next((name for name in names if listed.get(name) != found.get(name)), LISTING)
        raise LabError(f"{archive} is damaged: {wrong!r} is not what was exported; copy it again")


@contextmanager
def _told(archive: Path) -> Iterator[None]:
    """Errors of reading an archive, as one line."""
    try:
        yield
    except (tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError, ValueError) as error:
        raise LabError(
            f"{archive} is no archive of runs, or was cut short ({error}); copy it again"
        ) from None
    except (FileNotFoundError, IsADirectoryError):
        raise LabError(f"{archive}: there is no such archive") from None
