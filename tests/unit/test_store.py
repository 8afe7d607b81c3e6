"""The run store: what survives a kill, what is never written twice, who may write."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cegppo_lab.errors import LabError
from cegppo_lab.files import read_json, read_lines, write_json
from cegppo_lab.store import EvalRecord, RunStore, StepRecord

HOLD = """
import sys, time
from cegppo_lab.store import RunStore
with RunStore(sys.argv[1]).writer("trial", {}):
    print("held", flush=True)
    time.sleep(120)
"""


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs")


def _record(step: int, value: float, *evals: EvalRecord) -> StepRecord:
    return StepRecord(step, {"actor/entropy": value}, list(evals))


def _evaluation(step: int, benchmark: str = "b") -> EvalRecord:
    return EvalRecord(step, benchmark, ["p", "q"], [0, 0], [1.0, 0.0])


def _write(store: RunStore, *records: StepRecord) -> None:
    with store.writer("trial", {"seed": 1}) as run:
        for record in records:
            run.append(record)


def _values(store: RunStore) -> list[tuple[int, float]]:
    return [(row.step, row.metrics["actor/entropy"]) for row in store.run("trial").steps()]


def test_what_was_written_is_read_back(store: RunStore) -> None:
    _write(store, _record(0, 0.0, _evaluation(0)), _record(1, 0.1, _evaluation(1)))
    run = store.run("trial")
    assert run.config() == {"seed": 1}
    assert _values(store) == [(1, 0.1)]  # step 0 is an evaluation only
    assert [(e.step, e.problem, e.correct) for e in run.evals()] == [
        (0, ["p", "q"], [1.0, 0.0]),
        (1, ["p", "q"], [1.0, 0.0]),
    ]
    assert store.trial_ids() == ["trial"]


@pytest.mark.parametrize("torn", [b'{"step":2,"time":1.0,"metr', b'{"step":2}', b"\xff\x00"])
def test_a_torn_last_line_is_dropped_by_readers_and_cut_by_the_next_writer(
    store: RunStore, torn: bytes
) -> None:
    _write(store, _record(1, 0.1, _evaluation(1)))
    for name in ("steps.jsonl", "evals.jsonl"):
        with open(store.root / "trial" / name, "ab") as file:
            file.write(torn)
    assert _values(store) == [(1, 0.1)]
    assert len(store.run("trial").evals()) == 1
    _write(store, _record(2, 0.2, _evaluation(2)))
    assert _values(store) == [(1, 0.1), (2, 0.2)]
    assert [each.step for each in store.run("trial").evals()] == [1, 2]


def test_a_step_or_an_evaluation_is_not_repeated(store: RunStore) -> None:
    _write(store, _record(1, 0.1, _evaluation(1)), _record(1, 7.0, _evaluation(1)))
    _write(store, _record(1, 8.0, _evaluation(1), _evaluation(1, "other")), _record(2, 0.2))
    assert _values(store) == [(1, 0.1), (2, 0.2)]
    assert [each.benchmark for each in store.run("trial").evals()] == ["b", "other"]


def test_evaluations_are_on_disk_before_their_step_is(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    run = store.run("trial")
    monkeypatch.setattr("os.fsync", lambda _: seen.append((len(run.evals()), len(run.steps()))))
    _write(store, _record(1, 0.1, _evaluation(1)))
    assert seen[-2:] == [(1, 0), (1, 1)]


def test_numbers_that_are_not_finite_survive(store: RunStore) -> None:
    _write(store, _record(1, float("nan")), _record(2, float("inf")))
    (_, first), (_, second) = _values(store)
    assert first != first
    assert second == float("inf")


def test_one_writer_at_a_time_over_processes_and_a_killed_one_frees_the_trial(
    store: RunStore,
) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(store.root)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        assert store.run("trial").locked()
        with pytest.raises(LabError, match="another process"), store.writer("trial", {}):
            pass
        with store.writer("other", {}):
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert not store.run("trial").locked()
    _write(store, _record(1, 0.1))
    assert _values(store) == [(1, 0.1)]


def test_asking_whether_a_trial_is_locked_never_turns_a_writer_away(store: RunStore) -> None:
    _write(store)
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            store.run("trial").locked()

    readers = [threading.Thread(target=ask) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for _ in range(50):
            _write(store)
    finally:
        stop.set()
        for reader in readers:
            reader.join()


def test_a_writer_that_cannot_open_frees_the_trial(store: RunStore) -> None:
    _write(store, _record(1, 0.1))
    steps = store.root / "trial" / "steps.jsonl"
    good = steps.read_bytes()
    steps.write_bytes(b"not json\n" + good)
    for _ in range(2):
        with pytest.raises(LabError, match=r"steps.jsonl: line 1 is not valid JSON") as caught:
            _write(store, _record(2, 0.2))
        assert not store.run("trial").locked(), caught
    steps.write_bytes(good)
    _write(store, _record(2, 0.2))
    assert _values(store) == [(1, 0.1), (2, 0.2)]


def test_json_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "deep" / "file.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": [2, 3, object()]})
    assert read_json(path) == {"a": 1}

    def killed(*_: object) -> None:
        assert read_json(path) == {"a": 1}
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_json(path, {"a": 2})
    assert read_json(path) == {"a": 1}


@pytest.mark.parametrize("content", [b'{"state": "do', b"", b"\xff\xfe"])
def test_json_that_cannot_be_read_is_told_with_its_path(store: RunStore, content: bytes) -> None:
    _write(store)
    (store.root / "trial" / "status.json").write_bytes(content)
    with pytest.raises(LabError, match=r"trial/status.json is not valid JSON"):
        store.run("trial").status()


@pytest.mark.parametrize("read", [read_json, lambda path: list(read_lines(path))])
def test_a_file_that_cannot_be_read_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[Path], object]
) -> None:
    path = tmp_path / "status.json"
    path.mkdir()  # as root, no permission is missing
    with pytest.raises(LabError, match=r"cannot read .*status.json: Is a directory; mend"):
        read(path)

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", denied)
    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(LabError, match=r"cannot read .*status.json: Permission denied; mend"):
        read(path)


def test_a_store_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(LabError, match="a file is where a folder should be"):
        RunStore(tmp_path / "runs").run("trial").status()


def test_manifests_have_names_of_folders_and_are_no_trials(store: RunStore) -> None:
    for name in ("quickstart", "paper/algorithms", "v1.2", "config"):
        store.write_manifest({"name": name, "trials": [name]})
    assert store.manifests() == ["config", "paper/algorithms", "quickstart", "v1.2"]
    assert store.manifest("paper/algorithms")["trials"] == ["paper/algorithms"]
    assert store.trial_ids() == []
    with pytest.raises(LabError, match=r"no sweep 'quick' .*there: config, .*sweep quick$"):
        store.manifest("quick")


def test_an_attempt_is_added_to_those_before(store: RunStore) -> None:
    for resumed_from in (0, 4):
        with store.writer("trial", {}) as run:
            run.add_provenance({"resumed_from": resumed_from})
    assert [entry["resumed_from"] for entry in store.run("trial").provenance()] == [0, 4]


def test_the_first_configuration_stays(store: RunStore) -> None:
    _write(store)
    with store.writer("trial", {"seed": 2}):
        pass
    assert json.loads((store.root / "trial" / "config.json").read_text()) == {"seed": 1}
