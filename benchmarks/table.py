"""What the scripts share: a stopwatch, and the CSV that says how and where it was made."""

from __future__ import annotations

import csv
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "results" / "speed"
Row = Mapping[str, Any]


def seconds(act: Callable[..., Any], *arguments: Any) -> float:
    """Wall time of one call."""
    begin = time.perf_counter()
    act(*arguments)
    return time.perf_counter() - begin


def circumstances(script: str, *more: str) -> list[str]:
    """The notes that a CSV of ``script`` begins with: command, machine, load, and ``more``."""
    return [
        f"command: {' '.join([f'python -m benchmarks.{script}', *sys.argv[1:]])}",
        f"cores: {os.cpu_count() or 1}, Python {platform.python_version()}",
        f"load before: {' '.join(f'{load:.2f}' for load in os.getloadavg())}",
        *more,
    ]


def write(path: Path, columns: Sequence[str], rows: Sequence[Row], notes: Sequence[str]) -> None:
    """Write ``rows`` as CSV under ``notes``; a column that a row lacks is empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        file.writelines(f"# {note}\n" for note in notes)
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
