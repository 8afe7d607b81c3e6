"""Killing a sweep's driver or its workers at drawn moments, and starting it again."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.soak import phases
from benchmarks.soak.phases import Scene
from cegppo_lab.store import DONE
from tests.e2e.lab import processes_in, start, wait_for

DRIVER, WORKER = "driver", "worker"
_POLL_S = 0.01
_PATIENCE_S = 30.0
_ORPHANS_S = 120.0
_AIMS = {
    DRIVER: (phases.CHECKPOINT, phases.EVALUATION, phases.MIRROR),
    WORKER: (phases.CHECKPOINT, phases.EVALUATION, phases.START),
}


@dataclass
class Kill:
    """One kill, as planned and as it was.

    It falls ``delay_s`` seconds after the call began or the kill before; with ``aim``, then as soon
    as that phase is seen. ``steps``: training steps stored, by trial, of those it interrupted.
    ``orphans_s``: seconds until no process of the call was left, of a driver kill.
    """

    kind: str
    delay_s: float
    aim: str = ""
    phase: str = ""
    time: float = 0.0
    into_call_s: float = 0.0
    steps: dict[str, int] = field(default_factory=dict)
    orphans_s: float | None = None


def draw(kind: str, count: int, span_s: float, dice: random.Random) -> list[Kill]:
    """``count`` kills, uniform over ``span_s``; every third aims at a phase that is seldom hit.

    The last driver kill aims at the report, so that there is one after the last step.
    """
    kills = [Kill(kind, dice.uniform(0, span_s)) for _ in range(count)]
    for place, kill in enumerate(kills[2::3]):
        kill.aim = _AIMS[kind][place % len(_AIMS[kind])]
    if kind == DRIVER and kills:
        kills[-1].aim = phases.REPORT
    return kills


@dataclass
class Soak:
    """A sweep in ``folder`` that ``kills`` fall on.

    ``words``: the command; ``before``: called with a kill's number before it is waited for, and
    with the count of all of them when none is left.
    """

    folder: Path
    words: Sequence[str]
    trials: int
    eval_every: int
    dice: random.Random
    before: Callable[[int], None] = lambda number: None
    wall_s: float = 0.0
    calls: int = 0

    def run(self, kills: Sequence[Kill]) -> list[Kill]:
        """Run the sweep to its end under ``kills``; those that it ended too early for."""
        begin = time.monotonic()
        left = list(kills)
        driver = self._start()
        try:
            while left:
                self.before(len(kills) - len(left))
                if not self._reach(driver, left[0]):
                    break
                driver = self._strike(driver, left.pop(0))
            self.before(len(kills))
            code = driver.wait(900)
        finally:
            driver.kill()
        self.wall_s += time.monotonic() - begin
        assert code == 0, f"the last call ended with {code}: see {self.folder}/log"
        return left

    def _start(self) -> Any:
        self.calls += 1
        self._scene = Scene(self.folder, time.time(), self.eval_every, self.trials)
        self._last = time.monotonic()
        return start(self.folder, *self.words)

    def _reach(self, driver: Any, kill: Kill) -> bool:
        """Wait for the kill's moment; False where the sweep ends before it."""
        due = self._last + kill.delay_s
        patience = float("inf") if kill.aim == phases.REPORT else _PATIENCE_S
        while driver.poll() is None:
            now = time.monotonic()
            if now >= due and (victim := self._victim(driver, kill, now >= due + patience)):
                kill.phase, self._victim_pid = victim
                return True
            time.sleep(_POLL_S)
        return False

    def _victim(self, driver: Any, kill: Kill, any_phase: bool) -> tuple[str, int] | None:
        """The phase and the process to kill, if there is one that the kill aims at."""
        if kill.kind == DRIVER:
            seen = {driver.pid: self._scene.driver_phases()}
        else:
            seen = self._scene.worker_phases()
        wanted = {
            pid: kill.aim if kill.aim in found else ", ".join(sorted(found))
            for pid, found in seen.items()
            if not kill.aim or any_phase or kill.aim in found
        }
        if not wanted:
            return None
        pid = self.dice.choice(sorted(wanted))
        return wanted[pid], pid

    def _strike(self, driver: Any, kill: Kill) -> Any:
        training = self._scene.training()
        hit = training if kill.kind == DRIVER else {self._victim_pid: None}.keys() & training
        kill.steps = {
            training[pid].trial_id: len(training[pid].steps())
            for pid in hit
            if training[pid].status().state != DONE
        }
        family = processes_in(self.folder) if kill.kind == DRIVER else []
        kill.time, kill.into_call_s = time.time(), time.time() - self._scene.since
        try:
            os.kill(self._victim_pid, signal.SIGKILL)
        except ProcessLookupError:  # it ended by itself just now
            kill.phase = f"{kill.phase} (gone)"
        print(f"  {self.folder.name}: killed a {kill.kind}, {kill.phase}", flush=True)
        self._last = time.monotonic()
        if kill.kind == WORKER:
            return driver
        driver.wait()
        at_once = self.dice.random() < 0.5  # else when the machine is clean again
        again = self._start() if at_once else None
        wait_for(lambda: not any(_alive(each) for each in family), timeout=_ORPHANS_S)
        kill.orphans_s = time.time() - kill.time
        return again or self._start()


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
