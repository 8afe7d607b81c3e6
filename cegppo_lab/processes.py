"""Ending processes with everything they started, also when this process is killed.

Ray ends most of its processes itself when a driver dies; its agents go on for a minute. A small
watchdog process that outlives this one sees the end of a pipe and kills what is left.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

GRACE_S = 2.0
_POLL_S = 0.05


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """While in the context, all present children of this process end with it, even on SIGKILL."""
    me = psutil.Process()
    known = [(child.pid, child.create_time()) for child in me.children(recursive=True)]
    with _watchdog(known):
        yield


@contextlib.contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """A temporary folder that goes with the context, also when this process is killed in it."""
    with tempfile.TemporaryDirectory(prefix=prefix) as name, _watchdog([], name):
        yield Path(name)


@contextlib.contextmanager
def _watchdog(known: list[tuple[int, float]], *folders: str) -> Iterator[None]:
    # A session of its own: Ctrl-C in the terminal must not end the watchdog before the driver.
    watchdog = subprocess.Popen(
        [sys.executable, __file__, *folders],
        stdin=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    watchdog.stdin.write(json.dumps(known) + "\n")
    watchdog.stdin.flush()
    try:
        yield
    finally:
        watchdog.stdin.write("done\n")
        watchdog.stdin.close()
        watchdog.wait()


def end_family(process: psutil.Process | None, grace_s: float = GRACE_S) -> None:
    """Ask ``process`` to end, then kill what is left of it and its descendants."""
    if process is None:
        return
    doomed = _family(process)
    with contextlib.suppress(psutil.Error):
        process.terminate()
    _kill_after(doomed, grace_s)


def end_session(leader: int, patience_s: float = GRACE_S) -> None:
    """Kill every process of the session that process ``leader`` began, and wait for their ends.

    Orphans too: what is left when the process that they belonged to died first.
    """
    end = time.monotonic() + patience_s
    while (members := _session(leader)) and time.monotonic() < end:
        for process in members:
            with contextlib.suppress(psutil.Error):
                process.kill()
        time.sleep(_POLL_S)


def _session(leader: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def main() -> None:
    """Read the processes to watch; at the end of the input kill them, unless told ``done``.

    Then delete the folders that the command line names.
    """
    known = json.loads(sys.stdin.readline())
    if sys.stdin.readline().strip() == "done":
        return
    doomed: list[psutil.Process] = []
    for pid, born in known:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            if process.create_time() == born:  # the id may be another's by now
                doomed += _family(process)
    _kill_after(doomed, GRACE_S)
    if folders := sys.argv[1:]:
        time.sleep(2 * GRACE_S)  # another watchdog ends those that write there
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def _family(process: psutil.Process) -> list[psutil.Process]:
    """``process`` and its living descendants; none if it is gone."""
    with contextlib.suppress(psutil.Error):
        return [process, *process.children(recursive=True)]
    return []


def _kill_after(doomed: list[psutil.Process], grace_s: float) -> None:
    """Give processes that are ending by themselves a moment, then kill those that are not."""
    _, alive = psutil.wait_procs(set(doomed), timeout=grace_s)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=grace_s)  # a kill takes a moment, too


if __name__ == "__main__":
    main()
