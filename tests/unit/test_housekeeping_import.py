"""import: what enters, what is completed, what is refused; nothing that is there is overwritten."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from filelock import FileLock

from cegppo_lab.errors import LabError
from cegppo_lab.housekeeping import archive as archives
from cegppo_lab.housekeeping import arrival
from cegppo_lab.housekeeping.arrival import import_archive
from cegppo_lab.housekeeping.export import export
from cegppo_lab.housekeeping.verify import verify
from cegppo_lab.store import EvalRecord, RunStore, StepRecord
from tests.unit.housekeeping_store import (
    add_checkpoint,
    add_sweep,
    add_trial,
    final_row,
    tree,
    trial,
    write_rows,
)

AWAY = ["origin.json"]


@pytest.fixture
def there(tmp_path: Path) -> RunStore:
    """The store that is exported."""
    made = RunStore(tmp_path / "there")
    add_sweep(made, "s", [1, 2])
    add_trial(made, 1, saved=[6])
    add_trial(made, 2, saved=[6])
    return made


@pytest.fixture
def here(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "here")


def _carry(there: RunStore, here: RunStore, *names: str, **options: object) -> dict[str, str]:
    """Export ``there``, import it ``here``; outcome (and what was told) by trial."""
    file = there.root.parent / "a.tar.gz"
    file.unlink(missing_ok=True)
    export(there, file, names, checkpoints=bool(options.pop("checkpoints", False)))
    found = {a.trial_id: f"{a.outcome} {a.told}" for a in import_archive(here, file, **options)}
    assert [each for each in verify(here) if not each.harmless] == []
    assert not list(here.root.glob("_drafts/*"))
    return found


def _outcomes(found: dict[str, str]) -> set[str]:
    return {each.partition(" ")[0] for each in found.values()}


def test_runs_arrive_whole_with_their_origin_and_a_second_import_changes_nothing(
    there: RunStore, here: RunStore
) -> None:
    assert _outcomes(_carry(there, here, checkpoints=True)) == {"new"}
    assert tree(here, ignore=AWAY) == tree(there)
    for seed in (1, 2):
        steps = [here.root / trial(seed) / "steps.jsonl", there.root / trial(seed) / "steps.jsonl"]
        assert int(steps[0].stat().st_mtime) == int(steps[1].stat().st_mtime)
        (entry,) = json.loads((here.root / trial(seed) / "origin.json").read_text())
        assert entry["archive"] == "a.tar.gz"
        assert set(entry) == {"archive", "archive_sha256", "host", "imported"}
    before = tree(here)
    assert _outcomes(_carry(there, here, checkpoints=True)) == {"same"}
    assert tree(here) == before


def test_origins_add_up_over_machines(there: RunStore, here: RunStore, tmp_path: Path) -> None:
    third = RunStore(tmp_path / "third")
    _carry(there, here)
    _carry(here, third)
    entries = json.loads((third.root / trial(1) / "origin.json").read_text())
    assert len(entries) == 2
    assert entries[0] == json.loads((here.root / trial(1) / "origin.json").read_text())[0]
    assert tree(third, ignore=AWAY) == tree(here, ignore=AWAY)


def test_a_trial_whose_rows_are_a_beginning_is_completed(there: RunStore, here: RunStore) -> None:
    folder = add_trial(here, 1, last=3, state="failed", reason="out of luck", saved=[2])
    with open(folder / "steps.jsonl", "a") as file:
        file.write('{"step": 4, "to')  # torn
    found = _carry(there, here, checkpoints=True)
    assert found[trial(1)] == "completed steps 3 to 6"
    run = here.run(trial(1))
    assert (run.status().state, run.status().reason, run.status().step) == ("done", "", 6)
    mine, theirs = tree(here, ignore=AWAY), tree(there)
    assert mine.items() >= theirs.items()
    extra = {name for name in mine if name not in theirs}
    assert {name.split("/")[2] for name in extra} == {"step_000002"}
    assert len(json.loads((folder / "origin.json").read_text())) == 1
    assert _outcomes(_carry(there, here, checkpoints=True)) == {"same"}


def test_a_completed_trial_is_resumed_as_if_it_were_its_own(
    there: RunStore, here: RunStore
) -> None:
    add_trial(there, 3, last=4, state="running", saved=[4])
    add_trial(here, 3, last=2, state="running", saved=[2])
    _carry(there, here, trial(3), checkpoints=True)
    with here.writer(trial(3), {}) as run:
        for step in (4, 5):
            evals = [EvalRecord(step, "b", ["p"], [0], [1.0])]
            run.append(StepRecord(step, {"actor/entropy": 0.5}, evals))
    assert [row.step for row in here.run(trial(3)).steps()] == [1, 2, 3, 4, 5]
    assert [row.step for row in here.run(trial(3)).evals()] == [0, 2, 4, 5]


def test_one_that_is_further_here_stays(there: RunStore, here: RunStore) -> None:
    add_trial(there, 1, last=4, state="running", saved=[4])
    add_trial(here, 1)
    before = tree(here)
    found = _carry(there, here, trial(1), checkpoints=True)
    assert _outcomes(found) == {"behind"}
    assert tree(here) == before


@pytest.mark.parametrize("last", [6, 3])
def test_one_that_was_trained_otherwise_here_is_refused_by_name(
    there: RunStore, here: RunStore, last: int
) -> None:
    add_trial(here, 1, started=777.0, last=last, state="done" if last == 6 else "running")
    write_rows(there.root / trial(1) / "evaluations.jsonl", [final_row(6)])
    before = tree(here)
    found = _carry(there, here, checkpoints=True)
    assert found[trial(1)].startswith("refused was trained otherwise here")
    assert found[trial(2)].startswith("new")
    after = tree(here)
    assert {name: data for name, data in after.items() if trial(1) in name} == before
    assert here.manifests() == ["s"]


def test_rows_that_disagree_on_who_is_further_are_refused(there: RunStore, here: RunStore) -> None:
    folder = add_trial(here, 1, last=3, state="running")
    theirs = there.root / trial(1) / "tokens.jsonl"
    lines = theirs.read_bytes().splitlines(keepends=True)
    (folder / "tokens.jsonl").write_bytes(b"".join(lines[:4]))
    theirs.write_bytes(b"".join(lines[:3]))
    assert _carry(there, here)[trial(1)].startswith("refused was trained otherwise")


def test_a_trial_in_training_here_is_refused(there: RunStore, here: RunStore) -> None:
    folder = add_trial(here, 1, last=3, state="running")
    before = tree(here)
    with FileLock(folder / "lock"):
        found = _carry(there, here)
    assert found[trial(1)].startswith("refused is in training here")
    assert {n: d for n, d in tree(here).items() if trial(1) in n} == before
    assert _carry(there, here)[trial(1)].startswith("completed")


def test_a_trial_here_that_cannot_be_read_is_refused_and_the_rest_arrives(
    there: RunStore, here: RunStore
) -> None:
    folder = add_trial(here, 1, last=3)
    (folder / "status.json").write_text("{")
    file = there.root.parent / "a.tar"
    export(there, file)
    found = {a.trial_id: a for a in import_archive(here, file)}
    assert found[trial(1)].outcome == "refused"
    assert "status.json is not valid JSON" in found[trial(1)].told
    assert found[trial(2)].outcome == "new"


def test_a_folder_that_holds_only_a_lock_is_filled(there: RunStore, here: RunStore) -> None:
    (here.root / trial(1)).mkdir(parents=True)
    (here.root / trial(1) / "lock").touch()
    assert _carry(there, here)[trial(1)] == "completed steps 0 to 6"
    assert tree(here, ignore=AWAY).items() <= tree(there).items()
    assert here.run(trial(1)).status().state == "done"


def test_checkpoints_can_follow_later(there: RunStore, here: RunStore) -> None:
    _carry(there, here)
    assert not here.run(trial(1)).checkpoints.exists()
    assert _outcomes(_carry(there, here, checkpoints=True)) == {"completed"}
    assert tree(here, ignore=AWAY) == tree(there)


def test_verls_files_come_with_its_checkpoints(there: RunStore, here: RunStore) -> None:
    for store, step in ((there, 4), (here, 2)):
        folder = add_trial(store, 3, last=step, state="running")
        (folder / "checkpoints" / f"global_step_{step}" / "actor").mkdir(parents=True)
        (folder / "checkpoints" / f"global_step_{step}" / "actor" / "w.bin").touch()
        (folder / "checkpoints" / "latest_checkpointed_iteration.txt").write_text(str(step))
        write_rows(folder / "verl" / "attempts" / "attempt_0.jsonl", [{"step": step}])
    _carry(there, here, trial(3), checkpoints=True)
    mine = here.root / trial(3)
    assert (mine / "checkpoints" / "latest_checkpointed_iteration.txt").read_text() == "4"
    assert json.loads((mine / "verl/attempts/attempt_0.jsonl").read_text()) == {"step": 4}
    names = {path.name for path in (mine / "checkpoints").iterdir()}
    assert names >= {"global_step_2", "global_step_4"}


def test_final_evaluations_of_both_sides_are_kept(there: RunStore, here: RunStore) -> None:
    add_trial(here, 1, last=3, state="running")
    other = {**final_row(2), "evaluation": "e2"}
    write_rows(here.root / trial(1) / "evaluations.jsonl", [other, final_row(6, 1)])
    write_rows(there.root / trial(1) / "evaluations.jsonl", [final_row(6, 1), final_row(6, 4)])
    _carry(there, here)
    found = {(e.evaluation, len(e.problem)) for e in here.run(trial(1)).evaluations()}
    assert found == {("e2", 2), ("e1", 4)}
    assert _outcomes(_carry(there, here)) == {"same"}


def test_a_sweep_of_the_same_name_and_trials_is_the_same(there: RunStore, here: RunStore) -> None:
    add_sweep(here, "s", [2, 1])
    before = tree(here)
    _carry(there, here)
    assert tree(here).items() >= before.items()


def test_a_sweep_with_other_trials_needs_another_name(there: RunStore, here: RunStore) -> None:
    add_sweep(here, "s", [1, 5])
    before = tree(here)
    with pytest.raises(LabError, match=r"sweep 's' of the archive has other trials .* --as NAME"):
        _carry(there, here)
    assert tree(here) == before
    _carry(there, here, as_name="theirs/s")
    assert here.manifests() == ["s", "theirs/s"]
    assert here.manifest("theirs/s")["name"] == "theirs/s"
    assert here.manifest("s") == json.loads(before["_sweeps/s.json"])


@pytest.mark.parametrize("name", ["a b", "../x", "a/b/c", "train", ""])
def test_a_bad_name_is_refused(there: RunStore, here: RunStore, name: str) -> None:
    with pytest.raises(LabError, match="not a sweep's name"):
        _carry(there, here, as_name=name)
    assert not here.root.exists()


def test_a_name_for_two_sweeps_is_refused(there: RunStore, here: RunStore) -> None:
    add_sweep(there, "t", [1])
    with pytest.raises(LabError, match=r"has 2 sweeps \(s, t\); export one alone"):
        _carry(there, here, as_name="x")


def test_single_runs_join_those_that_are_here(there: RunStore, here: RunStore) -> None:
    add_sweep(there, "train", [1, 2])
    add_trial(here, 4)
    add_trial(here, 2)
    add_sweep(here, "train", [4, 2])
    _carry(there, here, "train")
    joined = here.manifest("train")
    assert [row["trial_id"] for row in joined["trials"]] == [trial(4), trial(2), trial(1)]
    assert joined["arms"][0]["algorithm"] == "grpo"
    before = tree(here)
    _carry(there, here, "train")
    assert tree(here) == before


def test_an_archive_that_changes_while_it_is_read_is_not_believed(
    there: RunStore, here: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, check = tmp_path / "a.tar", arrival.check_archive
    export(there, file, checkpoints=True)
    good = file.read_bytes()
    last = max(trial(1), trial(2)).encode() + b"/steps.jsonl"
    at = good.index(b"actor/entropy", good.index(last))

    def check_then_change(path: Path) -> archives.Listing:
        found = check(path)
        path.write_bytes(good[:at] + b"critic" + good[at + 6 :])
        return found

    monkeypatch.setattr(arrival, "check_archive", check_then_change)
    with pytest.raises(LabError, match="was changed while it was read"):
        list(import_archive(here, file))
    assert here.trial_ids() == [min(trial(1), trial(2))]
    assert here.manifests() == []
    file.write_bytes(good)
    monkeypatch.undo()
    list(import_archive(here, file))
    assert tree(here, ignore=AWAY) == tree(there)


def test_room_is_asked_for_before_anything_is_written(
    there: RunStore, here: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Disk", (), {"free": 1000}))
    with pytest.raises(LabError, match=r"and .* has 1,000 left"):
        _carry(there, here)
    assert tree(here) == {}


def test_a_newer_format_is_told(
    there: RunStore, here: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(there, there.root.parent / "b.tar")
    monkeypatch.setattr(archives, "FORMAT", 2)
    with pytest.raises(LabError, match="update cegppo-lab"):
        list(import_archive(here, there.root.parent / "b.tar"))


def test_a_checkpoint_that_is_broken_in_the_archive_is_refused(
    there: RunStore, here: RunStore
) -> None:
    checkpoint = add_checkpoint(there.root / trial(1), 4)
    (checkpoint / "optimizer.safetensors").write_bytes(b"half")
    found = _carry(there, here, checkpoints=True)
    assert found[trial(1)].startswith("refused is broken in the archive: step_000004: optimizer")
    assert here.trial_ids() == [trial(2)]
