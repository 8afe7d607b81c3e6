"""verify: what is broken is told, what a kill leaves is a note, and nothing is changed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cegppo_lab.compose import resolve
from cegppo_lab.errors import LabError
from cegppo_lab.execute import attempt
from cegppo_lab.housekeeping.verify import Finding, verify
from cegppo_lab.store import RunStore
from cegppo_lab.trial import content_id, make_trial
from tests.unit.housekeeping_store import (
    add_checkpoint,
    add_sweep,
    add_trial,
    config,
    final_row,
    tree,
    trial,
    write_rows,
)


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    made = RunStore(tmp_path / "runs")
    add_sweep(made, "s", [1, 2])
    add_trial(made, 1, saved=[6])
    add_trial(made, 2, saved=[6])
    return made


def _broken(store: RunStore) -> list[Finding]:
    return [finding for finding in verify(store) if not finding.harmless]


def _edit(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    path.write_text("".join(change(path.read_text().splitlines(keepends=True))))


def _set(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


NEWEST = "checkpoints/step_000006"
DAMAGE: list[tuple[Callable[[Path], object], str]] = [
    (lambda t: _edit(t / "steps.jsonl", lambda r: r[:2] + r[3:]), "line 3 has step 4, not 3"),
    (lambda t: _edit(t / "steps.jsonl", lambda r: r[:3] + r[2:]), "line 4 repeats step 3"),
    (lambda t: _edit(t / "steps.jsonl", lambda r: r[:3]), "says step 6, but steps.jsonl ends at 3"),
    (
        lambda t: _edit(t / "steps.jsonl", lambda r: [r[0], r[1][:9] + "\n", *r[2:]]),
        "line 2 is not",
    ),
    (lambda t: _edit(t / "steps.jsonl", lambda r: ["[1]\n", *r]), "line 1 is no row"),
    (
        lambda t: _edit(t / "steps.jsonl", lambda r: [*r, r[0].replace("1", "7", 1)]),
        "has 7 of 6 steps",
    ),
    (
        lambda t: _edit(t / "evals.jsonl", lambda r: [r[0].replace('"q"', '"q","r"')]),
        "3 problem, 2",
    ),
    (
        lambda t: _edit(t / "evals.jsonl", lambda r: [*r, r[-1]]),
        "evals.jsonl line 5 repeats step 6",
    ),
    (lambda t: _edit(t / "evals.jsonl", lambda r: [r[0].replace('"b"', "[]")]), "'benchmark' that"),
    (
        lambda t: write_rows(t / "evaluations.jsonl", [{"step": 1}]),
        "evaluations.jsonl line 1 has no",
    ),
    (
        lambda t: _edit(t / "tokens.jsonl", lambda r: [r[0].replace("[1]", "[]", 1)]),
        "0 probability",
    ),
    (
        lambda t: _edit(t / "tokens.jsonl", lambda r: [r[0].replace('"step":1', '"step":9')]),
        "step 9",
    ),
    (lambda t: _set(t / "config.json", seed=5), f"config.json is of trial {trial(5)}"),
    (lambda t: _halve(t / "config.json"), "config.json is not valid JSON"),
    (lambda t: _halve(t / "status.json"), "status.json is not valid JSON"),
    (lambda t: _set(t / "status.json", state="dnoe"), "unknown state 'dnoe'"),
    (lambda t: _set(t / "status.json", more=1), "a file cannot be read"),
    (lambda t: _set(t / "status.json", step="6"), "no whole numbers"),
    (lambda t: _set(t / "status.json", step=5), "is done, but has 6 of 6 steps"),
    (lambda t: _set(t / "status.json", steps=9), "says 9 steps, config.json 6"),
    (lambda t: (t / "provenance.json").write_text("{}"), "no list of entries"),
    (lambda t: _halve(t / NEWEST / "policy/model.safetensors"), "policy/model.safetensors is cut"),
    (lambda t: _halve(t / NEWEST / "optimizer.safetensors"), "optimizer.safetensors is cut"),
    (lambda t: (t / NEWEST / "optimizer.safetensors").write_bytes(b""), "optimizer.safetensors is"),
    (lambda t: (t / NEWEST / "optimizer.safetensors").unlink(), "optimizer.safetensors is missing"),
    (lambda t: (t / NEWEST / "policy/model.safetensors").unlink(), "policy/ has no weights"),
    (lambda t: add_checkpoint(t, 4, state=3), "state.json says step 3"),
    (lambda t: (t / "config.json").unlink(), "has rows or a status, but no config.json"),
]


@pytest.mark.parametrize(("damage", "told"), DAMAGE, ids=[told for _, told in DAMAGE])
def test_damage_to_a_trial_is_told_once_with_what_to_type(
    store: RunStore, damage: Callable[[Path], object], told: str
) -> None:
    assert list(verify(store)) == []
    damage(store.root / trial(1))
    before = tree(store)
    (finding,) = _broken(store)
    assert told in finding.told
    assert trial(1) in finding.where
    assert "\n" not in finding.told
    assert finding.mend.startswith(("mv ", "rm -r "))
    assert tree(store) == before


def test_a_verl_checkpoint_is_checked_and_one_that_verl_dropped_is_none(store: RunStore) -> None:
    torch = pytest.importorskip("torch")
    folder = store.root / trial(1) / "checkpoints"
    for step in (2, 4):
        (folder / f"global_step_{step}" / "actor").mkdir(parents=True)
        torch.save({"a": torch.ones(99)}, folder / f"global_step_{step}" / "actor" / "model.pt")
    (folder / "global_step_1").mkdir()
    assert _broken(store) == []
    _halve(folder / "global_step_2" / "actor" / "model.pt")
    assert [(f.where.split()[1], f.told) for f in _broken(store)] == [
        ("global_step_2", "actor/model.pt is cut short or damaged")
    ]


def test_an_index_names_weights_that_must_be_there(store: RunStore) -> None:
    policy = store.root / trial(1) / NEWEST / "policy"
    index = {"weight_map": {"w": "model.safetensors", "v": "model-2.safetensors"}}
    (policy / "model.safetensors.index.json").write_text(json.dumps(index))
    assert ["names model-2.safetensors, which is missing" in f.told for f in _broken(store)] == [
        True
    ]


def test_what_a_kill_leaves_is_a_note(store: RunStore) -> None:
    add_sweep(store, "s", [1, 2, 3, 4])
    folder = add_trial(store, 3, last=4, state="running")
    with open(folder / "steps.jsonl", "a") as file:
        file.write('{"step": 5, "ti')
    # A resumed run counts up again from its checkpoint: its rows are ahead of its status.
    _set(folder / "status.json", step=3)
    (folder / "checkpoints" / ".step_000006.77.tmp").mkdir(parents=True)
    (folder / "checkpoints" / "step_000004.broken1").mkdir()
    (folder / ".status.json.77.tmp").touch()
    (store.root / "_sweeps" / ".s.json.77.tmp").touch()
    (store.root / "empty").mkdir()
    findings = list(verify(store))
    assert all(finding.harmless for finding in findings), findings
    told = "\n".join(f"{finding.where} {finding.told}" for finding in findings)
    for text in (
        "sweep s 1 of 4 trials have no folder",
        "steps.jsonl ends in a torn line",
        "interrupted at step 3 of 6",
        "checkpoints/.step_000006.77.tmp was never finished",
        ".status.json.77.tmp was never finished",
        "_sweeps/.s.json.77.tmp was never finished",
        "empty is a folder without a trial",
        "step_000004.broken1 was set aside by training",
    ):
        assert text in told, told
    assert len(findings) == 8


def test_a_trial_in_training_is_judged_by_what_holds_at_any_instant(store: RunStore) -> None:
    folder = add_trial(store, 3, last=4, state="running")
    (folder / ".status.json.77.tmp").touch()
    with open(folder / "evals.jsonl", "a") as file:
        file.write('{"step": 5, "ti')
    with store.writer(trial(3), {}):
        with open(folder / "evals.jsonl", "a") as file:
            file.write('{"step": 5, "ti')
        assert list(verify(store)) == []
    assert len(list(verify(store))) == 3


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "not valid JSON"),
        ('{"name": "t", "trials": []}', "of sweep 't'"),
        ('{"name": "s"}', "does not list trials"),
        ('{"name": "s", "trials": [{"trial_id": 1, "arm": "a", "seed": 1}]}', "does not list"),
    ],
)
def test_a_broken_manifest_is_told(store: RunStore, text: str, told: str) -> None:
    (store.root / "_sweeps" / "s.json").write_text(text)
    (finding,) = verify(store)
    assert (finding.where, finding.harmless) == ("sweep s", False)
    assert told in finding.told


def test_final_evaluations_with_more_samples_are_no_repetition(store: RunStore) -> None:
    path = store.root / trial(1) / "evaluations.jsonl"
    write_rows(path, [final_row(6, 2), final_row(6, 4)])
    assert list(verify(store)) == []
    write_rows(path, [final_row(6, 2), final_row(6, 2)])
    assert "repeats step 6" in _broken(store)[0].told


def test_ids_are_those_of_the_trainer_and_what_it_leaves_is_whole(
    tmp_path: Path, tiny: dict[str, object]
) -> None:
    schedule = {"algorithm": "cegppo", "algorithm.beta1": {0: 0.0, 2: 0.1, 10: 0.5}}
    made = make_trial(resolve({**tiny, **schedule, "trainer.steps": 2}))
    store = RunStore(tmp_path)
    list(attempt(store, made))
    assert content_id(store.run(made.trial_id).config()) == made.trial_id
    assert list(verify(store)) == []
    (newest,) = store.run(made.trial_id).checkpoints.iterdir()
    _halve(newest / "policy" / "model.safetensors")
    assert "policy/model.safetensors is cut short" in _broken(store)[0].told


def test_no_store_is_told(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="there is no store at"):
        list(verify(RunStore(tmp_path / "nothing")))


class _Opened:
    """Counts files opened and folders listed, while ``on``; an audit hook stays for good."""

    def __init__(self) -> None:
        self.on, self.count = False, 0
        sys.addaudithook(self)

    def __call__(self, event: str, _: object) -> None:
        self.count += self.on and event in ("open", "os.scandir", "os.listdir")

    def by_verify(self, store: RunStore) -> int:
        self.on, self.count = True, 0
        try:
            assert list(verify(store)) == []
        finally:
            self.on = False
        return self.count


def test_the_work_grows_with_the_number_of_trials(store: RunStore) -> None:
    model, opened, work = store.root / trial(1), _Opened(), {}
    for seed in range(3, 2001):
        copy = store.root / trial(seed)
        copy.mkdir()
        (copy / "config.json").write_text(json.dumps(config(seed)))
        for name in ("status.json", "steps.jsonl"):
            os.link(model / name, copy / name)
        if seed in (100, 200, 2000):
            work[seed] = opened.by_verify(store)
    each = (work[200] - work[100]) / 100
    assert work[2000] - work[200] == 1800 * each
    assert each < 25
