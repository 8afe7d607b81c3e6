"""Every arm against the reference: scipy's numbers, refusals in words, models kept apart."""

from __future__ import annotations

import io
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis import comparisons
from cegppo_lab.metrics import ENTROPY
from tests.unit.synthetic_tables import (
    ALGORITHMS,
    SEEDS,
    STEPS,
    apart,
    close,
    embedded,
    paper,
    run,
    sweep,
)

OTHERS = [method for method in ALGORITHMS if method != "GRPO"]


@pytest.fixture(scope="module")
def data():
    return embedded(close)


@pytest.fixture(scope="module")
def frame(data):
    return comparisons.comparisons_table(data)


def row(frame, arm, quantity, benchmark=""):
    keys = (frame["arm"] == arm, frame["quantity"] == quantity, frame["benchmark"] == benchmark)
    (found,) = frame[np.logical_and.reduce(keys)].to_dict("records")
    return found


def ends(data, arm):
    return {
        "entropy_end": data.metric(arm, ENTROPY)[[STEPS - 1, STEPS]].mean(axis=1),
        "accuracy_end": data.accuracy(arm, "table_walk")[STEPS],
    }


def flips(differences):
    """The exact sign-flip p, by going through every pattern."""
    means = [np.dot(signs, differences) for signs in product([-1, 1], repeat=len(differences))]
    return np.mean(np.abs(means) >= abs(np.sum(differences)) - 1e-12)


def step_down(p):
    """Holm by hand."""
    order, adjusted, worst = sorted(p, key=p.get), {}, 0.0
    for place, name in enumerate(order):
        worst = max(worst, min(1.0, (len(p) - place) * p[name]))
        adjusted[name] = worst
    return adjusted


@pytest.mark.parametrize("quantity", ["entropy_end", "accuracy_end"])
def test_numbers_equal_scipys(data, frame, quantity):
    benchmark = "table_walk" if quantity == "accuracy_end" else ""
    values = {arm: ends(data, arm)[quantity] for arm in ALGORITHMS}
    p_t = {a: stats.ttest_rel(values[a], values["GRPO"]).pvalue for a in OTHERS}
    p_flip = {a: flips((values[a] - values["GRPO"]).to_numpy()) for a in OTHERS}
    for arm in OTHERS:
        found = row(frame, arm, quantity, benchmark)
        interval = stats.ttest_rel(values[arm], values["GRPO"]).confidence_interval(0.95)
        assert found["difference"] == pytest.approx((values[arm] - values["GRPO"]).mean())
        assert (found["low"], found["high"]) == pytest.approx(tuple(interval))
        assert found["p_t"] == pytest.approx(p_t[arm])
        assert found["p_permutation"] == pytest.approx(p_flip[arm])
        assert found["p_t_holm"] == pytest.approx(step_down(p_t)[arm])
        assert found["p_permutation_holm"] == pytest.approx(step_down(p_flip)[arm])
        u = stats.mannwhitneyu(values[arm], values["GRPO"]).statistic / len(SEEDS) ** 2
        assert found["improvement"] == pytest.approx(u)
        assert found["improvement_low"] <= u <= found["improvement_high"]
        assert (found["n_seeds"], found["n_planned"]) == (6, 6)
    assert len(frame) == 2 * len(OTHERS)


def test_the_seeds_needed_have_the_power_that_was_asked_for(data, frame):
    difference = ends(data, "DAPO")["accuracy_end"] - ends(data, "GRPO")["accuracy_end"]
    found = row(frame, "DAPO", "accuracy_end", "table_walk")

    def power(n):
        noncentral = 0.02 / difference.std(ddof=1) * np.sqrt(n)
        critical = stats.t.ppf(0.975, n - 1)
        return stats.nct.sf(critical, n - 1, noncentral) + stats.nct.cdf(
            -critical, n - 1, noncentral
        )

    assert found["wanted"] == 0.02
    assert power(found["seeds"]) >= 0.8 > power(found["seeds"] - 1)
    assert found["seeds_low"] <= found["seeds"] <= found["seeds_high"]
    assert row(frame, "DAPO", "entropy_end")["wanted"] == 0.1


def test_the_sentences_name_the_slowest_arm_and_the_least_p(frame):
    told = comparisons.sentences(frame)
    accuracy = next(x for x in told if x.startswith("End accuracy on table_walk"))
    rows = frame[frame["quantity"] == "accuracy_end"]
    worst = rows.loc[rows["seeds"].idxmax()]
    assert f"takes {worst['seeds']:.0f} seeds" in accuracy
    assert f"set by {worst['arm']}; 6 were run" in accuracy
    assert "0.02 in accuracy" in accuracy
    assert any("0.1 nats per token" in x for x in told)
    # 2/2^6 = 0.03125; times 5 arms 0.16; 2/2^8 * 5 is the first below 0.05
    assert "With 6 shared seeds the smallest p that sign flips can give is 0.031" in told[-1]
    assert "0.16 after Holm over 5 arms" in told[-1]
    assert "need 8 seeds" in told[-1]


