"""Final evaluations of a sweep's trials: preferred to the training loop's, told, in the tables."""

from __future__ import annotations

from dataclasses import asdict, replace
from shutil import copytree

import pandas as pd
import pytest

from analysis.load import MlflowSource, load_sweep
from analysis.load.frames import EVAL_COLUMNS
from analysis.paper_tables import paper_table, to_markdown
from cegppo_lab.store import FinalRecord, RunStore
from cegppo_lab.tracking import mirror_sweep
from tests.unit.mlflow_database import new_database
from tests.unit.synthetic_sweep import (
    ARMS,
    BENCHMARK,
    SEEDS,
    STEPS,
    manifest,
    trial_id,
    write_trial,
)
from tests.unit.synthetic_tables import SEEDS as PAPER_SEEDS
from tests.unit.synthetic_tables import STEPS as LAST
from tests.unit.synthetic_tables import apart, close, row, run, sweep

SHARE = 0.75


def final(step=STEPS, benchmark=BENCHMARK, evaluation="e1", problems=8, samples=2, share=SHARE):
    """A final evaluation that has the first ``share`` of its problems right."""
    names = [f"final-{i}" for i in range(problems) for _ in range(samples)]
    right = [float(i < share * problems) for i in range(problems) for _ in range(samples)]
    numbers = list(range(samples)) * problems
    return FinalRecord(step, benchmark, names, numbers, right, 1_760_000_000.0, evaluation)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """GRPO and DAPO at three seeds, trained to the end."""
    store = RunStore(tmp_path_factory.mktemp("trained"))
    store.write_manifest(manifest("s", ARMS[:2]))
    for arm in ARMS[:2]:
        for seed in SEEDS:
            write_trial(store, arm, seed)
    return store


@pytest.fixture
def store(trained, tmp_path):
    """A copy of ``trained`` to write to."""
    return RunStore(copytree(trained.root, tmp_path / "runs"))


def evaluate_all(store, records, arms=ARMS[:2]):
    for arm in arms:
        for seed in SEEDS:
            for record in records:
                store.add_evaluation(trial_id(arm["name"], seed), record)


def test_without_final_evaluations_every_verdict_is_the_training_loops(store):
    data = load_sweep(store, "s")
    assert list(data.evals.columns) == EVAL_COLUMNS
    assert set(data.evals["evaluation"]) == {""}
    assert data.problems == []


def test_final_verdicts_replace_the_loops_at_their_step_and_nowhere_else(store):
    before = load_sweep(store, "s")
    evaluate_all(store, [final()])
    data = load_sweep(store, "s")
    assert (data.accuracy("GRPO", BENCHMARK)[STEPS] == SHARE).all()
    earlier = before.evals[before.evals["step"] < STEPS].reset_index(drop=True)
    kept = data.evals[data.evals["step"] < STEPS].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, earlier)
    ends = data.evals[data.evals["step"] == STEPS]
    assert set(ends["evaluation"]) == {"e1"}
    assert len(ends) == 6 * 8 * 2
    pd.testing.assert_frame_equal(data.steps, before.steps)
    assert len(data.problems) == 1
    assert f"verdicts at step {STEPS} are of final evaluations" in data.problems[0]


def test_final_verdicts_on_another_benchmark_stand_beside_the_loops(store):
    before = load_sweep(store, "s")
    evaluate_all(store, [final(benchmark="aime24")])
    data = load_sweep(store, "s")
    own = data.evals[data.evals["benchmark"] == BENCHMARK].reset_index(drop=True)
    pd.testing.assert_frame_equal(own, before.evals)
    assert data.benchmarks() == ["aime24", BENCHMARK]
    assert data.problems == []


def test_runs_without_a_final_evaluation_are_told(store):
    evaluate_all(store, [final()], ARMS[:1])
    told = [p for p in load_sweep(store, "s").problems if "3 of 6 runs" in p]
    assert len(told) == 1
    assert "DAPO seed 11; DAPO seed 12; DAPO seed 13 count with" in told[0]
    assert "evaluate sweep:s" in told[0]


