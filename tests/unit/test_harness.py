"""lm-evaluation-harness on our policy: its numbers, its samples, and what is refused in time."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner

from cegppo_lab.cli import cli
from cegppo_lab.errors import LabError
from cegppo_lab.evaluate.policies import PolicySpec
from cegppo_lab.harness import HarnessSettings, Score, check_tasks, run_harness, scores, table
from cegppo_lab.store import RunStore
from cegppo_lab.tasks import make_task
from cegppo_lab.trainers.embedded.policy import Policy

_SPEC = PolicySpec("table_walk", "table_walk", "table_walk", chat_template=False)
_TOKENS = 12


def test_without_lm_eval_one_is_told_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(LabError, match=r"pip install 'cegppo-lab\[harness\]'"):
        run_harness(_SPEC, HarnessSettings(("ifeval",)), RunStore("nowhere"))


def test_scores_keep_what_lm_eval_says_of_their_error() -> None:
    row = {"alias": "t", "sample_len": 3, "acc,none": 0.5, "acc_stderr,none": 0.25}
    row |= {"f1,strict": 1, "f1_stderr,strict": "N/A"}
    results = {"results": {"t": row}, "n-samples": {"t": {"original": 9, "effective": 3}}}
    found = scores(results)
    assert found == [Score("t", "acc", 0.5, 0.25, 3), Score("t", "f1", 1.0, None, 3)]
    head, first, second = table(found).splitlines()
    assert head.split()[:3] == ["task", "metric", "value"]
    assert first.split() == ["t", "acc", "0.5000", "0.2500", "3"]
    assert second.split() == ["t", "f1", "1.0000", "not", "given", "3"]


def test_two_policies_are_one_too_many(tmp_path: Path) -> None:
    words = ["harness", "sweep:none", "--task", "ifeval", "--store", str(tmp_path)]
    assert isinstance(CliRunner().invoke(cli, words).exception, LabError)


@pytest.fixture(scope="module")
def lm_eval():
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
    return pytest.importorskip("lm_eval", reason="lm-eval is not installed (extra: harness)")


@pytest.fixture(scope="module")
def walks(lm_eval, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of lm-eval tasks over four walks, of which the greedy policy is to fail one."""
    folder = tmp_path_factory.mktemp("tasks")
    prompts = [problem.prompt for problem in make_task("table_walk").heldout()[:4]]
    texts = (
        Policy.load("table_walk", chat_template=False)
        .generate(
            prompts,
            repeats=1,
            max_new_tokens=_TOKENS,
            temperature=0,
            uniforms=torch.zeros(4, _TOKENS),
        )
        .texts
    )
    rows = [
        {"prompt": p, "answer": text if i else f"{text} more", "first": text.split()[0]}
        for i, (p, text) in enumerate(zip(prompts, texts, strict=True))
    ]
    data = folder / "walks.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {
        "task": "walks",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": [], "do_sample": False, "max_gen_toks": _TOKENS},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }
    first = {**task, "task": "first", "doc_to_target": "{{first}}"}
    first["generation_kwargs"] = {**task["generation_kwargs"], "until": [" ", "never"]}
    every = {**task, "task": "every", "filter_list": [_keep_all()]}
    likely = {**task, "task": "likely", "output_type": "multiple_choice", "doc_to_choice": ["a"]}
    beams = {**task, "task": "beams"}
    beams["generation_kwargs"] = {**task["generation_kwargs"], "num_beams": 4}
    code = {**task, "task": "code", "unsafe_code": True}
    gone = {**task, "task": "gone", "dataset_path": "nobody/nowhere", "dataset_kwargs": {}}
    for tree in (task, first, every, likely, beams, code, gone):
        (folder / f"{tree['task']}.yaml").write_text(yaml.safe_dump(tree))
    return folder


def _keep_all() -> dict[str, object]:
    return {
        "name": "majority",
        "filter": [{"function": "majority_vote"}, {"function": "take_first"}],
    }


def _run(walks: Path, store: Path, *tasks: str, **options: object):
    settings = HarnessSettings(tasks, str(walks), **options)
    rows, path = run_harness(_SPEC, settings, RunStore(store))
    return rows, path, json.loads(path.with_name("samples.json").read_text())


