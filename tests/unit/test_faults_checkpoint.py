"""Damaged checkpoints are set aside; training from the one before gives the same bits."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cegppo_lab.compose import resolve
from cegppo_lab.execute import attempt
from cegppo_lab.files import WriteError
from cegppo_lab.metrics import is_volatile
from cegppo_lab.store import RunStore, checkpoints
from cegppo_lab.trainers.embedded.checkpoint import load_newest, save_checkpoint
from cegppo_lab.trainers.embedded.optimizer import MasterAdamW
from cegppo_lab.trainers.embedded.policy import Policy
from cegppo_lab.trainers.embedded.update import make_optimizer
from cegppo_lab.trial import Trial, make_trial

BROKEN_OFF_AFTER = 5  # of six steps; checkpoints are at 2 and 4


def _numbers(store: RunStore, trial: Trial) -> tuple[list[Any], list[Any], dict[str, str]]:
    run = store.run(trial.trial_id)
    assert run.status().state == "done"
    steps = [
        (row.step, {k: v for k, v in row.metrics.items() if not is_volatile(k)})
        for row in run.steps()
    ]
    evals = [(row.step, row.benchmark, row.problem, row.correct) for row in run.evals()]
    hashes = json.loads((run.checkpoints / "step_000006/state.json").read_text())["sha256"]
    return steps, evals, hashes


@pytest.fixture(scope="module")
def trial(tiny: dict[str, Any]) -> Trial:
    return make_trial(resolve({**tiny, "seed": 3, "trainer.eval_every": 2}))


@pytest.fixture(scope="module")
def broken_off(trial: Trial, tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    store = RunStore(tmp_path_factory.mktemp("broken_off"))
    records = attempt(store, trial)
    while next(records).step < BROKEN_OFF_AFTER:
        pass
    records.close()
    return store


@pytest.fixture(scope="module")
def uninterrupted(trial: Trial, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    store = RunStore(tmp_path_factory.mktemp("uninterrupted"))
    list(attempt(store, trial))
    return _numbers(store, trial)


@pytest.fixture
def store(broken_off: RunStore, tmp_path: Path) -> RunStore:
    shutil.copytree(broken_off.root, tmp_path / "runs")
    return RunStore(tmp_path / "runs")


def _halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-7] ^= 1
    path.write_bytes(bytes(data))


DAMAGES: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "cut weights": (_halve, "policy/model.safetensors", "is cut short"),
    "one bit of the weights": (_flip, "policy/model.safetensors", "another SHA-256"),
    "one bit of the moments": (_flip, "optimizer.safetensors", "another SHA-256"),
    "no tokenizer": (Path.unlink, "policy/tokenizer.json", "is missing"),
    "no state": (Path.unlink, "state.json", "is missing"),
    "cut state": (_halve, "state.json", "state.json says step None"),
    "no checkpoint": (lambda path: shutil.rmtree(path.parent), "state.json", ""),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_costs_steps_and_changes_no_number(
    store: RunStore,
    trial: Trial,
    uninterrupted: tuple,
    damage: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    harm, name, told = DAMAGES[damage]
    run = store.run(trial.trial_id)
    harm(run.checkpoints / "step_000004" / name)
    with caplog.at_level(logging.WARNING):
        list(attempt(store, trial))
    assert _numbers(store, trial) == uninterrupted
    assert [entry["resumed_from"] for entry in run.provenance()] == [0, 2]
    warnings = [record.getMessage() for record in caplog.records if "set aside" in record.msg]
    if told:
        (warning,) = warnings
        assert told in warning
        assert "step_000004.broken" in warning
        assert (run.checkpoints / "step_000004.broken").is_dir()
    else:
        assert not warnings
    assert [path.name for path in checkpoints.found(run.checkpoints)] == ["step_000006"]


def test_with_no_whole_checkpoint_left_training_starts_again(
    store: RunStore, trial: Trial, uninterrupted: tuple
) -> None:
    run = store.run(trial.trial_id)
    for checkpoint in checkpoints.found(run.checkpoints):
        _flip(checkpoint / "optimizer.safetensors")
    list(attempt(store, trial))
    assert _numbers(store, trial) == uninterrupted
    assert [entry["resumed_from"] for entry in run.provenance()] == [0, 0]


@pytest.fixture
def parts(trial: Trial) -> tuple[Policy, MasterAdamW]:
    policy = Policy.load("table_walk", head_scale=40.0)
    return policy, make_optimizer(policy, trial.config)


def test_every_file_but_the_state_has_its_hash_and_damage_to_any_is_seen(
    parts: tuple[Policy, MasterAdamW], tmp_path: Path
) -> None:
    save_checkpoint(tmp_path, 2, *parts, keep=1)
    (folder,) = checkpoints.found(tmp_path)
    files = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    hashed = set(json.loads((folder / "state.json").read_text())["sha256"])
    assert hashed == files - {"state.json"}
    assert checkpoints.flaw(folder) is None
    for name in files:
        whole = (folder / name).read_bytes()
        _halve(folder / name)
        assert checkpoints.flaw(folder), name
        (folder / name).write_bytes(whole)
    assert checkpoints.flaw(folder) is None


def test_a_checkpoint_from_before_the_hashes_is_taken_if_its_headers_fit(
    parts: tuple[Policy, MasterAdamW], tmp_path: Path
) -> None:
    for step in (2, 4):
        save_checkpoint(tmp_path, step, *parts, keep=2)
        (tmp_path / f"step_00000{step}/state.json").write_text(f'{{"step": {step}}}\n')
    assert load_newest(tmp_path, *parts) == 4
    _halve(tmp_path / "step_000004/optimizer.safetensors")
    assert load_newest(tmp_path, *parts) == 2


def test_names_of_what_was_set_aside_do_not_clash(
    parts: tuple[Policy, MasterAdamW], tmp_path: Path
) -> None:
    for _ in range(3):
        save_checkpoint(tmp_path, 2, *parts, keep=1)
        _halve(tmp_path / "step_000002/state.json")
        assert load_newest(tmp_path, *parts) == 0
    names = ["step_000002.broken", "step_000002.broken1", "step_000002.broken2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert [path.name for path in checkpoints.set_aside(tmp_path)] == names
    shutil.rmtree(tmp_path / names[0])
    assert checkpoints.aside(tmp_path / "step_000002").name == names[0]  # and not one that is taken


@pytest.mark.parametrize("failing", ["os.fsync", "os.replace"])
def test_a_checkpoint_that_the_disk_does_not_take_leaves_the_one_before_and_no_draft(
    parts: tuple[Policy, MasterAdamW],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failing: str,
) -> None:
    save_checkpoint(tmp_path, 2, *parts, keep=1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(failing, full)
        with pytest.raises(WriteError, match="No space left on device"):
            save_checkpoint(tmp_path, 4, *parts, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step_000002"]
    assert load_newest(tmp_path, *parts) == 2