def test_of_several_final_evaluations_the_largest_counts_and_all_are_told(store):
    records = [
        final(evaluation="large", problems=12, share=1.0),
        replace(final(evaluation="newer"), time=1_800_000_000.0),
    ]
    evaluate_all(store, records)
    data = load_sweep(store, "s")
    assert set(data.evals.query("step == @STEPS")["evaluation"]) == {"large"}
    told = [p for p in data.problems if "2 final evaluations" in p]
    assert len(told) == 6
    assert told[0].startswith("GRPO, seed 11: ")
    assert "newest: large." in told[0]


def test_of_equal_final_evaluations_the_newest_counts(store):
    newer = replace(final(evaluation="newer", share=0.5), time=1_800_000_000.0)
    evaluate_all(store, [newer, final(evaluation="older")])
    assert (load_sweep(store, "s").accuracy("DAPO", BENCHMARK)[STEPS] == 0.5).all()


def test_an_evaluation_that_went_on_counts_with_all_its_samples(store):
    evaluate_all(store, [final(samples=2), final(samples=4)])
    data = load_sweep(store, "s")
    assert len(data.evals.query("step == @STEPS")) == 6 * 8 * 4
    assert not any("2 final" in told for told in data.problems)


def test_final_evaluations_that_differ_in_size_are_told(store):
    evaluate_all(store, [final(benchmark="aime24")], ARMS[:1])
    evaluate_all(store, [final(benchmark="aime24", samples=4)], ARMS[1:2])
    told = load_sweep(store, "s").problems
    assert len(told) == 1
    assert "aime24: final evaluations differ" in told[0]
    assert "(8 x 2, 8 x 4)" in told[0]


def test_the_mirror_gives_the_same_frames_as_the_store(tmp_path):
    store = RunStore(tmp_path / "runs")
    store.write_manifest(manifest("s", ARMS[:1]))
    for seed in SEEDS[:2]:
        write_trial(store, ARMS[0], seed, last=8)
    for record in (final(step=8), final(step=8, benchmark="aime24")):
        store.add_evaluation(trial_id("GRPO", SEEDS[0]), record)
    uri = new_database(tmp_path / "mlflow.db")
    mirror_sweep(store, "s", uri)
    of_store, of_mirror = load_sweep(store, "s"), MlflowSource(uri).sweep("s")
    pd.testing.assert_frame_equal(of_mirror.evals, of_store.evals)
    assert of_mirror.problems == of_store.problems
    assert set(of_mirror.evals["evaluation"]) == {"", "e1"}


def paper_runs(score, model="r1-distill-qwen-7b"):
    """Runs at the paper's scale that were evaluated on AIME24 after training alone."""
    methods = ("GRPO", "DAPO", "CE-GPPO(0.5, 1)", "CE-GPPO(0.75, 1)")
    for method in methods:
        for seed in PAPER_SEEDS:
            view = run(method, seed, score, model=model, trainer="verl", benchmarks=("aime24",))
            (last,) = [
                FinalRecord(**asdict(e), evaluation="e") for e in view.evals if e.step == LAST
            ]
            yield replace(view, evals=[], finals=[last])


def test_a_paper_table_prints_final_evaluations_beside_the_published_values():
    table = paper_table(1, [sweep(list(paper_runs(apart)), "paper/algorithms")])
    model = "DS-R1-Distill-Qwen-7B"
    mean = sum(apart("DAPO", seed, "aime24", LAST) for seed in PAPER_SEEDS) / len(PAPER_SEEDS)
    found = row(table, "DAPO", "AIME24", model)
    assert found["value"] == pytest.approx(100 * mean, abs=1e-6)
    assert (found["n_seeds"], found["at"]) == (6, f"step {LAST}")
    assert found["low"] < found["value"] < found["high"]
    assert row(table, "DAPO", "AIME24", model, "published")["value"] == 59.7
    lines = to_markdown(table).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| DAPO | measured | 6 |"))
    assert lines[start + 1].startswith("| DAPO | published |")
    assert "59.7" in lines[start + 1]


def test_a_table_from_final_evaluations_is_the_one_from_the_loops_same_verdicts():
    finals = paper_table(1, [sweep(list(paper_runs(close)), "paper/algorithms")]).frame
    loops = [replace(v, evals=v.finals, finals=[]) for v in paper_runs(close)]
    plain = paper_table(1, [sweep(loops, "paper/algorithms")]).frame
    pd.testing.assert_frame_equal(finals, plain)
