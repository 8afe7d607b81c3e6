"""The data of the math task: formats, what is missing, and decontamination."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pandas as pd
import pytest
import yaml
from huggingface_hub import errors

from cegppo_lab.errors import LabError
from cegppo_lab.tasks import make_task
from tests.unit.math_files import ROWS, math_task, write_lines

_RNG = np.random.default_rng(0)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "train.jsonl"


_LONG = "Find the number of ways to colour a cube with {} colours up to rotation"


def _benchmark(folder: Path, *problems: str) -> str:
    """The YAML file of a benchmark with these problems."""
    data = write_lines(
        folder / "bench.jsonl", [{"problem": text, "answer": "1"} for text in problems]
    )
    task = {"name": "math", "path": data, "heldout_problems": 1.0}
    tree = {"title": "B", "source": "ours", "task": task, "max_tokens": 9, "count": len(problems)}
    (folder / "bench.yaml").write_text(yaml.safe_dump(tree))
    return str(folder / "bench.yaml")


def test_contaminated_problems_are_not_trained_on(file: Path, tmp_path: Path) -> None:
    rows = [*ROWS, *({"problem": _LONG.format(n), "answer": "5"} for n in range(5))]
    name = _benchmark(tmp_path, _LONG.format("nine"), ROWS[0]["problem"], ROWS[1]["problem"])
    options = {"path": write_lines(file, rows), "heldout_problems": 8}
    plain, clean = make_task("math", **options), make_task("math", **options, decontaminate=[name])
    dropped = {p.question for p in plain.training()} - {p.question for p in clean.training()}
    shared = {_LONG.format(n) for n in range(5)} | {ROWS[0]["problem"], ROWS[1]["problem"]}
    assert dropped == shared - {p.question for p in plain.heldout()}
    assert clean.contaminated() == len(dropped) > 2
    assert clean.heldout() == plain.heldout()
    assert clean.training_count() == len(clean.training()) == 37 - len(dropped)
    limited = make_task("math", **options, decontaminate=[name], limit=30)
    assert limited.training() == clean.training()[:30]
    assert {p.question for p in clean.sample(900, _RNG)}.isdisjoint(shared)


def test_decontamination_is_in_the_identity_only_where_it_is_asked_for(
    file: Path, tmp_path: Path
) -> None:
    name = _benchmark(tmp_path, _LONG)
    plain = math_task(file)
    assert "decontaminate" in plain.neutral
    clean = math_task(file, decontaminate=(name,))
    assert clean.data_hash() != plain.data_hash()
    before = clean.data_hash()
    _benchmark(tmp_path, _LONG + "?!", "another one")
    assert math_task(file, decontaminate=(name,)).data_hash() != before
    with pytest.raises(LabError, match="Did you mean 'aime2"):
        math_task(file, decontaminate=("aime2",))
    everything = _benchmark(tmp_path, *(row["problem"] for row in ROWS))
    with pytest.raises(LabError, match=r"task.decontaminate=.*none is left as a training"):
        math_task(file, decontaminate=(everything,)).training()


def test_numbers_of_any_format_are_answers(tmp_path: Path) -> None:
    frame = pd.DataFrame({"problem": ["a", "b", "c"], "answer": [7.0, 10.0, 0.5]})
    frame.to_parquet(tmp_path / "n.parquet")
    frame.to_csv(tmp_path / "n.csv", index=False)
    write_lines(tmp_path / "n.jsonl", frame.to_dict("records"))
    for name in ("n.parquet", "n.csv", "n.jsonl"):
        task = make_task("math", path=str(tmp_path / name), heldout_problems=1.0)
        answers = {problem.question: problem.answer for problem in task.heldout()}
        assert {key: float(value) for key, value in answers.items()} == {"a": 7, "b": 10, "c": 0.5}
        for problem in task.heldout():
            plain = f"{float(problem.answer):g}"
            assert task.reward(problem, rf"\boxed{{{plain}}}") == 1.0, name
    kept = pd.DataFrame({"problem": ["a"], "answer": ["023"]})
    kept.to_csv(tmp_path / "zeros.csv", index=False)
    zeros = make_task("math", path=str(tmp_path / "zeros.csv"), heldout_problems=1.0)
    assert zeros.heldout()[0].answer == "023"


@pytest.mark.parametrize("name", ["e.csv", "h.csv", "e.parquet", "e.json"])
def test_files_without_rows_are_told(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "e.parquet":
        pd.DataFrame({"problem": [], "answer": []}).to_parquet(path)
    else:
        path.write_text({"e.csv": "", "h.csv": "problem,answer\n", "e.json": "[]"}[name])
    with pytest.raises(LabError, match=r"is empty|has no rows") as error:
        make_task("math", path=str(path)).heldout()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["m.csv", "m.parquet"])
def test_a_missing_column_is_told_with_those_there_are(tmp_path: Path, name: str) -> None:
    frame = pd.DataFrame({"question": ["a"], "answer": [None]})
    frame.to_csv(tmp_path / name, index=False) if name == "m.csv" else frame.to_parquet(
        tmp_path / name
    )
    with pytest.raises(LabError, match=r"row 1 has no field 'problem'; set task\.problem_field"):
        make_task("math", path=str(tmp_path / name)).heldout()
    with pytest.raises(LabError, match=r"row 1: answer (is empty|holds no text)"):
        make_task("math", path=str(tmp_path / name), problem_field="question").heldout()


def test_data_at_hand_are_found_without_the_network(
    file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[bool] = []

    def download(*_: Any, local_files_only: bool, **__: Any) -> str:
        asked.append(local_files_only)
        if len(asked) > 1:
            return str(tmp_path)
        error = errors.LocalEntryNotFoundError.__new__(errors.LocalEntryNotFoundError)
        Exception.__init__(error, "no")
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert math_task(file).at_hand()
    assert not asked
    assert not make_task("math").at_hand()
    assert not make_task("math", path="some/set").at_hand()
    assert make_task("math", path="some/set").at_hand()
    assert asked == [True, True]
