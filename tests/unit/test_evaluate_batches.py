"""Missing samples are drawn in fixed batches, and each batch is kept whole or not at all."""

from __future__ import annotations

import threading
from pathlib import Path

import pandas as pd
import pytest

from cegppo_lab.evaluate.batches import Row, missing_batches
from cegppo_lab.evaluate.samples import Batch, EvaluationDir, EvaluationWriter
from cegppo_lab.store import FinalRecord, RunStore
from cegppo_lab.tasks import Problem


def _problems(count: int) -> list[Problem]:
    return [Problem(f"p/{i}", f"{i}:", str(i)) for i in range(count)]


def _pairs(batches: list[list[Row]]) -> list[list[tuple[str, int]]]:
    return [[row.pair for row in batch] for batch in batches]


def _batch(pairs: list[tuple[str, int]], correct: float = 1.0) -> Batch:
    count = len(pairs)
    return Batch(
        problem=[problem for problem, _ in pairs],
        sample=[sample for _, sample in pairs],
        answer=[None if sample else problem for problem, sample in pairs],
        correct=[correct] * count,
        length=[3] * count,
        truncated=[False] * count,
        response=["naïve \n"] * count,
    )


def test_batches_hold_whole_problems() -> None:
    assert _pairs(missing_batches(_problems(3), 2, set(), 5)) == [
        [("p/0", 0), ("p/0", 1), ("p/1", 0), ("p/1", 1)],
        [("p/2", 0), ("p/2", 1)],
    ]


def test_a_problem_with_more_samples_than_fit_is_split() -> None:
    sizes = [len(batch) for batch in missing_batches(_problems(2), 7, set(), 3)]
    assert sizes == [3, 3, 1, 3, 3, 1]


@pytest.mark.parametrize(("count", "samples", "size"), [(5, 2, 5), (3, 7, 3), (4, 1, 3), (3, 4, 4)])
def test_after_a_kill_the_batches_that_are_left_are_drawn(
    count: int, samples: int, size: int
) -> None:
    problems = _problems(count)
    whole = _pairs(missing_batches(problems, samples, set(), size))
    assert sorted(sum(whole, [])) == [(p.id, i) for p in problems for i in range(samples)]  # noqa: RUF017
    for stored in range(len(whole) + 1):
        done = {pair for batch in whole[:stored] for pair in batch}
        assert _pairs(missing_batches(problems, samples, done, size)) == whole[stored:]


def test_a_larger_k_draws_only_the_new_samples() -> None:
    done = {("p/0", 0), ("p/1", 0)}
    assert _pairs(missing_batches(_problems(2), 3, done, 9)) == [
        [("p/0", 1), ("p/0", 2), ("p/1", 1), ("p/1", 2)]
    ]


def test_a_torn_line_is_drawn_again_and_the_table_is_in_order(tmp_path: Path) -> None:
    folder = tmp_path / "e1"
    with EvaluationWriter(folder, print) as writer:
        writer.append(_batch([("p/1", 0), ("p/1", 1)]))
        writer.append(_batch([("p/0", 0)], correct=0.0))
    with open(folder / "samples.jsonl", "a") as log:
        log.write('{"problem": ["p/2"], "sam')
    assert [batch.pairs for batch in EvaluationDir(folder).batches()] == [
        [("p/1", 0), ("p/1", 1)],
        [("p/0", 0)],
    ]
    with EvaluationWriter(folder, print) as writer:
        writer.append(_batch([("p/2", 0)]))
        writer.finish(["p/2", "p/1", "p/0"])
    rows = pd.read_parquet(folder / "samples.parquet")
    assert rows[["problem", "sample", "correct"]].to_numpy().tolist() == [
        ["p/2", 0, 1.0],
        ["p/1", 0, 1.0],
        ["p/1", 1, 1.0],
        ["p/0", 0, 0.0],
    ]
    assert rows["answer"].isna().tolist() == [False, False, True, False]
    assert set(rows["response"]) == {"naïve \n"}


def test_the_table_is_written_again_when_samples_came_since(tmp_path: Path) -> None:
    with EvaluationWriter(tmp_path / "e1", print) as writer:
        writer.append(_batch([("p/0", 0)]))
        writer.finish(["p/0"])
        first = writer.parquet.stat().st_mtime_ns
        writer.finish(["p/0"])
        assert writer.parquet.stat().st_mtime_ns == first
        writer.append(_batch([("p/0", 1)]))
        writer.finish(["p/0"])
        assert len(pd.read_parquet(writer.parquet)) == 2


def test_a_second_writer_says_so_and_waits(tmp_path: Path) -> None:
    told: list[str] = []
    waiting, entered = threading.Event(), threading.Event()

    def say(line: str) -> None:
        told.append(line)
        waiting.set()

    def second() -> None:
        with EvaluationWriter(tmp_path / "e1", say):
            entered.set()

    with EvaluationWriter(tmp_path / "e1", say):
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(5)
        assert not entered.wait(0.2)
    assert entered.wait(5)
    thread.join()
    assert told == ["another process is at evaluation e1; waiting for it"]


def test_a_trial_has_each_evaluation_once_with_all_its_samples(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    short = FinalRecord(8, "aime24", ["a"], [0], [1.0], evaluation="e1")
    full = FinalRecord(8, "aime24", ["a", "a"], [0, 1], [1.0, 0.0], evaluation="e1")
    other = FinalRecord(8, "aime24", ["a"], [0], [0.0], evaluation="e2")
    for order in ((short, full, short, other, full), (full, short, other)):
        store.enter("t1", {})
        for record in order:
            store.add_evaluation("t1", record)
        assert store.run("t1").evaluations() == [full, other]
        log = tmp_path / "t1" / "evaluations.jsonl"
        assert len(log.read_text().splitlines()) == 3
        log.unlink()
    assert store.trial_ids() == ["t1"]
