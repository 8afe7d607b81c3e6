"""Rows of local or Hugging Face hub data files (jsonl, json, csv, parquet), and their hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cegppo_lab.errors import LabError, unknown

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")

Row = tuple[str, Mapping[str, Any]]
"""Where a row stands, e.g. ``train.jsonl line 3``, and its fields."""


def data_files(
    path: str, file: str | None = None, revision: str | None = None, *, download: bool = True
) -> list[Path]:
    """The data files that ``path`` means, sorted by name; hub files are downloaded, once.

    Args:
        path: a file, a folder, or ``owner/name`` of a hub dataset.
        file: in a folder or on the hub: the name of the file, or a glob over its parts.
        revision: commit, tag or branch on the hub.
        download: False: hub files count only if they were downloaded before.

    Raises:
        LabError: nothing there, no network, no access, or several files and no ``file``.
    """
    local = Path(path).expanduser()
    if local.is_file():
        return [_known(local)]
    folder = local if local.is_dir() else _downloaded(path, file, revision, download)
    names = [found for found in sorted(folder.glob(file or "**/*")) if found.is_file()]
    if file and names:
        return [_known(name) for name in names]
    choices = [found for found in sorted(folder.glob("**/*")) if found.suffix in SUFFIXES]
    relative = [str(found.relative_to(folder)) for found in choices]
    if file:
        raise unknown(f"file of {path}", file, relative)
    if len(choices) != 1:
        listed = ", ".join(relative[:8]) or f"none ({', '.join(SUFFIXES)})"
        raise LabError(f"{path} has not one data file but: {listed}. Choose with task.file=NAME.")
    return choices


def _known(path: Path) -> Path:
    if path.suffix not in SUFFIXES:
        raise unknown("kind of data file", path.name, SUFFIXES)
    return path


def _downloaded(path: str, file: str | None, revision: str | None, download: bool) -> Path:
    if len(Path(path).parts) != 2 or path.startswith((".", "~", "/")):
        raise LabError(
            f"task.path={path!r}: no such file or folder, and not owner/name of a hub dataset."
        )
    # Here and not above: local data need no hub client.
    from httpx import HTTPError
    from huggingface_hub import errors, snapshot_download

    patterns = file or [f"*{suffix}" for suffix in SUFFIXES]
    try:
        found = snapshot_download(
            path,
            repo_type="dataset",
            revision=revision,
            allow_patterns=patterns,
            local_files_only=not download,
        )
    except errors.GatedRepoError:
        raise LabError(
            f"dataset {path!r} is gated: accept its terms on its hub page, then `hf auth login`."
        ) from None
    except errors.RevisionNotFoundError:
        raise LabError(f"dataset {path!r} has no revision {revision!r}.") from None
    except errors.RepositoryNotFoundError:
        raise LabError(
            f"no dataset {path!r} on the hub, nor such a local path; "
            "if it is private: `hf auth login`."
        ) from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, HTTPError, OSError):
        raise LabError(
            f"dataset {path!r} is not on this machine and the hub cannot be reached; "
            "set task.path to a local jsonl, json, csv or parquet file."
        ) from None
    except errors.HFValidationError as failure:
        raise LabError(f"task.path={path!r}: {str(failure).splitlines()[0]}") from None
    return Path(found)


def files_hash(files: Sequence[Path]) -> str:
    """sha256 of the files' bytes, one after the other: for one file what ``sha256sum`` prints."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as handle:
            while block := handle.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def rows(path: Path) -> Iterator[Row]:
    """The rows of one data file, in order.

    Raises:
        LabError: the file is empty or malformed; names the line where there is one.
    """
    if path.stat().st_size == 0:
        raise LabError(f"{path} is empty; expected rows of data.")
    empty = True
    try:
        for where, fields in _READERS[path.suffix](path):
            if not isinstance(fields, Mapping):
                raise LabError(f"{where}: expected an object with named fields, not {fields!r:.40}")
            empty = False
            yield where, fields
    except (OSError, ValueError) as failure:  # what pandas, pyarrow and decoding raise
        raise LabError(f"{path} cannot be read: {str(failure).splitlines()[0]}") from None
    if empty:
        raise LabError(f"{path} has no rows.")


def _json_lines(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            where = f"{path} line {number}"
            if not line.strip():
                continue
            try:
                yield where, json.loads(line)
            except json.JSONDecodeError as failure:
                raise LabError(f"{where} is no JSON: {failure.msg}.") from None


def _json(path: Path) -> Iterator[Row]:
    """An array of objects, or (as on the hub) JSON lines under another name."""
    text = path.read_text(encoding="utf-8-sig")
    if not text.lstrip().startswith("["):
        return _json_lines(path)
    try:
        items = json.loads(text)
    except json.JSONDecodeError as failure:
        raise LabError(f"{path} line {failure.lineno} is no JSON: {failure.msg}.") from None
    return ((f"{path} item {number}", item) for number, item in enumerate(items, start=1))


def _csv(path: Path) -> Iterator[Row]:
    import pandas as pd

    return _frame(path, pd.read_csv(path, dtype=str, keep_default_na=False))


def _parquet(path: Path) -> Iterator[Row]:
    import pandas as pd

    return _frame(path, pd.read_parquet(path))


def _frame(path: Path, frame: pd.DataFrame) -> Iterator[Row]:
    records = frame.to_dict("records")
    return ((f"{path} row {number}", record) for number, record in enumerate(records, start=1))


_READERS = {".jsonl": _json_lines, ".json": _json, ".csv": _csv, ".parquet": _parquet}


def text_field(row: Row, field: str, option: str) -> str:
    """The text under ``field``, a name or a path such as ``reward_model.ground_truth``.

    Whole numbers become their digits. ``option`` is what the user sets to name another field.

    Raises:
        LabError: the row has no such field, or it holds no text.
    """
    where, value = row
    if field in value:
        value = value[field]
    else:
        for part in field.split("."):
            value = _step(value, part, where, field, option)
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (str, int, float, np.number)):
        raise LabError(f"{where}: {field} holds no text but {value!r:.40}; see {option}.")
    if value != value or not str(value).strip():
        raise LabError(f"{where}: {field} is empty.")
    return str(value).strip()


def _step(value: Any, part: str, where: str, field: str, option: str) -> Any:
    if isinstance(value, Mapping):
        if part in value:
            return value[part]
        there = ", ".join(sorted(map(str, value))) or "none"
        raise LabError(f"{where} has no field {field!r}; set {option} to one of: {there}.")
    if isinstance(value, (list, tuple, np.ndarray)) and part.isdecimal() and int(part) < len(value):
        return value[int(part)]
    raise LabError(f"{where} has no field {field!r}: nothing at {part!r}; see {option}.")
