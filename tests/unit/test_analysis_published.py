"""The published values: the facts of the notes, whole, named as the suite names its arms."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pandas as pd
import pytest

from analysis import published
from analysis.published import (
    published_benchmark,
    published_curve,
    published_model,
    published_table,
)
from cegppo_lab.errors import LabError

ROOT = Path(__file__).resolve().parents[2]
NOTES = ROOT.parent / "shared" / "paper"
READ_OFF = (NOTES / "cegppo.md").read_text() if (NOTES / "cegppo.md").exists() else ""
BENCHMARKS = (
    "AIME24", "AIME25", "HMMT25", "MATH500", "AMC23", "HumanEval", "LCB_v6", "IFBench_P",
    "IFBench_I",
)  # fmt: skip


def cell(number, method, benchmark, model="DS-R1-Distill-Qwen-1.5B"):
    table = published_table(number).set_index(["model", "method", "benchmark"])["value"]
    return table[model, method, benchmark]


@pytest.mark.skipif(not READ_OFF, reason="the notes are not beside this checkout")
@pytest.mark.parametrize("name", ["table1.csv", "table2.csv"])
def test_the_tables_are_those_of_the_notes(name):
    pd.testing.assert_frame_equal(
        pd.read_csv(Path(published.__file__).parent / name), pd.read_csv(NOTES / name)
    )


def test_table_1_is_whole():
    table = published_table(1)
    assert len(table) == 2 * 5 * 9
    assert list(table.columns) == ["model", "method", "beta1", "beta2", "benchmark", "value"]
    assert tuple(table["benchmark"].unique()) == BENCHMARKS
    assert list(table["method"].unique()) == [
        "base", "GRPO", "DAPO", "CE-GPPO(0.5, 1)", "CE-GPPO(0.75, 1)"
    ]  # fmt: skip
    assert table["value"].between(10, 100).all()
    assert cell(1, "CE-GPPO(0.75, 1)", "AIME24", "DS-R1-Distill-Qwen-7B") == 66.0
    betas = table[table["method"] == "CE-GPPO(0.75, 1)"][["beta1", "beta2"]].drop_duplicates()
    assert betas.to_numpy().tolist() == [[0.75, 1.0]]
    assert table.loc[table["method"] == "GRPO", "beta1"].isna().all()


def test_table_2_is_whole_and_its_average_is_one():
    table = published_table(2)
    assert len(table) == 4 * 6
    wide = table.pivot(index="method", columns="benchmark", values="value")
    assert list(table["method"].unique()) == ["base", "CISPO", "GSPO", "CE-GPPO(0.5, 1)"]
    assert wide.drop(columns="Avg").mean(axis=1).round(1).equals(wide["Avg"])


def test_both_tables_say_the_same_where_they_overlap():
    for method in ("base", "CE-GPPO(0.5, 1)"):
        for benchmark in BENCHMARKS[:5]:
            assert cell(1, method, benchmark) == cell(2, method, benchmark)


@pytest.mark.parametrize(
    ("figure", "series", "quantity", "step", "value"),
    [
        (1, "GRPO", "entropy", 250, 0.03),
        (2, "GRPO", "entropy", 50, 0.24),
        (2, "DAPO", "entropy", 225, 1.16),
        (2, "GRPO", "accuracy", 250, 0.506),
        (2, "DAPO", "accuracy", 500, 0.614),
        (2, "CE-GPPO(0.75, 1)", "accuracy", 870, 0.660),
        (2, "CE-GPPO(0.75, 1)", "entropy_high", 550, 0.70),
    ],
)
def test_a_read_off_is_where_the_notes_put_it(figure, series, quantity, step, value):
    curve = published_curve(figure).set_index(["series", "quantity", "step"])["value"]
    assert curve[series, quantity, float(step)] == value
    if READ_OFF:
        assert f"{value:g}".lstrip("0") in READ_OFF


def test_a_level_without_a_step_has_none():
    curve = published_curve(1)
    unknown = curve[curve["step"].isna()]
    assert unknown[["series", "value"]].to_numpy().tolist() == [["CE-GPPO(0, 1)", 1.05]]
    assert published_curve(2)["step"].notna().all()


def test_entropies_and_accuracies_keep_to_their_units():
    curve = published_curve(2)
    assert set(curve["quantity"]) == {"entropy", "entropy_low", "entropy_high", "accuracy"}
    assert curve.loc[curve["quantity"] == "accuracy", "value"].between(0.5, 0.7).all()


@pytest.mark.parametrize(
    ("name", "paper"),
    [
        ("r1-distill-qwen-1.5b", "DS-R1-Distill-Qwen-1.5B"),
        ("r1-distill-qwen-7b", "DS-R1-Distill-Qwen-7B"),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "DS-R1-Distill-Qwen-7B"),
        ("my-r1-distill-qwen-7b", None),
        ("r1-distill-qwen-70b", None),
        ("table_walk", None),
        ("", None),
    ],
)
def test_a_model_is_the_papers_only_by_its_whole_name(name, paper):
    assert published_model(name) == paper


@pytest.mark.parametrize(
    ("name", "paper"),
    [("aime24", "AIME24"), ("lcb_v6", "LCB_v6"), ("livecodebench_v6", "LCB_v6"),
     ("ifbench_prompt", "IFBench_P"), ("math500", "MATH500"), ("math", None), ("avg", None),
     ("table_walk", None)],
)  # fmt: skip
def test_a_benchmark_is_the_papers_only_by_its_whole_name(name, paper):
    assert published_benchmark(name) == paper


@pytest.mark.parametrize("load", [published_table, published_curve])
def test_another_number_is_one_clear_line(load):
    with pytest.raises(LabError, match="Allowed: 1, 2"):
        load(3)


def test_the_wheel_carries_the_values_and_their_source(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel"]
    subprocess.run(
        [*build, "--directory", str(tmp_path)], cwd=ROOT, check=True, capture_output=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    packed = {name for name in ZipFile(wheel).namelist() if name.startswith("analysis/published/")}
    own = Path(published.__file__).parent
    carried = {f"analysis/published/{path.name}" for path in own.iterdir() if path.is_file()}
    assert packed == carried
    assert "arXiv 2509.20712" in (own / "README.md").read_text()
