"""Files of problems for the tests of the math task."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cegppo_lab.tasks import Task, make_task

ROWS = [{"problem": f"What is {n} + {n}?", "answer": str(2 * n)} for n in range(40)]


def write_lines(path: Path, rows: Sequence[dict[str, Any]] = ROWS) -> str:
    """Write ``rows`` as JSON lines; the path as an option of the task."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def math_task(path: Path, **options: Any) -> Task:
    """The math task on ``ROWS``, written to ``path``, with 8 of them held out."""
    return make_task("math", path=write_lines(path), **{"heldout_problems": 8, **options})
