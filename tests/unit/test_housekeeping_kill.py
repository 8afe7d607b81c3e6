"""import and gc killed for real, on full disks and in stores that cannot be written."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import resource
import signal
import subprocess
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from cegppo_lab.errors import LabError
from cegppo_lab.housekeeping import gc, merge
from cegppo_lab.housekeeping.arrival import import_archive
from cegppo_lab.housekeeping.export import export
from cegppo_lab.housekeeping.gc import LEFTOVER, collect, find_waste
from cegppo_lab.housekeeping.verify import verify
from cegppo_lab.store import RunStore
from tests.unit.housekeeping_store import add_sweep, add_trial, final_row, tree, trial, write_rows

AWAY = ["origin.json"]
_CHANGES = [(merge, "_write"), *((os, name) for name in ("rename", "replace", "fsync", "unlink"))]
_FORK = multiprocessing.get_context("fork")


def _in_child(act: Callable[[], object]) -> tuple[int, str]:
    """Run ``act`` in a process of its own: its exit code, negative for a signal, and its error."""
    receiver, sender = _FORK.Pipe(duplex=False)

    def run() -> None:
        try:
            act()
        except BaseException as error:
            sender.send(f"{type(error).__name__}: {error}")
            os._exit(1)
        os._exit(0)

    child = _FORK.Process(target=run)
    child.start()
    child.join()
    return child.exitcode, receiver.recv() if receiver.poll() else ""


def _killed_at(number: int, act: Callable[[], object]) -> int:
    """Run ``act`` in a child that kills itself at its ``number``-th change of the store."""

    def run() -> None:
        left = count(1)

        def fatal(plain: Callable[..., object]) -> Callable[..., object]:
            def call(*args: object, **named: object) -> object:
                if next(left) == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return plain(*args, **named)

            return call

        for owner, name in _CHANGES:
            setattr(owner, name, fatal(getattr(owner, name)))
        act()

    return _in_child(run)[0]


@pytest.fixture
def there(tmp_path: Path) -> RunStore:
    made = RunStore(tmp_path / "there")
    add_sweep(made, "s", [1, 2])
    add_trial(made, 1, saved=[6])
    add_trial(made, 2)
    write_rows(made.root / trial(1) / "evaluations.jsonl", [final_row(6)])
    export(made, tmp_path / "a.tar", checkpoints=True)
    return made


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill loses nothing that was written; only a power cut would. Young drafts may go."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(gc, "DRAFT_AGE_S", -1.0)


def _valid(store: RunStore) -> bool:
    return not [finding for finding in verify(store) if not finding.harmless]


def test_an_import_killed_anywhere_leaves_a_valid_store_and_the_next_completes_it(
    there: RunStore, tmp_path: Path, fast: None
) -> None:
    archive = tmp_path / "a.tar"
    for number in count(1):
        here = RunStore(tmp_path / f"here{number}")
        add_trial(here, 1, last=3, state="failed")  # to be completed; the other is new
        code = _killed_at(number, lambda here=here: list(import_archive(here, archive)))
        assert _valid(here), number
        assert len(here.run(trial(1)).steps()) >= 3
        outcomes = {each.outcome for each in import_archive(here, archive)}
        assert outcomes <= {"new", "completed", "same"}
        assert {waste.why for waste in collect(here)} <= {LEFTOVER}
        assert tree(here, ignore=AWAY) == tree(there), number
        assert here.run(trial(1)).status().state == "done"
        assert not here.run(trial(1)).locked()
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert number > 30


def test_a_killed_import_of_many_trials_keeps_those_that_entered(tmp_path: Path) -> None:
    there, here = RunStore(tmp_path / "there"), RunStore(tmp_path / "here")
    for seed in range(40):
        add_trial(there, seed)
    export(there, tmp_path / "a.tar.gz")

    child = _FORK.Process(target=lambda: list(import_archive(here, tmp_path / "a.tar.gz")))
    child.start()
    while child.is_alive() and len(here.trial_ids()) < 5:
        pass
    child.kill()
    child.join()
    entered = len(here.trial_ids())
    assert 5 <= entered < 40
    assert _valid(here)
    found = [each.outcome for each in import_archive(here, tmp_path / "a.tar.gz")]
    assert (found.count("same"), found.count("new")) == (entered, 40 - entered)
    assert tree(here, ignore=AWAY) == tree(there)


def test_gc_killed_anywhere_leaves_a_valid_store(
    there: RunStore, tmp_path: Path, fast: None
) -> None:
    for number in count(1):
        here = RunStore(tmp_path / f"here{number}")
        add_sweep(here, "s", [1])
        add_trial(here, 1, saved=[2, 4, 6])
        add_trial(here, 2, saved=[6])
        code = _killed_at(number, lambda here=here: list(collect(here)))
        assert _valid(here), number
        list(collect(here))
        assert here.trial_ids() == [trial(1)]
        left = [path.name for path in here.run(trial(1)).checkpoints.iterdir()]
        assert left == ["step_000006"]
        if code == 0:
            break
    assert number > 10


@pytest.mark.parametrize("size", [100, 250, 400, 700, 1250])
def test_a_full_disk_stops_an_import_in_one_line_and_loses_nothing(
    there: RunStore, tmp_path: Path, size: int
) -> None:
    here = RunStore(tmp_path / "here")
    add_trial(here, 1, last=3, state="running")

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        list(import_archive(here, tmp_path / "a.tar"))

    code, line = _in_child(limited)
    assert code == 1
    assert line.startswith("LabError: cannot write to ")
    assert "File too large" in line
    assert "\n" not in line
    assert _valid(here)
    assert not list(here.root.glob("_drafts"))
    list(import_archive(here, tmp_path / "a.tar"))
    assert tree(here, ignore=AWAY) == tree(there)


def test_a_full_disk_stops_an_export_and_leaves_no_archive(there: RunStore, tmp_path: Path) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
        export(there, tmp_path / "b.tar")

    code, line = _in_child(limited)
    assert (code, line.partition(" /")[0]) == (1, "LabError: cannot write")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", "there"]


def test_a_store_on_a_read_only_disk_can_be_looked_at_and_exported(
    there: RunStore, tmp_path: Path
) -> None:
    add_trial(there, 3, last=2, state="running")
    plain = tmp_path / "plain.tar"
    export(there, plain)

    def look() -> None:
        _mount_read_only(there.root)
        assert _valid(there)
        assert [waste.path.name for waste in find_waste(there)] == [trial(3)]
        export(there, tmp_path / "b.tar")
        for act in (
            lambda: list(collect(there)),
            lambda: list(import_archive(there, tmp_path / "a.tar")),
        ):
            with pytest.raises(LabError, match=r"cannot write to .*Read-only file system"):
                act()

    code, line = _in_child(look)
    if code == 77:
        pytest.skip("mounting is not allowed here")
    assert code == 0, line
    assert plain.read_bytes() == (tmp_path / "b.tar").read_bytes()


def _mount_read_only(folder: Path) -> None:
    """Mount ``folder`` over itself, read-only, for this process alone; exit code 77 if denied."""
    new_namespace = 0x00020000
    if ctypes.CDLL(None).unshare(new_namespace):
        os._exit(77)
    for words in (
        ["mount", "--make-rprivate", "/"],
        ["mount", "--bind", folder, folder],
        ["mount", "-o", "remount,ro,bind", folder],
    ):
        if subprocess.run(words, capture_output=True).returncode:
            os._exit(77)
