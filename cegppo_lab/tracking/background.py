"""The thread that keeps MLflow up to date while a sweep runs, and never stands in its way."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from cegppo_lab.errors import LabError
from cegppo_lab.store import RunStore
from cegppo_lab.tracking.connection import redact
from cegppo_lab.tracking.mirror import mirror_sweep

CPU_SHARE = 0.1
"""The largest share of one core that mirroring may take, whatever the size of the sweep."""
LONGEST_REST_S = 60.0

_logger = logging.getLogger(__name__)


class Mirror:
    """Mirrors the sweep ``name`` every ``interval_s`` seconds in a daemon thread.

    Nothing that goes wrong in it reaches the caller: the first failure in a row is told by ``say``
    in one line, and the next pass tries again. ``artifacts``: see ``mirror_sweep``.
    """

    def __init__(
        self,
        store: RunStore,
        name: str,
        uri: str,
        interval_s: float = 5.0,
        *,
        artifacts: Path | None = None,
        say: Callable[[str], None] = _logger.warning,
    ) -> None:
        self._store, self._name, self._uri = store, name, uri
        self._interval_s, self._artifacts, self._say = interval_s, artifacts, say
        self._problems: list[str] = []
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._loop, name=f"mirror-{name}", daemon=True)

    def start(self) -> None:
        """Begin with a first pass at once. Returns immediately."""
        self._thread.start()

    def nudge(self) -> None:
        """Ask for a pass soon, ahead of the interval. Returns immediately."""
        self._wake.set()

    def stop(self, timeout_s: float) -> list[str]:
        """Make a last pass, wait at most ``timeout_s`` for it; what is wrong with the mirror.

        Each problem is one line for the user. Empty: MLflow shows all that the store held.
        """
        self._stopping.set()
        self._wake.set()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            return [
                f"MLflow at {redact(self._uri)} took longer than {timeout_s:g} s; the run store is "
                "whole, type: python -m cegppo_lab sync"
            ]
        return list(self._problems)

    def _loop(self) -> None:
        while True:
            last = self._stopping.is_set()
            started = time.thread_time()
            self._pass()
            if last:
                return
            rest = min((time.thread_time() - started) / CPU_SHARE, LONGEST_REST_S)
            if not self._stopping.wait(rest):  # a nudge does not cut the rest short, stop does
                self._wake.wait(max(0.0, self._interval_s - rest))
            self._wake.clear()

    def _pass(self) -> None:
        try:
            report = mirror_sweep(self._store, self._name, self._uri, artifacts=self._artifacts)
            problems = [
                f"MLflow at {report.uri} has trial {trial_id} from another run store; it was left "
                "alone (give this sweep another name)"
                for trial_id in report.foreign
            ]
        except LabError as error:
            problems = [str(error)]
        except Exception as error:  # anything: training must never depend on the mirror
            problems = [
                f"mirroring to {redact(self._uri)} failed ({type(error).__name__}: {error}); the "
                "run store is whole, type: python -m cegppo_lab sync"
            ]
        if problems and not self._problems:
            self._say(problems[0])
        self._problems = problems
