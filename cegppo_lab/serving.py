"""Both ends of a worker that is run as a file and answers JSON lines.

The worker imports this module and no other of the package, so that it starts fast and stays small:
only the standard library is imported here.
"""

from __future__ import annotations

import json
import os
import select
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_ORPHAN_POLL_S = 0.5
_ROOT = Path(__file__).resolve().parents[1]


def command(worker: Path, *arguments: object) -> list[str]:
    """What starts the file ``worker`` with this process's id and then ``arguments``.

    -P: our own modules must not hide those that the worker imports by name.
    """
    return [sys.executable, "-P", str(worker), *map(str, (os.getpid(), *arguments))]


def environment(**variables: str) -> dict[str, str]:
    """This process's variables for a worker: one thread, and where this package is found."""
    paths = [*filter(None, [os.environ.get("PYTHONPATH")]), str(_ROOT)]
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    return os.environ | own | variables


def requests(parent: int) -> Iterator[Any]:
    """The requests on standard input, a JSON line each, until it closes or ``parent`` is gone."""
    stream, buffer = sys.stdin.buffer.raw, b""
    while os.getppid() == parent:
        if not select.select([stream], [], [], _ORPHAN_POLL_S)[0]:
            continue
        received = stream.read(1 << 16)
        if not received:
            return
        buffer += received
        while b"\n" in buffer:
            line, _, buffer = buffer.partition(b"\n")
            yield json.loads(line)
