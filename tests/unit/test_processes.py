"""Ending process families, by the process that started them and by the watchdog after its death."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cegppo_lab import processes
from cegppo_lab.processes import end_family, end_session, watched

PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"],
                         start_new_session=True)
print(child.pid, flush=True)
{then}
time.sleep(600)
"""
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True)"
TIDY = """
import pathlib, signal
def leave(*_):
    time.sleep(0.3)
    pathlib.Path(sys.argv[1]).write_text("tidied")
    sys.exit()
signal.signal(signal.SIGTERM, leave)
print(flush=True)
"""
WATCHED = """
import os, signal, subprocess, sys, time
from cegppo_lab.processes import watched
parent = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, text=True,
                          start_new_session=True)
grandchild = parent.stdout.readline()
with watched():
    print(parent.pid, grandchild, flush=True)
    {then}
"""


class Family:
    """Processes, each with a child in a session of its own."""

    def __init__(self) -> None:
        self.made: list[psutil.Process] = []

    def start(self, then: str = "pass", *words: str) -> list[psutil.Process]:
        """A process and its child; ``then``: what it does next."""
        parent = psutil.Popen(
            [sys.executable, "-c", PARENT.format(then=then), *words],
            stdout=subprocess.PIPE,
            text=True,
        )
        return self.add(parent, psutil.Process(int(parent.stdout.readline())))

    def add(self, *members: psutil.Process) -> list[psutil.Process]:
        """Have ``members`` ended with the test."""
        self.made += members
        return list(members)


@pytest.fixture
def family() -> Iterator[Family]:
    """Families; what a test leaves of them is ended."""
    family = Family()
    yield family
    for process in filter(_alive, family.made):
        process.kill()


def _alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _all_end(members: list[psutil.Process], patience_s: float = 20.0) -> bool:
    end = time.monotonic() + patience_s
    while any(map(_alive, members)) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(map(_alive, members))


def test_children_in_other_sessions_end_too(family: Family) -> None:
    members = family.start()
    end_family(members[0])
    assert _all_end(members)


def test_a_process_that_ignores_the_request_is_killed(family: Family) -> None:
    members = family.start(STUBBORN)
    members[0].stdout.readline()
    end_family(members[0], grace_s=0.2)
    assert _all_end(members)


def test_a_process_may_tidy_up_before(family: Family, tmp_path: Path) -> None:
    members = family.start(TIDY, str(tmp_path / "note"))
    members[0].stdout.readline()
    end_family(members[0])
    assert (tmp_path / "note").read_text() == "tidied"
    assert _all_end(members)


def test_ending_nothing_and_a_process_that_is_gone(family: Family) -> None:
    end_family(None)
    parent, child = family.start("sys.exit()")
    parent.wait()
    end_family(parent)
    assert _alive(child)  # an orphan is nobody's family


def test_orphans_are_found_by_their_session(family: Family) -> None:
    _, orphan = family.start("sys.exit()")
    _, other = family.start("sys.exit()")
    end_session(orphan.pid)  # each child leads a session of its own
    assert _all_end([orphan])
    assert _alive(other)


def _start_watched(family: Family, then: str) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    driver = subprocess.Popen(
        [sys.executable, "-c", WATCHED.format(then=then), PARENT.format(then="pass")],
        stdout=subprocess.PIPE,
        text=True,
    )
    members = [psutil.Process(int(pid)) for pid in driver.stdout.readline().split()]
    return driver, family.add(*members)


def test_a_killed_process_takes_its_children_along(family: Family) -> None:
    driver, members = _start_watched(family, "time.sleep(600)")
    assert all(map(_alive, members))
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    assert _all_end(members)


def test_who_leaves_the_context_leaves_the_children_alone(family: Family) -> None:
    driver, members = _start_watched(family, "pass")
    driver.wait()
    assert not _all_end(members, patience_s=1.0)


def test_no_watchdog_outlives_the_context() -> None:
    before = set(psutil.Process().children(recursive=True))
    with watched():
        (watchdog,) = set(psutil.Process().children(recursive=True)) - before
    assert not _alive(watchdog)


@pytest.mark.parametrize(("aged", "ends"), [(0.0, True), (100.0, False)])
def test_the_watchdog_never_kills_a_reused_process_id(
    aged: float, ends: bool, family: Family
) -> None:
    members = family.start()
    known = [(members[0].pid, members[0].create_time() - aged)]
    told = json.dumps(known) + "\n"
    subprocess.run([sys.executable, processes.__file__], input=told, text=True, check=True)
    assert _all_end(members, patience_s=5.0 if ends else 0.5) is ends
