"""Benchmarks: the definitions that ship, and problems that are the pinned ones or are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants, errors

from analysis.published import published_benchmark, published_table
from cegppo_lab.benchmark import Benchmark, benchmark_files, content_hash, load_benchmark
from cegppo_lab.errors import LabError
from cegppo_lab.tasks import Problem

# The paper, evaluation set-up: avg@k, tokens of a response; and how many problems there are.
PAPER = {
    "aime24": (32, 32768, 30),
    "aime25": (32, 32768, 30),
    "hmmt25": (32, 16384, 30),
    "math500": (4, 16384, 500),
    "amc23": (32, 16384, 40),
}
ROWS = [{"problem": f"What  is {n}\n+ {n}?", "answer": str(2 * n)} for n in range(30)]


def _lines(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def file(tmp_path: Path) -> str:
    return _lines(tmp_path / "mine.jsonl", ROWS)


def _mine(file: str, **changes: Any) -> Benchmark:
    """AIME24 with the 30 problems of ``file``; ``a__b`` stands for ``a.b``."""
    keys = {key.replace("__", "."): value for key, value in changes.items()}
    return load_benchmark("aime24", {"task.path": file, "content_sha256": None, **keys})


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_benchmarks_are_pinned_and_sampled_as_in_the_paper(name: str) -> None:
    benchmark = load_benchmark(name)
    found = (benchmark.samples, benchmark.max_tokens, benchmark.count)
    assert found == PAPER[name]
    assert (benchmark.temperature, benchmark.top_p) == (0.6, 0.95)
    task = benchmark.task
    assert len(task.revision) == 40
    assert benchmark.fingerprint() == benchmark.content_sha256[0]  # nothing is read for it
    assert r"\boxed{}" in task.prompt_template


@pytest.mark.parametrize("name", PAPER)
def test_results_stand_beside_the_papers_column(name: str) -> None:
    title = load_benchmark(name).title
    assert published_benchmark(name) == title
    assert title in set(published_table(1)["benchmark"])


def test_every_definition_that_ships_loads() -> None:
    for name in benchmark_files():
        assert load_benchmark(name).name == name


def test_problems_of_a_local_file_take_the_place_of_the_hubs(file: str) -> None:
    benchmark = _mine(file)
    assert len(benchmark.problems) == 30
    assert len({problem.id for problem in benchmark.problems}) == 30
    for problem in benchmark.problems:
        assert problem.id.startswith("aime24/")
        assert problem.prompt.startswith(problem.question + "\n\nPlease reason step by step")
    answers = {problem.question: problem.answer for problem in benchmark.problems}
    assert answers == {row["problem"]: row["answer"] for row in ROWS}
    assert benchmark.fingerprint() == content_hash(benchmark.problems)


def test_fields_may_have_other_names(file: str, tmp_path: Path) -> None:
    nested = [
        {"prompt": [{"content": row["problem"]}], "gold": {"is": row["answer"]}} for row in ROWS
    ]
    renamed = _mine(
        _lines(tmp_path / "nested.jsonl", nested * 2),  # each twice: it counts once
        task__problem_field="prompt.0.content",
        task__answer_field="gold.is",
    )
    assert renamed.problems == _mine(file).problems


def test_the_hash_is_of_questions_and_answers_alone() -> None:
    one, two = Problem("a", "A x", "1", "x  y"), Problem("b", "B z", "2", "z")
    same = [Problem("c", "other", "2", "z"), Problem("d", "prompts", "1", " x\ny")]
    assert content_hash([one, two]) == content_hash(same)
    assert content_hash([one]) != content_hash([one, two])
    assert content_hash([one]) != content_hash([Problem("a", "A x", "01", "x  y")])
    assert content_hash([one]) != content_hash([Problem("a", "A x", "1", "xy")])


def test_any_of_the_pinned_copies_will_do_and_the_first_stands_for_all(file: str) -> None:
    digest = _mine(file).fingerprint()
    for pinned in (digest, [digest], ["0" * 64, digest]):
        benchmark = _mine(file, content_sha256=pinned)
        assert len(benchmark.problems) == 30
        assert benchmark.fingerprint() == (pinned if pinned == digest else pinned[0])


def _told(benchmark: Benchmark) -> str:
    with pytest.raises(LabError) as failure:
        _ = benchmark.problems
    assert "\n" not in str(failure.value)
    return str(failure.value)


def test_other_problems_than_the_pinned_ones_are_refused(file: str) -> None:
    digest = _mine(file).fingerprint()
    told = _told(_mine(file, content_sha256=["0" * 64, "1" * 64]))
    assert f"their hash is {digest}, not {'0' * 64} or {'1' * 64}" in told
    assert "aime24.content_sha256=null" in told
    assert "are not the pinned ones" in _told(load_benchmark("aime24", {"task.path": file}))


def test_another_number_of_problems_is_refused(file: str) -> None:
    told = _told(_mine(file, count=29))
    assert told.startswith("benchmark 'aime24' must have 29 problems, not 30;")
    assert told.endswith("aime24.count=30")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "mine.jsonl is empty"),
        ("\n", "mine.jsonl has no rows"),
        ('{"question": "?", "answer": "1"}', "set aime24.task.problem_field to one of: answer, qu"),
        ('{"problem": "?", "solution": "1"}', "set aime24.task.answer_field to one of: problem, "),
        ('{"problem": "?", "answer": ["1"]}', "see aime24.task.answer_field"),
    ],
)
def test_a_file_of_something_else_is_told(file: str, content: str, told: str) -> None:
    Path(file).write_text(content)
    found = _told(_mine(file))
    assert told in found
    assert found.startswith("benchmark 'aime24': ")


def test_without_network_and_file_it_says_how_to_name_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    told = _told(load_benchmark("hmmt25"))
    assert told.startswith("benchmark 'hmmt25': dataset 'MathArena/hmmt_feb_2025' is not on this")
    assert "set hmmt25.task.path to a local jsonl" in told


def test_a_gated_data_set_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: Any, **__: Any) -> str:
        raise errors.GatedRepoError.__new__(errors.GatedRepoError)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    told = _told(load_benchmark("amc23"))
    assert told.startswith("benchmark 'amc23': dataset 'math-ai/amc23' is gated")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"sample": 2}, "unknown key of aime24 'sample'. Did you mean 'samples'"),
        ({"samples": 0}, "aime24.samples=0: "),
        ({"samples.k": 2}, "aime24.samples={'k': 2}: "),
        ({"task.pth": "x"}, "benchmark 'aime24': unknown key of task 'pth'. Did you mean 'path'"),
        ({"task.limit": 0}, "benchmark 'aime24': aime24.task.limit=0: "),
        ({"task.name": "maths"}, "benchmark 'aime24': unknown task 'maths'. Did you mean 'math'"),
        ({"task": "math"}, "must name a task, e.g. {name: math, path: FILE}"),
        ({"content_sha256": "abc"}, "content_sha256.0="),
    ],
)
def test_a_change_that_makes_no_sense_is_told(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(LabError) as failure:
        load_benchmark("aime24", changes)
    assert told in str(failure.value)
    assert "\n" not in str(failure.value)


def test_changes_leave_the_other_keys_as_they_are(file: str) -> None:
    changed = load_benchmark("math500", {"samples": 2, "task.path": file, "task.limit": 3})
    pinned = load_benchmark("math500")
    assert (changed.samples, changed.task.path, changed.task.limit) == (2, file, 3)
    assert changed.content_sha256 == pinned.content_sha256
    assert changed.task.problem_field == pinned.task.problem_field


def test_a_definition_of_ones_own_is_a_yaml_file(file: str, tmp_path: Path) -> None:
    own = tmp_path / "mine.yaml"
    own.write_text(
        f"title: Mine\nsource: here\ncount: 30\nmax_tokens: 64\n"
        f"task: {{name: math, path: {file}, heldout_problems: 1.0}}\n"
    )
    benchmark = load_benchmark(str(own))
    assert benchmark.problems[0].id.startswith("mine/")
    assert load_benchmark(str(own), {"name": "other"}).problems[0].id.startswith("other/")
    for content, told in [("[1]", "must be a mapping"), ("a: [", "is not valid YAML")]:
        own.write_text(content)
        with pytest.raises(LabError, match=told):
            load_benchmark(str(own))
    with pytest.raises(LabError, match="Did you mean 'aime2"):
        load_benchmark("aime2")


def test_of_an_embedded_task_the_held_out_problems_are_taken(tmp_path: Path) -> None:
    own = tmp_path / "walk.yaml"
    own.write_text(
        "title: Walk\nsource: here\ncount: 64\nmax_tokens: 20\ntask: {name: table_walk}\n"
    )
    benchmark = load_benchmark(str(own), {"count": len(load_benchmark(str(own)).task.heldout())})
    assert [p.id.replace("walk/", "table_walk/") for p in benchmark.problems] == [
        p.id for p in benchmark.task.heldout()
    ]
