"""gc: what no sweep needs goes, and only that; nothing without --yes; locks are respected."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from filelock import FileLock

from cegppo_lab.errors import LabError
from cegppo_lab.housekeeping.contents import size_of
from cegppo_lab.housekeeping.gc import DRAFT_AGE_S, collect, find_waste
from cegppo_lab.housekeeping.verify import verify
from cegppo_lab.store import RunStore, checkpoints
from tests.unit.housekeeping_store import add_checkpoint, add_sweep, add_trial, tree, trial

UNNAMED, FINISHED, STOPPED, RUNNING = 9, 1, 2, 3


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    made = RunStore(tmp_path / "runs")
    add_sweep(made, "s", [FINISHED, STOPPED, RUNNING, 4])
    add_trial(made, FINISHED, saved=[2, 4, 6])
    add_trial(made, STOPPED, last=4, state="stopped", saved=[2, 4])
    add_trial(made, RUNNING, last=4, state="running", saved=[2, 4])
    add_trial(made, UNNAMED, saved=[6])
    return made


def _at(store: RunStore, seed: int, *parts: str) -> Path:
    return store.root.joinpath(trial(seed), *parts)


def _checkpoint(store: RunStore, seed: int, step: int) -> Path:
    return _at(store, seed, "checkpoints", f"step_{step:06d}")


def _draft(path: Path, age_s: float = 0.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("half")
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def _aside(store: RunStore, seed: int, step: int) -> Path:
    """A damaged checkpoint, as training leaves it; one of that step is there again."""
    aside = checkpoints.aside(_checkpoint(store, seed, step))
    _checkpoint(store, seed, step).rename(aside)
    add_checkpoint(_at(store, seed), step)
    return aside


def test_what_no_sweep_needs_is_told_and_then_deleted(store: RunStore) -> None:
    expected = {
        _checkpoint(store, FINISHED, 2),
        _checkpoint(store, FINISHED, 4),
        _checkpoint(store, STOPPED, 2),
        _at(store, UNNAMED),
        _draft(_at(store, RUNNING, "checkpoints", ".step_000006.77.tmp")),
        _draft(_at(store, FINISHED, ".status.json.77.tmp")),
        _draft(store.root / "_sweeps" / ".s.json.77.tmp", 2 * DRAFT_AGE_S),
        _draft(store.root / "_evaluations" / "e" / ".samples.parquet.77.tmp", 2 * DRAFT_AGE_S),
        _draft(store.root / "_drafts" / "left"),
        _aside(store, RUNNING, 2),
        _aside(store, FINISHED, 6),
    }
    kept = {  # somebody may be writing these: no lock says who
        _draft(_at(store, 4, ".config.json.77.tmp")),
        _draft(store.root / "_sweeps" / ".t.json.78.tmp"),
    }
    bytes_ = {path: size_of(path) for path in expected}
    before = tree(store)
    told = list(find_waste(store))
    assert {waste.path: waste.bytes for waste in told} == bytes_
    assert len(told) == len(expected)
    assert tree(store) == before
    done = list(collect(store))
    assert sorted(map(str, done)) == sorted(map(str, told))
    gone = tuple(str(path.relative_to(store.root)) for path in expected)
    assert tree(store) == {k: v for k, v in before.items() if not k.startswith(gone)}
    assert all(path.exists() for path in kept)
    assert list(find_waste(store)) == []
    assert not [finding for finding in verify(store) if not finding.harmless]


def test_last_checkpoints_of_finished_trials_go_only_when_asked(store: RunStore) -> None:
    list(collect(store))
    last = {_checkpoint(store, FINISHED, 6), _checkpoint(store, STOPPED, 4)}
    assert {waste.path for waste in collect(store, last_checkpoints=True)} == last
    assert _checkpoint(store, RUNNING, 4).is_dir()
    assert _checkpoint(store, RUNNING, 2).is_dir()
    assert not any(path.exists() for path in last)


def test_verls_checkpoints_are_ordered_by_number(store: RunStore) -> None:
    for step in (9, 10, 100):
        _at(store, FINISHED, "checkpoints", f"global_step_{step}", "actor").mkdir(parents=True)
    list(collect(store))
    left = {path.name for path in _at(store, FINISHED, "checkpoints").iterdir()}
    assert left == {"global_step_100"}


def test_a_trial_in_training_is_left_alone_until_it_is_not(store: RunStore) -> None:
    add_checkpoint(_at(store, FINISHED), 5)
    paths = {_at(store, UNNAMED), *(_checkpoint(store, FINISHED, step) for step in (2, 4, 5))}
    with FileLock(_at(store, UNNAMED, "lock")), FileLock(_at(store, FINISHED, "lock")):
        assert not paths & {waste.path for waste in find_waste(store)}
        assert not paths & {waste.path for waste in collect(store)}
        assert all(path.exists() for path in paths)
    assert {waste.path for waste in collect(store)} == paths


def test_a_trial_that_a_sweep_asks_for_meanwhile_stays(store: RunStore) -> None:
    add_trial(store, 8)
    first, second = sorted((8, UNNAMED), key=trial)
    going = collect(store)
    for waste in going:
        if waste.path == _at(store, first):
            add_sweep(store, "late", [second])
            break
    assert _at(store, second) not in {waste.path for waste in going}
    assert _at(store, second).is_dir()


def test_a_manifest_that_cannot_be_read_stops_it(store: RunStore) -> None:
    path = store.root / "_sweeps" / "s.json"
    for text, told in (("{", "not valid JSON"), ('{"name": "s", "trials": 3}', "does not list")):
        path.write_text(text)
        before = tree(store)
        for act in (find_waste, collect):
            with pytest.raises(LabError, match=told):
                list(act(store))
        assert tree(store) == before


def test_a_status_that_cannot_be_read_keeps_its_checkpoints(store: RunStore) -> None:
    _at(store, FINISHED, "status.json").write_text("{")
    assert not any(trial(FINISHED) in str(waste.path) for waste in find_waste(store))


def test_two_at_once_do_not_meet(store: RunStore) -> None:
    going = collect(store)
    next(going)
    with pytest.raises(LabError, match="another gc or import is at work"):
        list(collect(store))
    going.close()
    assert list(collect(store))
