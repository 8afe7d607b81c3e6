"""Tables 1 and 2: numbers equal other computations', marks follow tests, gaps have reasons."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from analysis.paper_tables import paper_table, to_latex, to_markdown
from analysis.paper_tables.layout import DASH
from analysis.stats import hierarchical_estimate
from tests.unit.synthetic_tables import (
    SEEDS,
    STEPS,
    TOP,
    apart,
    cells,
    close,
    embedded,
    marks,
    row,
    run,
    sweep,
)


@pytest.fixture(scope="module")
def tied():
    return paper_table(1, [embedded(close)])


@pytest.fixture(scope="module")
def decided():
    return paper_table(1, [embedded(apart)])


def test_an_accuracy_is_that_of_the_last_evaluation_over_seeds_and_problems(decided):
    for method in ("GRPO", "DAPO", "CE-GPPO(0.5, 1)", TOP):
        table, found = cells(apart, method), row(decided, method)
        expected = hierarchical_estimate(table)
        assert found["value"] == pytest.approx(100 * table.to_numpy().mean())
        assert (found["low"], found["high"]) == pytest.approx(
            (100 * expected.low, 100 * expected.high)
        )
        assert (found["n_seeds"], found["at"]) == (6, f"step {STEPS}")


def test_base_is_step_0_averaged_over_the_arms_of_a_seed(decided):
    methods = ("GRPO", "DAPO", "CE-GPPO(0.5, 1)", TOP)
    start = sum(cells(apart, method, step=0) for method in methods) / 4
    found, expected = row(decided, "base"), hierarchical_estimate(start)
    assert found["value"] == pytest.approx(100 * start.to_numpy().mean())
    assert found["low"] == pytest.approx(100 * expected.low)
    assert (found["at"], found["n_seeds"]) == ("step 0", 6)
    assert len(found["trials"].split()) == 4 * 6


def test_where_only_means_are_known_the_interval_is_scipys_over_seeds():
    table = paper_table(1, [embedded(apart, problems=False)])
    values = [100 * apart("DAPO", seed, "table_walk", STEPS) for seed in SEEDS]
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = row(table, "DAPO")
    assert (found["value"], found["low"], found["high"]) == pytest.approx(
        (np.mean(values), low, high)
    )
    assert found["method_of_interval"] == "95% t interval over 6 seeds"
    assert row(table, "base")["method_of_interval"] == "95% t interval over 6 seeds"
    assert not any(note.startswith("Evaluations") for note in table.notes)
    known = paper_table(1, [embedded(apart, ["DAPO"])])
    assert any("table_walk: 5 problems x 1 samples" in note for note in known.notes)


def test_seeds_with_problems_and_seeds_with_means_make_one_estimate_over_seeds():
    runs = [run(m, s, apart, problems=s != 11) for m in ("GRPO", "DAPO") for s in SEEDS]
    table = paper_table(1, [sweep(runs)])
    means = [cells(apart, "GRPO", seeds=[s]).to_numpy().mean() for s in SEEDS[1:]]
    expected = np.mean([*means, apart("GRPO", 11, "table_walk", STEPS)])
    assert row(table, "GRPO")["value"] == pytest.approx(100 * expected)
    assert row(table, "GRPO")["n_seeds"] == row(table, "base")["n_seeds"] == 6


def test_base_of_arms_with_problems_and_arms_with_means_is_one_estimate_over_seeds():
    runs = [run(m, s, apart, problems=m == "DAPO") for m in ("GRPO", "DAPO") for s in SEEDS]
    found = row(paper_table(1, [sweep(runs)]), "base")
    means = cells(apart, "DAPO", step=0).mean(axis=1).to_numpy()
    means = (means + [apart("GRPO", seed, "table_walk", 0) for seed in SEEDS]) / 2
    low, high = stats.ttest_1samp(100 * means, 0).confidence_interval(0.95)
    assert (found["value"], found["low"], found["high"]) == pytest.approx(
        (100 * means.mean(), low, high)
    )


def test_the_bold_one_is_better_than_every_other_by_paired_t_tests_with_holm(decided):
    assert marks(decided) == {"base": "", "GRPO": "", "DAPO": "", "CE-GPPO(0.5, 1)": "",
                              TOP: "best"}  # fmt: skip
    assert to_markdown(decided).count("**7") == 1
    line = next(x for x in to_markdown(decided).splitlines() if x.startswith(f"| {TOP} | 6 |"))
    assert line.split("|")[3].strip().startswith("**")
    assert to_latex(decided).count(r"\textbf{7") == 1
    assert any(note.startswith("★ and bold") for note in decided.notes)
    assert not any("†" in note for note in decided.notes)


def test_a_lead_that_seeds_do_not_show_is_a_tie_of_all_that_are_not_told_apart(tied):
    found = marks(tied)
    values = {m: cells(close, m).mean(axis=1) for m in ("GRPO", "DAPO", "CE-GPPO(0.5, 1)", TOP)}
    best = max(values, key=lambda m: values[m].mean())
    p = {m: stats.ttest_rel(values[m], values[best]).pvalue for m in values if m != best}
    assert all(value > 0.05 for value in p.values())
    assert found == {"base": "", **dict.fromkeys(values, "tie")}
    assert "**5" not in to_markdown(tied)
    assert to_markdown(tied).count("†") == 5
    assert to_latex(tied).count(r"$^\dagger$") == 4
    assert r"\textbf{5" not in to_latex(tied)


def test_one_seed_gives_values_and_the_reason_instead_of_an_interval():
    table = paper_table(1, [embedded(apart, seeds=[11])])
    own = table.frame[table.frame["source"] == "measured"]
    assert own[["low", "high"]].isna().all().all()
    assert set(own["method_of_interval"]) == {"1 seed: no interval"}
    assert "best" not in set(own["mark"])
    lines = to_markdown(table).splitlines()
    assert all("[" not in line and "(1 seed: no interval)" in line for line in lines
               if line.startswith("|") and "| 1 |" in line)  # fmt: skip


def test_a_missing_arm_and_one_without_runs_are_dashes_with_a_reason():
    methods = ("CISPO", "CE-GPPO(0.5, 1)")
    runs = [run(method, seed, apart) for method in methods for seed in SEEDS]
    table = paper_table(2, [sweep(runs[6:], pending=runs[:6])])
    assert np.isnan(row(table, "GSPO")["value"])
    assert np.isnan(row(table, "CISPO")["value"])
    assert (row(table, "CISPO")["n_seeds"], row(table, "CISPO")["n_planned"]) == (0, 6)
    notes = " ".join(table.notes)
    assert f"{DASH} GSPO (table_walk, table_walk): no arm of the sweeps is this method." in notes
    assert f"{DASH} CISPO (table_walk, table_walk): no run has reached step {STEPS}." in notes
    assert f"| GSPO | 0 | {DASH} |" in to_markdown(table)
    assert "GSPO & 0 & -- \\\\" in to_latex(table)


def test_a_run_that_ended_early_does_not_count_and_the_cell_says_so():
    runs = [run(m, s, apart) for m in ("GRPO", "DAPO") for s in SEEDS]
    table = paper_table(1, [sweep([*runs[:-1], run("DAPO", SEEDS[-1], apart, last=10)])])
    found = row(table, "DAPO")
    assert found["value"] == pytest.approx(
        100 * cells(apart, "DAPO", seeds=SEEDS[:-1]).to_numpy().mean()
    )
    assert "| DAPO | 5 of 6 |" in to_markdown(table)


def test_a_cell_from_fewer_seeds_than_its_row_says_from_how_many():
    whole = {"benchmarks": ["table_walk", "chain"]}
    runs = [run(m, s, apart, **whole) for m in ("GRPO", "DAPO") for s in SEEDS]
    table = paper_table(1, [sweep([*runs[:-1], run("DAPO", SEEDS[-1], apart)])])
    line = next(x for x in to_markdown(table).splitlines() if x.startswith("| DAPO | 6 |"))
    assert line.split("|")[3].strip(" *").endswith("] (5 seeds)")  # benchmarks are sorted
    assert "seeds)" not in line.split("|")[4]
    assert row(table, "DAPO", "Avg")["n_seeds"] == 5


def test_a_sweep_that_is_still_training_says_at_which_step():
    table = paper_table(1, [embedded(apart, last=10)])
    assert any("so far is at step 10 of 20" in note for note in table.notes)
    assert not any("so far" in note for note in paper_table(1, [embedded(apart)]).notes)
