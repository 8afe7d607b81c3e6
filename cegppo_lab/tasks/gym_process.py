"""One killable process per process in which reasoning_gym runs; see :mod:`.gym_worker`."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cegppo_lab import serving
from cegppo_lab.errors import LabError

_WORKER = Path(__file__).with_name("gym_worker.py")
_WALL_S = 600.0
"""The worker has limits of its own, on CPU time; this one is for a worker that stands still."""


class GymProcess:
    """Started when first asked, started again when it ends; safe from any thread and after a fork.

    A plain subprocess, because daemonic processes may have no children of ``multiprocessing``.
    """

    def __init__(self) -> None:
        self._reset()
        os.register_at_fork(after_in_child=self._reset)
        atexit.register(self.close)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def ask(self, do: str, **arguments: Any) -> dict[str, Any] | None:
        """The worker's reply; None: it ran out of CPU time or memory, or ended twice.

        Raises:
            LabError: reasoning_gym is not installed.
        """
        line = json.dumps({"do": do, **arguments}) + "\n"
        with self._lock:
            for _ in range(2):
                reply = self._exchange(line)
                if reply:
                    return json.loads(reply)
                if self._end() == -signal.SIGPROF:
                    break
        return None

    def _exchange(self, line: str) -> str:
        """The reply's line; empty: the worker has ended."""
        process = self._process = self._process or _started()
        watch = threading.Timer(_WALL_S, process.kill)
        watch.start()
        try:
            process.stdin.write(line)
            process.stdin.flush()
            return process.stdout.readline()
        except BrokenPipeError:
            return ""
        except BaseException:  # the reply of an interrupted question would answer the next one
            self._end()
            raise
        finally:
            watch.cancel()

    def _end(self) -> int:
        """Reap the worker, which is killed if it runs; its exit status."""
        process, self._process = self._process, None
        if process is None:
            return 0
        process.kill()
        process.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        return process.wait()

    def pid(self) -> int | None:
        """The worker's process id, if one runs."""
        return self._process.pid if self._process else None

    def close(self) -> None:
        """End the worker; a later question starts a new one."""
        with self._lock:
            self._end()


def _started() -> subprocess.Popen[str]:
    if find_spec("reasoning_gym") is None:
        raise LabError(
            "task reasoning_gym needs the package reasoning-gym: "
            "pip install 'cegppo-lab[reasoning]'"
        )
    return subprocess.Popen(
        serving.command(_WORKER),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="ascii",
        env=serving.environment(PYTHONHASHSEED="0"),
    )


GYM = GymProcess()
