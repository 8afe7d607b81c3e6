"""Which policies and benchmarks words mean, and what an evaluation's id depends on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from cegppo_lab.errors import LabError
from cegppo_lab.evaluate.plan import Evaluation, make_plan
from cegppo_lab.evaluate.policies import PolicySpec, find_policies
from cegppo_lab.evaluate.settings import read_settings
from cegppo_lab.files import sha256_of
from cegppo_lab.models import local_folder
from cegppo_lab.store import DONE, RunStore
from tests.unit.tiny_gguf import write_tiny_gguf

WALK = """
title: Table walk
source: the embedded task
task: {name: table_walk}
count: 12
samples: 8
temperature: 1.0
top_p: 1.0
max_tokens: 52
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "walk.yaml").write_text(WALK)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _find(*words: str) -> list[PolicySpec]:
    return find_policies(words, RunStore("runs"), print)


def _plan(*words: str) -> list[Evaluation]:
    given = [word for word in words if "=" in word] or ["benchmarks=[walk.yaml]"]
    policies = [word for word in words if "=" not in word] or ["table_walk"]
    return make_plan(policies, read_settings(given), print).evaluations


def _id(*words: str) -> str:
    (evaluation,) = _plan("benchmarks=[walk.yaml]", *words)
    return evaluation.evaluation_id


def _trial(trial_id: str, steps: Sequence[int] = (), **config: Any) -> Path:
    """A finished trial with copies of the shipped policy as its checkpoints; the newest one."""
    content = {"task": {"name": "table_walk"}, "model": {"dtype": "float32"}, **config}
    with RunStore("runs").writer(trial_id, content) as run:
        run.set_status(DONE, step=64, steps=64)
    for step in steps:
        folder = Path("runs") / trial_id / "checkpoints" / f"step_{step:06d}"
        shutil.copytree(local_folder("table_walk"), folder / "policy")
        (folder / "state.json").write_text(json.dumps({"step": step}))
    return folder / "policy" if steps else Path("runs") / trial_id


def _manifest(name: str, **arms: str) -> None:
    trials = [{"trial_id": trial, "arm": arm, "seed": 1} for arm, trial in arms.items()]
    RunStore("runs").write_manifest({"name": name, "trials": trials})


def test_a_preset_comes_with_its_settings_and_its_task() -> None:
    (policy,) = _find("table_walk")
    assert (policy.path, policy.head_scale, policy.task) == ("table_walk", 40.0, "table_walk")
    (policy,) = _find("r1-distill-qwen-1.5b")
    assert (policy.dtype, policy.task) == ("bfloat16", None)


def test_a_folder_and_a_hub_id_are_taken_as_they_are(here: Path) -> None:
    shutil.copytree(local_folder("chain"), here / "mine")
    folder, hub = _find("./mine", "Qwen/Qwen3-0.6B")
    assert (folder.label, folder.path, folder.head_scale) == ("./mine", str(here / "mine"), 1.0)
    assert (hub.path, hub.task, hub.chat_template) == ("Qwen/Qwen3-0.6B", None, True)


def test_a_trial_is_its_newest_checkpoint() -> None:
    newest = _trial("abcdef012345", [8, 64])
    (policy,) = _find("abcdef")
    assert policy.path == str(newest)
    assert (policy.trial_id, policy.step, policy.head_scale) == ("abcdef012345", 64, 1.0)
    assert (policy.label, policy.task) == ("trial abcdef012345", "table_walk")
    assert policy.chat_template


def test_a_damaged_policy_is_passed_over_for_the_one_before_with_a_note() -> None:
    newest = _trial("abcdef012345", [8, 64])
    older, weights = newest.parents[1] / "step_000008" / "policy", "policy/model.safetensors"
    for folder in (older.parent, newest.parent):
        hashes = {weights: sha256_of(folder / weights)}
        state = {"step": int(folder.name[-6:]), "sha256": hashes}
        (folder / "state.json").write_text(json.dumps(state))
    (newest.parent / "optimizer.safetensors").write_bytes(b"cut")  # which no evaluation reads
    assert _find("abcdef")[0].path == str(newest)
    data = bytearray((newest.parent / weights).read_bytes())
    data[-7] ^= 1
    (newest.parent / weights).write_bytes(data)
    told: list[str] = []
    (policy,) = find_policies(["abcdef"], RunStore("runs"), told.append)
    assert (policy.path, policy.step) == (str(older), 8)
    (note,) = told
    assert "step_000064 is damaged and not used: policy/model.safetensors has another" in note
    assert newest.is_dir()  # an evaluation changes no trial
    (older / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(LabError, match="has no whole checkpoint"):
        find_policies(["abcdef"], RunStore("runs"), told.append)
    assert len(told) == 3


@pytest.mark.skipif(find_spec("gguf") is None, reason="needs the package gguf")
def test_a_gguf_file_is_planned_without_converting_it(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "cache"))
    write_tiny_gguf(here / "tiny.gguf")
    planned = _id("./tiny.gguf")
    assert not (here / "cache").exists()
    local_folder(here / "tiny.gguf")
    assert _id("./tiny.gguf") == planned  # the converted tokenizer has the same template
    write_tiny_gguf(here / "bare.gguf", template=None)
    with pytest.raises(LabError, match=r"bare.gguf' has no chat template; say chat_template=false"):
        _id("./bare.gguf")


