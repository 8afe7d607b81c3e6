"""A real evaluation of the shipped policy, killed in the middle, and two of them at once."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pandas as pd
import pytest
from filelock import FileLock

from tests.e2e.lab import lab, start, wait_for

WALK = """
title: Table walk
source: the embedded task
task: {name: table_walk}
count: 12
samples: 32
temperature: 1.0
top_p: 1.0
max_tokens: 52
"""
WORDS = ["evaluate", "table_walk", "benchmarks=[walk.yaml]", "batch_size=32"]


def _folder(place: Path) -> Path:
    place.mkdir()
    (place / "walk.yaml").write_text(WALK)
    return place


def _evaluation(place: Path) -> Path | None:
    return next(iter((place / "runs" / "_evaluations").glob("[!_]*")), None)


def _batches(place: Path) -> int:
    folder = _evaluation(place)
    log = folder and folder / "samples.jsonl"
    return log.read_bytes().count(b"\n") if log and log.exists() else 0


def _table(place: Path) -> pd.DataFrame:
    return pd.read_parquet(_evaluation(place) / "samples.parquet")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the evaluation ran undisturbed."""
    place = _folder(tmp_path_factory.mktemp("evaluate") / "whole")
    lab(place, *WORDS)
    return place


def test_a_kill_and_a_rerun_give_the_same_table(whole: Path, tmp_path: Path) -> None:
    killed = _folder(tmp_path / "killed")
    process = start(killed, *WORDS)
    wait_for(lambda: _batches(killed) >= 3)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = _batches(killed)
    assert 3 <= done < 12
    assert not (_evaluation(killed) / "samples.parquet").exists()
    with open(_evaluation(killed) / "samples.jsonl", "a") as log:
        log.write('{"problem":["walk/')  # as a kill within a write leaves it

    printed = lab(killed, *WORDS)
    assert f"{32 * done}/384 responses" in printed
    pd.testing.assert_frame_equal(_table(killed), _table(whole), check_exact=True)
    names = ("samples.jsonl", "samples.parquet")
    for name in names:
        assert (_evaluation(killed) / name).read_bytes() == (_evaluation(whole) / name).read_bytes()
    accuracy = Path("report/evaluate/accuracy.csv")
    assert (killed / accuracy).read_bytes() == (whole / accuracy).read_bytes()


def test_two_at_once_write_nothing_twice(whole: Path, tmp_path: Path) -> None:
    place = _folder(tmp_path / "both")
    evaluation = place / _evaluation(whole).relative_to(whole)
    evaluation.mkdir(parents=True)
    with FileLock(evaluation / "lock"):
        both = [start(place, *WORDS) for _ in range(2)]
        wait_for(lambda: (place / "log").read_text().count("another process is at evaluation") == 2)
    assert [process.wait(120) for process in both] == [0, 0]
    for name in ("samples.jsonl", "samples.parquet"):
        assert (evaluation / name).read_bytes() == (_evaluation(whole) / name).read_bytes()
    assert len(_table(place)) == 384
    assert not _table(place).duplicated(["problem", "sample"]).any()
