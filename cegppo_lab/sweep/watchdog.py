"""Ends a local Ray cluster whose driver was killed.

Ray ends most of its processes itself when the driver dies; its agents go on for a minute. A
small process that outlives the driver sees the end of a pipe and kills what is left.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator

import psutil

GRACE_S = 2.0


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """While in the context, all children of this process end with it, also after a SIGKILL."""
    me = psutil.Process()
    known = [(child.pid, child.create_time()) for child in me.children(recursive=True)]
    # A session of its own: Ctrl-C in the terminal must not end the watchdog before the driver.
    process = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, text=True, start_new_session=True
    )
    process.stdin.write(json.dumps(known) + "\n")
    process.stdin.flush()
    try:
        yield
    finally:
        process.stdin.write("done\n")
        process.stdin.close()
        process.wait()


def main() -> None:
    """Read the processes to watch; at the end of the input kill them, unless told ``done``."""
    known = json.loads(sys.stdin.readline())
    if sys.stdin.readline().strip() == "done":
        return
    doomed = {process for pid, born in known for process in _family(pid, born)}
    _, alive = psutil.wait_procs(doomed, timeout=GRACE_S)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()


def _family(pid: int, born: float) -> list[psutil.Process]:
    """The process that was born then and its descendants; none if the id is another's by now."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        if process.create_time() == born:
            return [process, *process.children(recursive=True)]
    return []


if __name__ == "__main__":
    main()
