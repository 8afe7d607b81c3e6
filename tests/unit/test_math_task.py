"""The math task: any file of problems and answers, split by hash, rewarded by the boxed answer."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pandas as pd
import pytest
import yaml
from huggingface_hub import errors

from cegppo_lab.errors import LabError
from cegppo_lab.resources import shipped
from cegppo_lab.tasks import make_task
from tests.unit.math_files import ROWS, math_task, write_lines

_RNG = np.random.default_rng(0)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "train.jsonl"


def test_all_formats_and_any_order_give_the_same_problems(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl")
    write_lines(tmp_path / "shuffled.jsonl", ROWS[::-1])
    write_lines(tmp_path / "hub.json")
    (tmp_path / "array.json").write_text(json.dumps(ROWS, indent=1))
    numbers = [{**row, "answer": int(row["answer"])} for row in ROWS]
    pd.DataFrame(ROWS).to_csv(tmp_path / "a.csv", index=False)
    pd.DataFrame(numbers).to_parquet(tmp_path / "a.parquet")
    tasks = [make_task("math", path=str(path), heldout_problems=8) for path in tmp_path.iterdir()]
    assert len(tasks) == 6
    problems = [(task.training(), task.heldout()) for task in tasks]
    assert all(found == problems[0] for found in problems)
    training, held = problems[0]
    assert (len(training), len(held)) == (32, 8)
    assert {p.prompt.split("\n")[0] for p in training + held} == {r["problem"] for r in ROWS}
    assert len({task.data_hash() for task in tasks}) == 5  # two files are equal but for the name


def test_the_split_goes_by_the_hash_of_the_problem(file: Path) -> None:
    digests = sorted(hashlib.sha256(row["problem"].encode()).hexdigest() for row in ROWS)
    task = math_task(file)
    assert [problem.id for problem in task.heldout()] == [f"math/{d[:16]}" for d in digests[:8]]
    assert [problem.id for problem in task.training()] == [f"math/{d[:16]}" for d in digests[8:]]
    half = math_task(file, heldout_problems=0.5)
    expected = [digest for digest in digests if digest < "8"]
    assert [problem.id for problem in half.heldout()] == [f"math/{d[:16]}" for d in expected]
    assert math_task(file, limit=3).training() == task.training()[:3]


def test_sampling_follows_the_generator_and_leaves_out_the_held_out(file: Path) -> None:
    task = math_task(file)
    one, again, other = (task.sample(500, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one == again != other
    assert set(one) == set(task.training())
    assert set(one).isdisjoint(task.heldout())


def test_problems_of_a_held_out_file_are_not_trained_on(file: Path, tmp_path: Path) -> None:
    extra = {"problem": "What is one?", "answer": "1"}
    held = write_lines(tmp_path / "held.jsonl", [ROWS[3], ROWS[5], extra])
    task = math_task(file, heldout_path=held, heldout_problems=1.0)
    assert len(task.heldout()) == 3
    assert len(task.training()) == 38
    assert set(task.heldout()).isdisjoint(task.training())
    assert task.data_hash() != math_task(file).data_hash()


def test_a_benchmark_is_all_held_out(file: Path) -> None:
    task = math_task(file, heldout_problems=1.0)
    assert len(task.heldout()) == 40
    for draw in (task.training, task.training_count, lambda: task.sample(1, _RNG)):
        with pytest.raises(LabError, match=r"of 40 problems .* none is left as a training problem"):
            draw()
    with pytest.raises(LabError, match="none is left as a training problem"):
        math_task(file, heldout_problems=40).heldout()  # a count: meant to leave some


def test_votes_are_for_the_tidied_last_box(file: Path) -> None:
    task = math_task(file)
    problem = task.heldout()[0]

    def said(text: str) -> str | None:
        return task.answer(problem, text)

    assert (
        said(r"\boxed{1} so \boxed{\dfrac{1}{2}}")
        == said(r"\boxed{ \frac 1 2 }.")
        == r"\frac{1}{2}"
    )
    assert said(r"\boxed{\boxed{7}}") == "7"
    for empty in ("", "7", r"\boxed{", r"\boxed{}", rf"\boxed{{{'1' * 2001}}}", "{" * 10**6):
        assert said(empty) is None


def test_rewards_are_verdicts_on_the_boxed_answer(file: Path) -> None:
    task = math_task(file)
    problems = task.training()[:6]
    right = [rf"Hm. $\boxed{{\frac{{{2 * int(p.answer)}}}{{2}}}}$" for p in problems]
    texts = right[:3] + [p.answer for p in problems[3:5]] + [r"\boxed{1000}"]
    assert task.rewards(problems, texts) == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    assert [task.reward(*pair) for pair in zip(problems, texts, strict=True)] == [1.0] * 3 + [0] * 3
    with pytest.raises(ValueError, match="zip"):
        task.rewards(problems, texts[:-1])


def test_data_are_read_late_and_once(file: Path) -> None:
    task = math_task(file)
    file.write_text(file.read_text().replace("What", "Say what"))
    first = task.heldout()
    assert first[0].prompt.startswith("Say what")
    file.unlink()
    assert task.heldout() == first
    assert task == make_task("math", **task.model_dump())


def test_the_data_hash_is_that_of_the_files(file: Path) -> None:
    task = math_task(file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert task.data_hash() == digest
    assert len(math_task(file, sha256=digest).heldout()) == 8
    stated = make_task("math", path="some/where", sha256="0" * 64)
    assert stated.data_hash() == "0" * 64  # a plan needs no data
    with pytest.raises(LabError, match=f"task.sha256: theirs is {digest}"):
        math_task(file, sha256="0" * 64).heldout()


def test_a_text_that_occurs_twice_counts_once(file: Path) -> None:
    twice = [*ROWS, {**ROWS[0], "answer": "17"}]
    task = make_task("math", path=write_lines(file, twice), heldout_problems=8)
    assert len(task.training() + task.heldout()) == 40
    assert "17" not in {problem.answer for problem in task.training() + task.heldout()}


def test_the_template_takes_any_braces(file: Path) -> None:
    task = math_task(file, prompt_template="{problem} {x} \\boxed{}")
    assert task.heldout()[0].prompt.endswith("? {x} \\boxed{}")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "is empty"),
        ("\n\n", "has no rows"),
        ('{"problem": "a", "answer": "b"}\n{"problem": \n', "line 2 is no JSON"),
        ('{"question": "a", "answer": "b"}', "line 1 has no field 'problem'.* answer, question"),
        ('{"problem": "a", "solution": "b"}', "task.answer_field to one of: problem, solution"),
        ('{"problem": "a", "answer": ""}', "line 1: answer is empty"),
        ('{"problem": "a", "answer": null}', "line 1: answer holds no text but None"),
        ('{"problem": "a", "answer": ["b"]}', "line 1: answer holds no text"),
        ('["a", "b"]', "line 1: expected an object"),
        ('{"problem": "a", "answer": "b"}', "none is left as a training problem"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(file: Path, content: str, told: str) -> None:
    file.write_text(content)
    with pytest.raises(LabError, match=told) as error:
        make_task("math", path=str(file)).heldout()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.parquet", b"PAR0"), ("a.csv", b'a,b\n"'), ("a.jsonl", b"\xff\xfe"), ("a.json", b"[{]")],
)
def test_a_broken_file_is_told(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(LabError, match=name):
        make_task("math", path=str(tmp_path / name)).heldout()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, r"task.path is empty"),
        ({"path": "nowhere.jsonl"}, r"nowhere.jsonl.*no such file"),
        ({"path": "README.md"}, r"kind of data file|no such file"),
        ({"heldout_problems": 0}, r"heldout_problems=0: must be a count"),
        ({"heldout_problems": 1.5}, r"heldout_problems=1.5: must be a count"),
        ({"heldout_problems": True}, r"heldout_problems=True: must be a count"),
        ({"prompt_template": "?"}, r"prompt_template='\?': must contain {problem}"),
        ({"sha256": "abc"}, r"task.sha256='abc'"),
    ],
)
def test_wrong_options_are_told(options: dict[str, Any], told: str) -> None:
    with pytest.raises(LabError, match=told):
        make_task("math", **options).heldout()


def test_a_folder_needs_one_file_or_a_choice(tmp_path: Path) -> None:
    write_lines(tmp_path / "one.jsonl", ROWS[:20])
    assert len(make_task("math", path=str(tmp_path), heldout_problems=5).training()) == 15
    write_lines(tmp_path / "two.jsonl", ROWS[20:])
    with pytest.raises(LabError, match=r"one.jsonl, two.jsonl. Choose with task.file"):
        make_task("math", path=str(tmp_path)).heldout()
    with pytest.raises(LabError, match=r"Did you mean 'one.jsonl'"):
        make_task("math", path=str(tmp_path), file="on.jsonl").heldout()
    both = make_task("math", path=str(tmp_path), file="*.jsonl", heldout_problems=5)
    assert len(both.training()) == 35


def _hub_error(kind: type[Exception]) -> Exception:
    error = kind.__new__(kind)
    Exception.__init__(error, "a long\nstory")
    return error


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (errors.GatedRepoError, "is gated: accept its terms"),
        (errors.RepositoryNotFoundError, "no dataset 'some/set'"),
        (errors.RevisionNotFoundError, "no revision 'v9'"),
        (errors.LocalEntryNotFoundError, "hub cannot be reached; set task.path to a local"),
        (ConnectionError, "hub cannot be reached; set task.path to a local"),
    ],
)
def test_a_hub_data_set_that_cannot_be_had_is_told(
    monkeypatch: pytest.MonkeyPatch, kind: type[Exception], told: str
) -> None:
    def download(*_: Any, **__: Any) -> str:
        raise _hub_error(kind)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(LabError, match=told) as error:
        make_task("math", path="some/set", revision="v9").heldout()
    assert "\n" not in str(error.value)


def test_the_preset_of_the_papers_data_reads_rows_of_their_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = yaml.safe_load((shipped("conf") / "task" / "klear_math.yaml").read_text())
    assert set(preset) == {"name", *type(make_task("math")).model_fields}
    asked: dict[str, Any] = {}

    def download(path: str, **options: Any) -> str:
        asked.update(options, path=path)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    rows = [
        {
            "data_source": "math_longcot_math_verify",
            "prompt": [{"content": f"Let $n={n}$. Double it.", "role": "user"}],
            "reward_model": {"ground_truth": str(2 * n), "style": "rule"},
        }
        for n in range(200)
    ]
    write_lines(tmp_path / "train_math_30K.json", rows)
    task = make_task(**{**preset, "sha256": None})
    assert (len(task.training()), len(task.heldout())) == (72, 128)
    assert task.heldout()[0].prompt.startswith("Let $n=")
    assert asked["path"] == "Kwai-Klear/KlearReasoner-MathSub-30K"
    assert (asked["revision"], asked["repo_type"]) == (preset["revision"], "dataset")
    assert make_task(**preset).data_hash() == preset["sha256"]
