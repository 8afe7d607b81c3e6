"""A trial's JSON-lines files, checked row by row."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from cegppo_lab.housekeeping.contents import FINAL_ROWS
from cegppo_lab.store import EvalRecord, FinalRecord, TokenSample


@dataclass
class Rows:
    """What a file holds. ``flaw``: the first thing wrong with it, in a few words."""

    keys: list[Hashable] = field(default_factory=list)
    """What tells the rows apart, in the order of the file: begins with the step, or is it."""
    torn: bool = False
    flaw: str | None = None

    @property
    def last_step(self) -> int:
        """The largest step of a row; 0 for none."""
        return max((key[0] if isinstance(key, tuple) else key for key in self.keys), default=0)


@dataclass(frozen=True)
class _Kind:
    columns: dict[str, str]
    """Type by name, as JSON has it: int, float, str, list or dict."""
    key: Callable[[dict[str, Any]], Hashable]


def _evaluation(row: dict[str, Any]) -> Hashable:
    return row["step"], row["benchmark"]


def _final(row: dict[str, Any]) -> Hashable:
    # A larger k is written as one more row, with more samples.
    return row["step"], row["benchmark"], row["evaluation"], len(row["problem"])


def _step(row: dict[str, Any]) -> Hashable:
    return row["step"]


def _columns(record: type) -> dict[str, str]:
    """The columns of a dataclass whose rows are its fields."""
    return {each.name: each.type.partition("[")[0] for each in fields(record)}


KINDS = {
    "steps.jsonl": _Kind({"step": "int", "time": "float", "metrics": "dict"}, _step),
    "evals.jsonl": _Kind(_columns(EvalRecord), _evaluation),
    FINAL_ROWS: _Kind(_columns(FinalRecord), _final),
    "tokens.jsonl": _Kind(_columns(TokenSample), _step),
}
_IS = {
    "int": lambda value: type(value) is int and value >= 0,
    "float": lambda value: type(value) in (int, float),
    "str": lambda value: type(value) is str,
    "list": lambda value: type(value) is list,
    "dict": lambda value: type(value) is dict and all(map(_IS["float"], value.values())),
}


def read_rows(path: Path) -> Rows:
    """Check the file ``path``, whose name is one of ``KINDS``; no file is no row."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Rows()
    *lines, tail = data.split(b"\n")
    rows = Rows(torn=bool(tail))
    for flaw in _read(lines, KINDS[path.name], rows.keys):
        rows.flaw = f"{path.name} {flaw}"
        return rows
    if path.name == "steps.jsonl":
        rows.flaw = _order_flaw(rows.keys)
    return rows


def _read(lines: list[bytes], kind: _Kind, keys: list[Hashable]) -> Iterator[str]:
    """Add the key of every line to ``keys``; yields what is wrong with a line."""
    seen: set[Hashable] = set()
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError:
            yield f"line {number} is not valid JSON"
            continue
        if flaw := _row_flaw(row, kind.columns):
            yield f"line {number} {flaw}"
            continue
        key = kind.key(row)
        if key in seen:
            yield f"line {number} repeats step {row['step']}"
        seen.add(key)
        keys.append(key)


def _row_flaw(row: Any, columns: dict[str, str]) -> str | None:
    if not isinstance(row, dict):
        return "is no row"
    if differing := sorted(set(columns) ^ set(row)):
        return f"{'has no' if differing[0] in columns else 'has an unknown'} {differing[0]!r}"
    for name, kind in columns.items():
        if not _IS[kind](row[name]):
            return f"has a {name!r} that is no {kind}"
    lengths = {name: len(row[name]) for name, kind in columns.items() if kind == "list"}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{length} {name}" for name, length in lengths.items())
        return f"has lists of unequal length ({told})"
    return None


def _order_flaw(steps: list[Hashable]) -> str | None:
    for place, step in enumerate(steps, start=1):
        if step != place:
            return f"steps.jsonl line {place} has step {step}, not {place}"
    return None
