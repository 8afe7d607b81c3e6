"""``python -m cegppo_lab data``: what a run learns from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import yaml
from click.testing import CliRunner
from huggingface_hub.errors import LocalEntryNotFoundError

from cegppo_lab.cli import cli
from cegppo_lab.errors import LabError
from cegppo_lab.streams import numpy_stream
from cegppo_lab.tasks import make_task

_LONG = "Find the sum of all positive integers below one hundred that are prime"
_ROWS = [{"problem": f"{_LONG} times {n}.", "answer": n} for n in range(3)]
_ROWS += [{"problem": f"What is {n} + {n}?", "answer": 2 * n} for n in range(40)]


@pytest.fixture(autouse=True)
def asked_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """No hub: whether the network was to be used, call by call."""
    asked: list[bool] = []

    def download(*_: Any, local_files_only: bool = False, **__: Any) -> str:
        asked.append(not local_files_only)
        error = LocalEntryNotFoundError.__new__(LocalEntryNotFoundError)
        Exception.__init__(error, "no")
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return asked


@pytest.fixture
def training(tmp_path: Path) -> str:
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in _ROWS))
    return str(path)


@pytest.fixture
def benchmark(tmp_path: Path) -> str:
    """A YAML file of a benchmark of two problems, one of which shares nine words."""
    rows = [
        {"problem": f"{_LONG}!", "answer": 1},
        {"problem": "What is one minus one?", "answer": 0},
    ]
    data = tmp_path / "bench.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tree = {
        "title": "Mine",
        "source": "ours",
        "task": {"name": "math", "path": str(data), "heldout_problems": 1.0},
        "count": 2,
        "max_tokens": 100,
    }
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(tree))
    return str(path)


def _told(*words: str) -> str:
    result = CliRunner().invoke(cli, ["data", *words], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def _facts(*words: str) -> dict[str, Any]:
    return json.loads(_told(*words, "--json"))


def test_counts_prompts_and_order_are_those_of_the_trainer() -> None:
    facts = _facts("task=table_walk", "seed=5", "trainer.train_batch_size=4")
    drawn = make_task("table_walk").sample(4, numpy_stream(5, "prompts", 0, 0))
    assert facts["first_prompts"] == [problem.id for problem in drawn]
    assert facts["example"]["read"] == drawn[0].prompt
    assert (facts["training"], facts["heldout"], facts["data_hash"]) == (52, 12, None)
    assert facts["compared"] == "all 52 training problems"
    assert _facts("task=chain", "trainer.steps=2")["compared"].startswith("the first 64 problems")


def test_overlap_is_told_with_ids_and_words(training: str, benchmark: str) -> None:
    words = ("task=math", "model=table_walk", f"task.path={training}", "task.heldout_problems=5")
    facts = _facts(*words, f"benchmarks=[{benchmark}]")
    (found,) = facts["overlap"]
    assert (found["benchmark"], found["problems"], len(found["shared"])) == ("mine", 2, 1)
    (hit,) = found["shared"]
    assert hit["problem"].startswith("mine/")
    assert hit["training"].startswith("math/")
    assert hit["gram"] == "find the sum of all positive integers below one"
    assert facts["data_hash"] == make_task("math", path=training).data_hash()
    text = _told(*words, f"benchmarks=[{benchmark}]")
    assert "mine               1 of 2" in text
    assert hit["gram"] in text
    assert "What is" in text or _LONG in text


def test_contaminated_problems_are_counted(training: str, benchmark: str) -> None:
    words = ("task=math", "model=table_walk", f"task.path={training}", "task.heldout_problems=5")
    clean = _facts(*words, f"task.decontaminate=[{benchmark}]", f"benchmarks=[{benchmark}]")
    dirty = _facts(*words, f"benchmarks=[{benchmark}]")
    assert clean["contaminated"] > 0 == dirty["contaminated"]
    assert clean["training"] + clean["contaminated"] == dirty["training"] == 38
    assert clean["overlap"][0]["shared"] == []
    assert "left out as contaminated" in _told(*words, f"task.decontaminate=[{benchmark}]")


def test_benchmarks_that_are_not_at_hand_are_named_and_not_fetched(
    asked_of_the_hub: list[bool],
) -> None:
    for words in ([], ["benchmarks=[aime24,chain]"]):
        facts = _facts("task=table_walk", *words)
        assert facts["not_at_hand"]["aime24"] == "its data are not on this machine"
        assert "chain" in {found["benchmark"] for found in facts["overlap"]}
    assert asked_of_the_hub
    assert not any(asked_of_the_hub)
    assert "aime24             not compared: its data" in _told("task=table_walk")


def test_the_data_of_the_task_itself_may_be_fetched(asked_of_the_hub: list[bool]) -> None:
    with pytest.raises(LabError, match=r"the hub cannot be reached; set task\.path"):
        _told("task=klear_math", "model=table_walk", "task.sha256=null")
    assert asked_of_the_hub == [True]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["quickstart"], "data takes key=value words, not 'quickstart'"),
        (["task=chains"], "Did you mean 'chain'"),
        (["benchmarks=[aime]"], "unknown benchmark 'aime'.*Did you mean .*'aime24'"),
        (["task=math", "model=chain"], "task.path is empty"),
    ],
)
def test_mistakes_are_one_line(words: list[str], told: str) -> None:
    with pytest.raises(LabError, match=told):
        _told(*words)


def test_a_named_benchmark_with_other_problems_is_an_error(benchmark: str) -> None:
    Path(benchmark).write_text(Path(benchmark).read_text().replace("count: 2", "count: 3"))
    with pytest.raises(LabError, match="must have 3 problems, not 2"):
        _told("task=table_walk", f"benchmarks=[{benchmark}]")


def test_a_model_that_is_not_at_hand_leaves_the_prompt_as_it_is() -> None:
    facts = _facts("task=chain", "model=r1-distill-qwen-1.5b")
    assert facts["example"]["read"] == facts["example"]["prompt"]
    assert "without a chat template" in facts["example"]["note"]
