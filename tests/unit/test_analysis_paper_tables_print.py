"""Tables 1 and 2 as they are read: blocks, averages, printed forms, and what is refused."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis import artifacts
from analysis.paper_tables import paper_table, to_csv, to_latex, to_markdown
from analysis.paper_tables.layout import DASH
from analysis.published import published_table
from analysis.stats import iqm_estimate
from cegppo_lab.errors import LabError
from tests.unit.synthetic_tables import (
    SEEDS,
    TOP,
    apart,
    cells,
    close,
    embedded,
    marks,
    paper,
    row,
    run,
    sweep,
)

SMALL, LARGE = "DS-R1-Distill-Qwen-1.5B", "DS-R1-Distill-Qwen-7B"


@pytest.fixture(scope="module")
def tied():
    return paper_table(1, [embedded(close)])


@pytest.fixture(scope="module")
def decided():
    return paper_table(1, [embedded(apart)])


@pytest.fixture(scope="module")
def both():
    return paper_table(1, [paper(apart)])


def test_a_toys_accuracies_stand_in_a_block_of_their_own(decided):
    kinds = decided.frame.groupby("block", sort=False)["source"].unique()
    assert list(kinds.index) == ["measured", "published"]
    assert all(len(sources) == 1 for sources in kinds)
    sections = decided.sections()
    assert "not comparable with published values" in sections[0].title
    assert [x.title.startswith("Published") for x in sections] == [False, True, True]
    assert "published" not in str(sections[0].rows)
    assert any("never these accuracies with the published ones" in x for x in decided.notes)
    assert sections[0].header == ["method", "seeds", "table_walk"]  # one benchmark: no average


def test_the_papers_models_and_benchmarks_stand_beside_the_published_values(both):
    assert set(both.frame["block"]) == {"measured and published"}
    assert set(both.frame["model"]) == {SMALL, LARGE}
    printed = published_table(1)
    for (model, method, benchmark), value in printed.set_index(["model", "method", "benchmark"])[
        "value"
    ].items():
        found = row(both, method, benchmark, model, "published")
        assert found["value"] == value
        assert (found["mark"], found["n_seeds"]) == ("", 0)
        assert np.isnan(found["low"])
    section = both.sections()[0]
    grpo = [x for x in section.rows if x[0] == "GRPO"]
    assert [x[1] for x in grpo] == ["measured", "published"]
    aime = section.header.index("AIME24")
    assert grpo[0][aime].startswith("38.")
    assert grpo[1][aime] == "33.4"
    assert grpo[0][section.header.index("HMMT25")] == DASH
    assert any("not evaluated here on HMMT25, MATH500" in note for note in both.notes)


def test_each_model_is_compared_with_itself_alone():
    small = paper(close, benchmarks=["aime24"], sizes=["1.5b"])
    large = paper(apart, benchmarks=["aime24"], sizes=["7b"])
    large = replace(large, manifest={**small.manifest, "name": "large"})
    table = paper_table(1, [small, large])
    assert set(marks(table, "AIME24", SMALL).values()) == {"", "tie"}
    assert marks(table, "AIME24", LARGE)[TOP] == "best"
    sweeps = table.frame[table.frame["source"] == "measured"].groupby("model")["sweep"].first()
    assert sweeps.to_dict() == {SMALL: "paper/algorithms", LARGE: "large"}


def test_averages_are_over_the_benchmarks_that_were_measured(both):
    per_seed = pd.DataFrame({
        b: cells(apart, TOP, b).mean(axis=1) for b in ("aime24", "aime25")
    })  # fmt: skip
    mean = per_seed.mean(axis=1)
    low, high = stats.ttest_1samp(mean, 0).confidence_interval(0.95)
    found = row(both, TOP, "Avg", SMALL)
    assert (found["value"], found["low"], found["high"]) == pytest.approx(
        (100 * mean.mean(), 100 * low, 100 * high)
    )
    assert found["over"] == "AIME24, AIME25"
    assert found["mark"] == "best"
    expected = iqm_estimate(per_seed)
    iqm = row(both, TOP, "IQM", SMALL)
    assert (iqm["value"], iqm["low"]) == pytest.approx((100 * expected.value, 100 * expected.low))
    assert iqm["mark"] == ""
    assert both.frame["high"].max() == 100  # of 83 percent with a wide interval
    quoted = row(both, "GRPO", "Avg", SMALL, "published")
    assert quoted["value"] == pytest.approx((33.4 + 28.1) / 2)
    assert quoted["method_of_interval"].startswith("computed")
    assert both.sections()[0].header[-2:] == ["Avg of 2", "IQM of 2"]


def test_the_average_that_the_paper_prints_is_quoted_as_printed():
    table = paper_table(2, [embedded(apart)])
    found = row(table, "CISPO", "Avg", source="published")
    assert (found["value"], found["method_of_interval"]) == (47.6, "published without an interval")
    names = ["aime24", "aime25", "hmmt25", "math500", "amc23"]
    whole = paper_table(2, [paper(close, benchmarks=names, sizes=["1.5b"])])
    assert row(whole, "GSPO", "Avg", SMALL, "published")["value"] == 54.3
    assert whole.sections()[0].header[-2:] == ["Avg", "IQM"]


def test_other_benchmarks_and_scales_of_the_papers_model_are_not_set_beside_it():
    mixed = paper_table(1, [paper(apart, benchmarks=["aime24", "math"], sizes=["1.5b"])])
    assert set(mixed.frame.loc[mixed.frame["benchmark"] == "math", "block"]) == {"measured"}
    assert row(mixed, "GRPO", "AIME24", SMALL)["block"] == "measured and published"
    assert "not comparable" in mixed.sections()[0].title
    assert not any(head.startswith("Avg") for head in mixed.sections()[1].header)
    assert "Avg" not in set(mixed.frame.loc[mixed.frame["source"] == "measured", "benchmark"])
    small = paper_table(
        1, [replace(paper(apart, benchmarks=["aime24"], sizes=["7b"]), scale="GPU")]
    )
    assert set(small.frame["block"]) == {"measured", "published"}
    second = paper_table(2, [paper(apart, benchmarks=["aime24"])])  # the paper's Table 2 has no 7B
    blocks = second.frame[second.frame["source"] == "measured"].groupby("model")["block"].first()
    assert blocks.to_dict() == {SMALL: "measured and published", "r1-distill-qwen-7b": "measured"}


def test_arms_are_found_by_what_they_are_and_a_second_one_is_told():
    runs = [run("GRPO", seed, apart, name="my baseline") for seed in SEEDS]
    again = [replace(run("GRPO", seed, close, name="again"), trial_id=f"x{seed}") for seed in SEEDS]
    table = paper_table(1, [sweep([*runs, *again])])
    assert row(table, "GRPO")["value"] == pytest.approx(
        100 * cells(apart, "GRPO").to_numpy().mean()
    )
    assert any("Arm again" in note and "the row is arm my baseline" in note for note in table.notes)


def test_runs_that_sweeps_share_need_no_note_and_rows_of_several_sweeps_do():
    grpo = [run("GRPO", seed, apart) for seed in SEEDS]
    dapo = [run("DAPO", seed, apart) for seed in SEEDS]
    shared = paper_table(1, [sweep([*grpo, *dapo], "a"), sweep(grpo, "b")])
    assert not any("as well" in note or "several sweeps" in note for note in shared.notes)
    split = paper_table(1, [sweep(grpo, "a"), sweep(dapo, "b")])
    assert any("GRPO from a; DAPO from b" in note for note in split.notes)
    assert row(split, "base")["sweep"] == "a, b"


def test_bad_input_is_one_clear_line():
    with pytest.raises(LabError, match="unknown table of the paper '3'"):
        paper_table(3, [embedded(apart, ["GRPO"])])
    with pytest.raises(LabError, match=r"no arm of the sweeps given \('algorithms'\)"):
        paper_table(2, [embedded(apart, ["GRPO"])])
    with pytest.raises(LabError, match=r"\(none\)"):
        paper_table(1, [])
    blind = embedded(apart, ["GRPO"])
    with pytest.raises(LabError, match="has a held-out accuracy"):
        paper_table(1, [replace(blind, evals=blind.evals.iloc[:0])])
    old = sweep([replace(run("DAPO", s, apart, version=2), trial_id=f"v{s}") for s in SEEDS], "old")
    with pytest.raises(LabError, match="different versions of table_walk"):
        paper_table(1, [embedded(apart, ["GRPO"]), old])


def test_the_csv_gives_the_numbers_back(both):
    back = pd.read_csv(io.StringIO(to_csv(both)), keep_default_na=False, na_values=[""])
    numbers = ["value", "low", "high", "n_seeds", "n_planned"]
    pd.testing.assert_frame_equal(back[numbers], both.frame[numbers], check_dtype=False)
    texts = ["table", "source", "model", "method", "benchmark", "method_of_interval"]
    pd.testing.assert_frame_equal(back[texts], both.frame[texts], check_dtype=False)


def test_names_with_special_characters_are_escaped():
    odd = r"a_b%&#$~^{}|*[x]\<"
    runs = [run(m, s, apart, model=odd) for m in ("GRPO", "DAPO") for s in SEEDS]
    table = paper_table(1, [sweep(runs)])
    tex = to_latex(table)
    escaped = r"a\_b\%\&\#\$\textasciitilde{}\textasciicircum{}\{\}|*{[}x{]}\textbackslash{}$<$"
    assert escaped in tex
    assert r"table\_walk" in tex
    assert r"a_b%&#$~^{}\|\*[x]\\\<" in to_markdown(table)


def test_the_latex_is_a_float_of_whole_tabulars(both):
    tex = to_latex(both)
    assert tex.isascii()
    for name in ("table", "tabular", "minipage"):
        assert tex.count(rf"\begin{{{name}}}") == tex.count(rf"\end{{{name}}}") > 0
    assert tex.count(r"\toprule") == tex.count(r"\bottomrule") == 2
    for body in tex.split(r"\begin{tabular}{")[1:]:
        columns = len(body.split("}")[0])
        rows = [x for x in body.split(r"\bottomrule")[0].splitlines() if x.endswith(r" \\")]
        assert len(rows) == 11
        assert {x.replace(r"\&", "").count("&") for x in rows} == {columns - 1}
    plain = tex.replace("\\\\", "").replace(r"\{", "").replace(r"\}", "")
    assert plain.count("{") == plain.count("}")
    assert "\\\\\n[" not in tex
    assert "\\\\[" not in tex


def test_markdown_rows_match_their_heads(both, tied):
    for table in (both, tied):
        for section in table.sections():
            assert {len(cells) for cells in section.rows} == {len(section.header)}
        text = to_markdown(table)
        assert all(f"- {note}".split("*")[0] in text for note in table.notes)


def test_the_record_names_the_trials_that_were_used_and_no_other():
    table = paper_table(2, [embedded(apart)])
    made_by = json.loads(json.dumps(table.made_by))
    assert {trial["arm"] for trial in made_by["trials"]} == {"CISPO", "GSPO", "CE-GPPO(0.5, 1)"}
    assert len(made_by["trials"]) == 3 * len(SEEDS)
    assert made_by["query"]["published"] == "arXiv 2509.20712 v5, Table 2"
    assert made_by["query"]["methods"]["CISPO"] == {"algorithm": "cispo"}
    assert made_by["code"] == artifacts.code_versions(embedded(apart))
