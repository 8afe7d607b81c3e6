"""Killable worker processes that compare answers, for any thread of any kind of process."""

from __future__ import annotations

import atexit
import json
import os
import select
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from cegppo_lab import serving
from cegppo_lab.errors import LabError

_WORKER = Path(__file__).with_name("worker.py")
_STARTUP_S = 120.0
_MEMORY_BYTES = 1 << 30


class _Died(Exception):
    """The worker ended, or said nothing sensible."""


class _TooLate(Exception):
    """The worker did not answer in time."""


class Worker:
    """One child process; used by one thread at a time.

    A plain subprocess, because daemonic processes may have no children of ``multiprocessing``.

    Raises:
        LabError: math-verify is missing, or gets known pairs wrong.
    """

    def __init__(self) -> None:
        command = serving.command(_WORKER, _MEMORY_BYTES)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env=serving.environment(),
        )
        self._unread = b""
        try:
            greeting = self._receive(_STARTUP_S)
        except (_Died, _TooLate):
            self.kill()
            raise LabError(
                f"the answer verifier does not start; see why: {' '.join(command)}"
            ) from None
        if "error" in greeting:
            self.kill()
            raise LabError(f"the answer verifier refuses to run: {greeting['error']}")

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    def judge(self, pairs: list[tuple[str, str]], timeout: float) -> tuple[bool, bool]:
        """The verdict, and whether the worker can be used again."""
        request = json.dumps({"pairs": pairs, "timeout": timeout}).encode() + b"\n"
        try:
            self._process.stdin.write(request)
        except OSError:
            raise _Died from None
        answer = self._receive(timeout)
        return answer["verdict"], not answer["spent"]

    def _receive(self, timeout: float) -> dict[str, Any]:
        deadline = time.monotonic() + timeout
        poll = select.poll()  # select.select() takes no file numbers above 1023
        poll.register(self._process.stdout, select.POLLIN | select.POLLHUP)
        while b"\n" not in self._unread:
            left = deadline - time.monotonic()
            if left <= 0:
                raise _TooLate
            if poll.poll(left * 1000):
                received = self._process.stdout.read(1 << 16)
                if not received:
                    raise _Died
                self._unread += received
        line, _, self._unread = self._unread.partition(b"\n")
        return json.loads(line)

    def kill(self) -> None:
        """End the process at once and reap it."""
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()


class Pool:
    """At most ``size`` workers, started when needed, replaced when they fail.

    A forked child starts with an empty pool of its own.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._reset()
        os.register_at_fork(after_in_child=self._reset)
        atexit.register(self.close)

    def _reset(self) -> None:
        self._free = threading.Semaphore(self.size)
        self._lock = threading.Lock()
        self._idle: list[Worker] = []
        self._all: set[Worker] = set()

    def judge(self, pairs: list[tuple[str, str]], timeout: float) -> bool:
        """Whether any (gold, answer) pair of LaTeX agrees; False after ``timeout`` seconds.

        The time counts from when a worker takes the request up. A worker that ends without a
        verdict (killed from outside, or crashed) is replaced, and the request tried once more.
        """
        with self._free:
            for attempt in range(2):
                worker = self._take(fresh=attempt > 0)
                try:
                    verdict, reusable = worker.judge(pairs, timeout)
                except _Died:
                    self._discard(worker)
                    continue
                except BaseException as reason:  # an interrupted worker would answer the wrong one
                    self._discard(worker)
                    if isinstance(reason, _TooLate):
                        return False
                    raise
                if reusable:
                    self._give_back(worker)
                else:
                    self._discard(worker)
                return verdict
        return False

    def pids(self) -> list[int]:
        """Process ids of the workers that this process has started and not ended."""
        with self._lock:
            return sorted(worker.pid for worker in self._all)

    def close(self) -> None:
        """End all workers; the pool can still be used and would start new ones."""
        with self._lock:
            workers, self._all, self._idle = self._all, set(), []
        for worker in workers:
            worker.kill()

    def _take(self, fresh: bool) -> Worker:
        """An idle worker, or a new one; ``fresh``: a new one in its place."""
        with self._lock:
            idle = self._idle.pop() if self._idle else None
        if idle and not fresh:
            return idle
        if idle:  # whatever ended the last one may have ended this one too
            self._discard(idle)
        worker = Worker()
        with self._lock:
            self._all.add(worker)
        return worker

    def _give_back(self, worker: Worker) -> None:
        with self._lock:
            if worker in self._all:
                self._idle.append(worker)

    def _discard(self, worker: Worker) -> None:
        with self._lock:
            self._all.discard(worker)
        worker.kill()