def test_few_arms_and_many_seeds_are_enough():
    seeds = range(20, 28)
    frame = comparisons.comparisons_table(embedded(apart, ["GRPO", "DAPO"], seeds=seeds))
    assert "low enough for a finding at 0.05" in comparisons.sentences(frame)[-1]
    assert row(frame, "DAPO", "accuracy_end", "table_walk")["p_permutation"] == 2 / 2**8


def test_one_seed_is_refused_with_its_reason():
    frame = comparisons.comparisons_table(embedded(close, seeds=[11]))
    numbers = ["low", "high", "p_t", "p_permutation", "p_t_holm", "improvement_low", "seeds"]
    assert frame[numbers].isna().all().all()
    assert set(frame["method"]) == {"1 seed: no interval"}
    text = comparisons.to_markdown(frame)
    assert all("[" not in line for line in text.splitlines() if line.startswith("| DAPO"))
    told = comparisons.sentences(frame)
    assert any("is not known (1 seed" in sentence for sentence in told)
    assert told[-1].startswith("One seed is shared with the reference, so no test is made")


def test_an_arm_without_runs_and_a_reference_alone():
    runs = [run(method, seed, close) for method in ("GRPO", "DAPO") for seed in SEEDS]
    frame = comparisons.comparisons_table(sweep(runs[:6], pending=runs[6:]))
    found = row(frame, "DAPO", "entropy_end")
    assert np.isnan(found["difference"])
    assert (found["n_seeds"], found["n_planned"], found["model"]) == (0, 6, "table_walk")
    assert "n/a (no shared seed)" in comparisons.to_markdown(frame)
    assert comparisons.sentences(frame)[-1].startswith("No seed is shared")
    alone = comparisons.comparisons_table(sweep(runs[:6]))
    assert alone.empty
    assert comparisons.sentences(alone) == ["There is one arm, so nothing is compared."]
    assert comparisons.sections(alone) == []


def test_each_model_has_its_own_reference_and_each_benchmark_its_own_table():
    frame = comparisons.comparisons_table(paper(close))
    assert len(frame) == 2 * 3 * len(OTHERS)
    for model, size in (("r1-distill-qwen-1.5b", "1.5B"), ("r1-distill-qwen-7b", "7B")):
        rows = frame[frame["model"] == model]
        assert set(rows["reference"]) == {f"GRPO {size}"}
        assert all(arm.endswith(size) for arm in rows["arm"])
        assert set(rows["benchmark"]) == {"", "aime24", "aime25"}
    titles = [section.title for section in comparisons.sections(frame)]
    assert len(titles) == 6
    assert f"End accuracy, aime25, step {STEPS}, r1-distill-qwen-7b" in titles


def test_sections_are_square_and_say_what_the_frame_says(frame):
    entropy, accuracy = comparisons.sections(frame)
    assert entropy.title == f"End entropy (nats per token), steps {STEPS - 1} to {STEPS}"
    assert accuracy.title == f"End accuracy, table_walk, step {STEPS}"
    for section in (entropy, accuracy):
        assert {len(cells) for cells in section.rows} == {len(section.header)}
        assert [cells[0] for cells in section.rows] == OTHERS
    found = row(frame, "DAPO", "entropy_end")
    cells = dict(zip(entropy.header, entropy.rows[0], strict=False))
    assert cells["minus GRPO"].startswith(f"{found['difference']:+.3f} [{found['low']:.3f}, ")
    assert cells["p, sign flips"] == f"{found['p_permutation']:.3f}"
    assert cells["seeds to detect 0.1 nats per token"].startswith(f"{found['seeds']:.0f} (")


def test_a_p_near_zero_is_not_printed_as_zero():
    frame = comparisons.comparisons_table(embedded(apart, ["GRPO", "CE-GPPO(0.75, 1)"]))
    assert row(frame, "CE-GPPO(0.75, 1)", "accuracy_end", "table_walk")["p_t"] < 0.001
    assert "| < 0.001 |" in comparisons.to_markdown(frame)
    assert "| 0.000 |" not in comparisons.to_markdown(frame)


def test_a_sweep_without_entropies_compares_accuracies(data):
    frame = comparisons.comparisons_table(replace(data, steps=data.steps.iloc[:0]))
    assert set(frame["quantity"]) == {"accuracy_end"}
    unseen = comparisons.comparisons_table(replace(data, evals=data.evals.iloc[:0]))
    assert set(unseen["quantity"]) == {"entropy_end"}


def test_the_csv_gives_the_numbers_back(frame):
    text = comparisons.to_csv(frame)
    back = pd.read_csv(io.StringIO(text), keep_default_na=False, na_values=[""])
    numbers = ["difference", "low", "high", "p_t", "p_permutation_holm", "improvement", "seeds"]
    pd.testing.assert_frame_equal(back[numbers], frame[numbers], check_dtype=False)