def test_lm_eval_scores_the_greedy_policy(walks: Path, tmp_path: Path) -> None:
    rows, path, samples = _run(walks, tmp_path, "walks", "first", batch_size=3)
    by_task = {row.task: row for row in rows}
    assert by_task["walks"].value == 0.75
    assert by_task["walks"].stderr == pytest.approx(0.25)  # of 1, 1, 1, 0: sqrt(3/16 / 3)
    assert by_task["walks"].problems == 4
    assert by_task["first"].value == 1.0  # cut at the first blank
    assert path.is_relative_to(tmp_path / "_evaluations" / "harness")
    assert json.loads(path.read_text())["results"]["results"]["walks"]["exact_match,none"] == 0.75
    assert len(samples["walks"]) == 4


def test_samples_depend_on_seed_problem_and_number_alone(walks: Path, tmp_path: Path) -> None:
    def drawn(**options: object) -> list[list[str]]:
        options = {"samples": 3, "temperature": 1.5, "top_p": 1.0, **options}
        kept = _run(walks, tmp_path, "every", **options)[2]["every"]
        rows = [(row["doc_id"], row["resps"][0]) for row in kept]
        return [responses for _, responses in sorted(rows)]

    once = drawn(batch_size=2)
    assert [len(responses) for responses in once] == [3, 3, 3, 3]
    assert any(len(set(responses)) > 1 for responses in once)
    assert drawn(batch_size=16) == once
    assert drawn(limit=2) == once[:2]
    assert drawn(seed=1) != once


def test_what_cannot_be_served_is_told_before_the_policy_is_loaded(
    walks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Policy, "load", None)
    for task, options, told in (
        ("likely", {}, "what needs log-likelihoods is not served"),
        ("code", {}, "--run-generated-code"),
        ("walks", {"samples": 2}, "scores only the first response"),
    ):
        with pytest.raises(LabError) as refusal:
            _run(walks, tmp_path, task, **options)
        assert told in str(refusal.value)
        assert "\n" not in str(refusal.value)
    assert "HF_ALLOW_CODE_EVAL" not in os.environ


def test_lm_eval_has_humaneval_and_ifeval_and_not_what_the_help_says_it_lacks(walks: Path) -> None:
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(walks))
    check_tasks(manager, HarnessSettings(("ifeval",)))
    check_tasks(manager, HarnessSettings(("humaneval",), samples=4, run_generated_code=True))
    for task, told in (
        ("humaneval", "--run-generated-code"),
        ("ifbench", "has no task 'ifbench'"),
        ("livecodebench", "has no task 'livecodebench'"),
        ("walsk", "has no task 'walsk'. Did you mean 'walks'"),
    ):
        with pytest.raises(LabError, match=told):
            check_tasks(manager, HarnessSettings((task,)))


def test_options_room_and_templates_that_are_not_there(walks: Path, tmp_path: Path) -> None:
    with pytest.raises(LabError, match="asks for num_beams"):
        _run(walks, tmp_path, "beams")
    with pytest.raises(LabError, match=r"say --max-tokens \d+"):
        _run(walks, tmp_path, "walks", max_tokens=10**6)
    with pytest.raises(LabError, match=r"cannot load gone: .*nowhere"):
        _run(walks, tmp_path, "gone")
    assert list(tmp_path.rglob("results.json")) == []


def test_a_chat_template_is_applied_once(walks: Path, tmp_path: Path) -> None:
    """The shipped policy's template is the prompt itself: the same scores either way."""
    settings = HarnessSettings(("walks",), str(walks))
    plain, _ = run_harness(_SPEC, settings, RunStore(tmp_path))
    templated, _ = run_harness(replace(_SPEC, chat_template=True), settings, RunStore(tmp_path))
    assert templated == plain


def test_the_command_prints_the_scores(walks: Path, tmp_path: Path) -> None:
    words = ["harness", "table_walk", "--task", "walks", "--tasks-from", str(walks)]
    done = CliRunner().invoke(cli, [*words, "--store", str(tmp_path)], catch_exceptions=False)
    assert done.exit_code == 0
    assert "walks  exact_match  0.7500  0.2500" in done.output