def test_a_trial_from_before_templates_is_given_the_prompts_as_they_are() -> None:
    newest = _trial("abcdef012345", [8])
    (newest / "chat_template.jinja").unlink()
    assert not _find("abcdef")[0].chat_template


def test_verl_checkpoints_are_merged_first() -> None:
    actor = _trial("abcdef012345") / "checkpoints" / "global_step_10" / "actor"
    (actor / "huggingface").mkdir(parents=True)
    (actor.parents[1] / "global_step_9" / "actor").mkdir(parents=True)
    merge = rf"verl.model_merger merge --backend fsdp --local_dir {actor} --target_dir {actor}"
    with pytest.raises(LabError, match=merge):
        _find("abcdef")
    shutil.copytree(local_folder("table_walk"), actor / "huggingface", dirs_exist_ok=True)
    (policy,) = _find("abcdef")
    assert (policy.path, policy.step) == (str(actor / "huggingface"), 10)


def test_a_sweep_is_its_finished_trials() -> None:
    _trial("aaaa", [8])
    _trial("bbbb", [8])
    RunStore("runs").enter("cccc", {})
    _manifest("mine", GRPO="aaaa", DAPO="cccc", GSPO="bbbb")
    told: list[str] = []
    found = find_policies(["sweep:mine"], RunStore("runs"), told.append)
    assert [policy.label for policy in found] == ["GRPO seed 1", "GSPO seed 1"]
    assert told == ["1 of 3 trials of sweep 'mine' are not finished; left out"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["table_wlak"], "unknown policy 'table_wlak'. Did you mean 'table_walk'"),
        (["abcd"], "2 trials begin with 'abcd': abcd1, abcd2; give more of the id"),
        (["abcd2"], "trial abcd2 has no whole checkpoint in runs/abcd2/checkpoints; train it"),
        (["sweep:nothing"], "no sweep 'nothing' was run in runs"),
        (["sweep:begun"], "no trial of sweep 'begun' is finished"),
        (["table_walk", "chain", "table_walk"], "policy 'table_walk' is named twice"),
    ],
)
def test_a_mistaken_policy_is_told(words: list[str], told: str) -> None:
    _trial("abcd1", [8])
    _trial("abcd2")
    RunStore("runs").enter("eeee", {})
    _manifest("begun", GRPO="eeee")
    with pytest.raises(LabError) as error:
        _find(*words)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_neither_k_nor_problems_nor_places_change_the_id(here: Path) -> None:
    words = ["samples=2", "problems=3", "batch_size=5", "name=x", "runtime.store=elsewhere"]
    assert _id(*words) == _id()
    shutil.copytree(local_folder("table_walk"), here / "copy")
    (copied,) = _plan("./copy", "benchmarks=[walk.yaml]")
    (shipped,) = _plan("benchmarks=[walk.yaml]", "walk.title=Other")
    assert shipped.evaluation_id == _id()
    assert copied.evaluation_id != _id()  # the preset has a head scale, the folder has none
    assert copied.identity["policy"] == {**shipped.identity["policy"], "head_scale": 1.0}


@pytest.mark.parametrize(
    "change",
    [
        *("seed=1", "temperature=0.6", "top_p=0.9", "max_tokens=51", "dtype=bfloat16"),
        *("chat_template=false", "walk.name=other", "walk.task.words=19"),
    ],
)
def test_what_samples_or_verdicts_depend_on_changes_the_id(change: str) -> None:
    assert _id(change) != _id()


def test_a_word_for_one_benchmark_goes_over_the_word_for_all(here: Path) -> None:
    (here / "other.yaml").write_text(WALK)
    first, second = _plan("benchmarks=[walk.yaml,other.yaml]", "samples=4", "walk.samples=2")
    assert (first.benchmark.samples, second.benchmark.samples) == (2, 4)
    assert first.evaluation_id != second.evaluation_id


def test_a_part_of_a_benchmark_has_another_name() -> None:
    (part,) = _plan("benchmarks=[walk.yaml]", "problems=5")
    assert (part.wanted, len(part.problems), part.shown_name) == (5, 5, "walk_first_5")
    assert list(part.problems) == list(part.benchmark.problems[:5])
    (whole,) = _plan("benchmarks=[walk.yaml]", "problems=12")
    assert (whole.wanted, whole.shown_name) == (None, "walk")


def test_tiny_policies_and_their_trials_have_benchmarks_of_their_own() -> None:
    names = [evaluation.benchmark.name for evaluation in _plan("table_walk", "seed=0")]
    assert names
    assert all(name.startswith("table_walk") for name in names)
    _trial("abcdef012345", [8])
    assert [each.benchmark.name for each in _plan("abcdef", "seed=0")] == names
