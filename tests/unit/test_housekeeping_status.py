"""status, and what the housekeeping commands print and exit with."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cegppo_lab.cli import cli
from cegppo_lab.errors import LabError
from cegppo_lab.housekeeping.status import disk_of_store, status
from cegppo_lab.store import RunStore
from tests.unit.housekeeping_store import add_sweep, add_trial, tree, trial


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    made = RunStore(tmp_path / "runs")
    add_sweep(made, "s", [1, 2, 3, 4, 5, 6])
    add_sweep(made, "t", [1])
    add_trial(made, 1, saved=[6])
    add_trial(made, 2, last=4, state="failed", reason="RuntimeError: out of\nluck")
    add_trial(made, 3, last=2, state="stopped", reason="loss is nan")
    add_trial(made, 4, last=2, state="running")
    add_trial(made, 5)
    (made.root / trial(5) / "status.json").write_text("{")
    add_trial(made, 9)
    return made


def _call(store: RunStore, *words: str) -> Result:
    return CliRunner().invoke(cli, [*words, "--store", str(store.root)])


def test_trials_are_counted_by_what_they_are_at(store: RunStore) -> None:
    with store.writer(trial(6), {}):
        first, second, loose = status(store)
    assert first.states == {
        **{"done": 1, "failed": 1, "interrupted": 1, "running": 1, "stopped": 1},
        "unreadable": 1,
    }
    assert (second.name, second.states) == ("t", {"done": 1})
    assert (loose.name, [each.trial_id for each in loose.trials]) == (None, [trial(9)])
    by_id = {each.trial_id: each for each in first.trials}
    assert by_id[trial(2)].reason == "RuntimeError: out of\nluck"
    assert (by_id[trial(2)].step, by_id[trial(2)].steps, by_id[trial(2)].arm) == (4, 6, "GRPO")
    assert [sweep.name for sweep in status(store, ["t"])] == ["t"]
    with pytest.raises(LabError, match="unknown sweep 'u'"):
        status(store, ["u"])


def test_a_trial_that_was_never_begun_is_pending(store: RunStore) -> None:
    (sweep,) = status(store, ["s"])
    assert sweep.states["pending"] == 1
    assert sweep.trials[5].changed is None
    assert not (store.root / trial(6)).exists()


def test_bytes_are_counted_by_kind_and_each_file_once(store: RunStore) -> None:
    folder = store.root / trial(1)
    (folder / "verl" / "prompts").mkdir(parents=True)
    (folder / "verl" / "prompts" / "train.parquet").write_bytes(b"x" * 5000)
    (store.root / "_evaluations" / "e").mkdir(parents=True)
    (store.root / "_evaluations" / "e" / "samples.jsonl").write_bytes(b"x" * 70)
    disk = disk_of_store(store)
    assert sum(disk.values()) == sum(len(data) for data in tree(store).values())
    assert (disk["verl"], disk["evaluations"]) == (5000, 70)
    checkpoint = sum(len(d) for name, d in tree(store).items() if "/checkpoints/" in name)
    assert disk["checkpoints"] == checkpoint
    rows = sum(len(d) for name, d in tree(store).items() if name.endswith(".jsonl")) - 70
    assert disk["rows"] == rows
    (sweep,) = status(store, ["t"])
    assert sweep.disk["verl"] == 5000
    assert time.time() - sweep.changed < 60


def test_status_prints_a_line_a_sweep_and_one_a_trial_with_something_to_tell(
    store: RunStore,
) -> None:
    lines = _call(store, "status").output.splitlines()
    assert lines[0].startswith("s: 6 trials: 1 done, 1 failed, 1 interrupted, 1 pending, 1 stopped")
    assert f"  {trial(2)}  GRPO seed 2  failed at step 4 of 6: RuntimeError: out of" in lines
    assert f"  {trial(3)}  GRPO seed 3  stopped at step 2 of 6: loss is nan" in lines
    assert len([line for line in lines if line.startswith("  ")]) == 4
    assert "(in no sweep): 1 trials: 1 done" in "\n".join(lines)
    assert lines[-1].startswith(f"{store.root}: ")
    shown = json.loads(_call(store, "status", "t", "--json").output)
    assert shown["sweeps"][0]["trials"][0]["trial_id"] == trial(1)
    assert set(shown) == {"store", "disk", "sweeps"}


def test_verify_tells_and_exits_with_one(store: RunStore) -> None:
    result = _call(store, "verify")
    assert result.exit_code == 1
    broken = [line for line in result.output.splitlines() if line.startswith("broken: ")]
    assert len(broken) == 1
    assert trial(5) in broken[0]
    assert "; type: mv " in broken[0]
    assert result.output.splitlines()[-1].endswith(": 6 trials, 2 sweeps: 1 broken")
    (store.root / trial(5) / "status.json").unlink()
    again = _call(store, "verify", "--json")
    assert again.exit_code == 0
    assert all(finding["harmless"] for finding in json.loads(again.output))


def test_gc_deletes_only_with_yes(store: RunStore) -> None:
    result = _call(store, "gc")
    assert result.exit_code == 0
    assert str(store.root / trial(9)) in result.output
    assert result.output.splitlines()[-1].endswith("type the same with --yes")
    assert (store.root / trial(9)).is_dir()
    result = _call(store, "gc", "--yes", "--checkpoints")
    assert "needs training" in result.output
    assert "last checkpoint of a finished trial" in result.output
    assert not (store.root / trial(9)).exists()
    assert _call(store, "gc").output.splitlines() == ["would delete: 0 bytes"]


def test_export_and_import_tell_how_each_trial_fared(store: RunStore, tmp_path: Path) -> None:
    file, here = tmp_path / "a.tar.gz", RunStore(tmp_path / "here")
    result = _call(store, "export", str(file))
    assert result.exit_code == 1
    assert f"left out: {trial(5)}: " in result.output
    result = _call(here, "import", str(file))
    assert (result.exit_code, result.output) == (0, f"{here.root}: 5 new\n")
    add_trial(here, 9, started=7.0)
    result = _call(here, "import", str(file))
    assert result.exit_code == 1
    assert f"refused: {trial(9)} was trained otherwise here" in result.output
    assert result.output.splitlines()[-1] == f"{here.root}: 1 refused, 4 same"


@pytest.mark.parametrize("words", [["status"], ["verify"], ["gc"], ["export", "a.tar"]])
def test_a_store_that_is_not_there_is_a_mistake(tmp_path: Path, words: list[str]) -> None:
    result = _call(RunStore(tmp_path / "nothing"), *words)
    assert isinstance(result.exception, LabError)
    assert "there is no store at" in str(result.exception)
    assert not (tmp_path / "nothing").exists()
