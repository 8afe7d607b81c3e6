"""Reports of final evaluations: numbers of the store, told gaps, the same bytes, no requests."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from scipy import stats

from analysis.__main__ import main
from analysis.evaluations import Entry, write_evaluations
from analysis.evaluations.report import prepare
from analysis.paper_tables import to_markdown
from analysis.paper_tables.layout import DASH
from analysis.stats import pass_at_k
from cegppo_lab.benchmark import load_benchmark
from cegppo_lab.errors import LabError
from cegppo_lab.files import write_json
from tests.unit.synthetic_evaluations import chances, evaluate

COUNT, SAMPLES = 12, 4
GOOD, BAD = chances(1, 0.8), chances(2, 0.2)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Two policies on two benchmarks of 12 problems x 4 samples: (root, entries, out, result)."""
    folder = tmp_path_factory.mktemp("evaluations")
    root = folder / "runs" / "_evaluations"
    entries = [
        evaluate(root, policy, score, benchmark=name, title=title)
        for policy, score in (("base", BAD), ("trained", GOOD))
        for name, title in (("easy", "Easy <1>"), ("hard", "Hard"))
    ]
    return root, entries, folder / "out", write_evaluations(root, "mine", entries, folder / "out")


def scores(score):
    """(problems, samples) as they were written."""
    return np.array([[score(p, s) for s in range(SAMPLES)] for p in range(COUNT)])


def row(frame, **keys):
    """The only row with those values."""
    for key, value in keys.items():
        frame = frame[frame[key] == value]
    assert len(frame) == 1
    return frame.iloc[0]


def accuracy(out, **keys):
    return row(pd.read_csv(out / "accuracy.csv"), **keys)


def drawn(root, *entries):
    """The numbers as printed: (frame, markdown, what is not whole)."""
    made = prepare(root, "mine", entries)
    return made.table.frame, to_markdown(made.table), made.problems


def test_the_table_has_the_mean_scores_and_students_interval_over_problems(report):
    _, _, out, _ = report
    means = 100 * scores(GOOD).mean(axis=1)
    low, high = stats.ttest_1samp(means, 0).confidence_interval(0.95)
    found = accuracy(out, policy="trained", benchmark="Hard", measure="avg")
    assert (found["value"], found["low"]) == pytest.approx((means.mean(), low))
    assert found["high"] == pytest.approx(min(100, high))
    assert (found["k"], found["problems"], found["responses"]) == (4, 12, 48)


def test_the_average_is_over_benchmarks_with_an_interval_of_theirs(report):
    frame = pd.read_csv(report[2] / "accuracy.csv")
    frame = frame[(frame["policy"] == "base") & (frame["measure"] == "avg")]
    parts, whole = frame.iloc[:-1], frame.iloc[-1]
    assert whole["benchmark"] == "Avg"
    assert whole["value"] == pytest.approx(parts["value"].mean())
    assert whole["high"] - whole["value"] == pytest.approx(
        np.hypot(*(parts["high"] - parts["value"])) / 2
    )


def test_pass_and_majority_are_those_of_all_samples(report):
    _, _, out, _ = report
    verdicts = scores(BAD)
    found = accuracy(out, policy="base", benchmark="Hard", measure="pass")
    assert found["value"] == pytest.approx(100 * verdicts.max(axis=1).mean())
    curve = pd.read_csv(out / "passk.csv")
    curve = curve[(curve["policy"] == "base") & (curve["benchmark"] == "Hard")]
    expected = pass_at_k(np.full(COUNT, SAMPLES), verdicts.sum(axis=1)).mean(axis=0)
    assert curve["k"].tolist() == [1, 2, 4]
    assert curve["value"].tolist() == pytest.approx((100 * expected[[0, 1, 3]]).tolist())
    votes = []  # right answers agree; the wrong ones are "2" (even samples) and "3" (odd ones)
    for own in verdicts:
        counts = {"1": own.sum(), "2": (own[::2] == 0).sum(), "3": (own[1::2] == 0).sum()}
        tops = [a for a in counts if counts[a] == max(counts.values())]
        votes.append(("1" in tops) / len(tops))
    found = accuracy(out, policy="base", benchmark="Hard", measure="maj")
    assert found["value"] == pytest.approx(100 * np.mean(votes))


def test_lengths_and_truncation_are_means_over_problems(report):
    frame = pd.read_csv(report[2] / "responses.csv")
    length = row(frame, policy="base", benchmark="Hard", quantity="length")
    assert (length["value"], length["unit"]) == (pytest.approx(10 + 5.5 + 1.5), "tokens")
    cut = row(frame, policy="base", benchmark="Hard", quantity="truncated")
    assert (cut["value"], cut["method"]) == (25, "same in all 12 problems: no interval")


def test_policies_are_compared_on_the_same_problems_and_the_best_is_marked(report):
    _, _, out, _ = report
    found = row(pd.read_csv(out / "differences.csv"), benchmark="Hard")
    a, b = scores(GOOD).mean(axis=1), scores(BAD).mean(axis=1)
    low, high = stats.ttest_rel(100 * a, 100 * b).confidence_interval(0.95)
    assert (found["policy"], found["reference"]) == ("trained", "base")
    assert (found["low"], found["high"]) == pytest.approx((low, high))
    assert found["p"] == found["p_holm"] < 0.05
    assert accuracy(out, policy="trained", benchmark="Hard", measure="avg")["mark"] == "best"
    markdown = (out / "accuracy.md").read_text()
    assert re.search(r"\| trained \| \*\*\d+\.\d★ \[", markdown)
    assert r"Easy \<1>" in markdown
    assert r"\textbf{" in (out / "accuracy.tex").read_text()


def test_the_page_is_whole_escaped_and_asks_for_nothing(report, tmp_path):
    root = tmp_path / "_evaluations"
    text = "<script>alert(1)</script> \x00 {answer}"
    entries = [evaluate(root, "<i>p</i>", GOOD, benchmark="easy", text=text)]
    html = write_evaluations(root, "mine", entries, tmp_path / "out").path_to_index.read_text()
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)" in html
    assert "<i>p" not in html
    assert "\x00" not in html
    for told in ("hand-made", "c0ffee", "0.95", "{problem} &lt;think&gt;", "0123abcd", "64",
                 "python -m analysis evaluations --store"):  # fmt: skip
        assert told in html, told
    own = report[3].path_to_index.read_text()
    assert not re.findall(r'(?:src|srcset|href)="(?!data:|#)', html + own)
    assert own.count("data:image/png") == 2


def test_the_same_store_gives_the_same_bytes(report, tmp_path):
    root, entries, out, _ = report
    command = str(out)
    write_evaluations(root, "mine", entries, tmp_path / "again")
    for path in sorted(out.iterdir()):
        again = (tmp_path / "again" / path.name).read_bytes()
        assert again.replace(str(tmp_path / "again").encode(), command.encode()) == (
            path.read_bytes()
        ), path.name
    names = {path.name for path in out.iterdir()}
    assert {"accuracy.json", "passk.json", "passk.pdf", "passk.png", "responses.json"} <= names
    made_by = json.loads((out / "passk.json").read_text())
    assert [e["evaluation_id"] for e in made_by["evaluations"]] == [
        entry.evaluation_id for entry in entries
    ]
    assert made_by["code"] == ["0123abcd"]


def test_an_unfinished_evaluation_counts_what_is_there_and_says_so(tmp_path):
    frame, markdown, problems = drawn(tmp_path, evaluate(tmp_path, "p", GOOD, done=30))
    assert any("30 of 48 responses" in told for told in problems)
    found = row(frame, measure="avg")
    whole, part = scores(GOOD)[:7].mean(axis=1), scores(GOOD)[7, :2].mean()
    assert found["value"] == pytest.approx(100 * np.mean([*whole, part]))
    assert (found["responses"], found["problems"], found["k"]) == (30, 8, 2)
    assert "30 of 48 responses" in markdown


def test_a_torn_last_batch_is_not_counted(tmp_path):
    entry = evaluate(tmp_path, "p", GOOD, done=20)
    with open(tmp_path / entry.evaluation_id / "samples.jsonl", "a") as file:
        file.write('{"problem":["easy/9"],"sam')
    assert row(drawn(tmp_path, entry)[0], measure="avg")["responses"] == 20


def test_a_part_of_the_problems_or_samples_is_taken_from_what_is_there(tmp_path):
    entry = replace(evaluate(tmp_path, "p", BAD), problems=5, samples=2)
    frame, _, problems = drawn(tmp_path, entry)
    found = row(frame, measure="avg")
    assert found["benchmark"] == "easy (5 of 12)"
    assert found["value"] == pytest.approx(100 * scores(BAD)[:5, :2].mean())
    assert not problems


def test_a_table_of_fewer_samples_gives_way_to_the_log_that_goes_on(tmp_path):
    entry = evaluate(tmp_path, "p", BAD, samples=2)
    again = evaluate(tmp_path, "p", BAD, samples=4, finish=False)
    found = row(drawn(tmp_path, again)[0], measure="avg")
    assert (found["responses"], found["value"]) == (48, pytest.approx(100 * scores(BAD).mean()))
    assert row(drawn(tmp_path, entry)[0], measure="avg")["responses"] == 24


def test_the_log_and_the_table_give_the_same_numbers(tmp_path):
    entry = evaluate(tmp_path, "p", BAD)
    whole = drawn(tmp_path, entry)[0]
    (tmp_path / entry.evaluation_id / "samples.parquet").unlink()
    pd.testing.assert_frame_equal(drawn(tmp_path, entry)[0], whole)


def test_no_success_has_the_exact_interval_and_one_problem_none(tmp_path):
    entry = evaluate(tmp_path, "p", lambda *_: -1.0, count=20, samples=2)
    one = evaluate(tmp_path, "p", GOOD, benchmark="one", count=1)
    made = prepare(tmp_path, "mine", [entry, one])
    text = made.text()
    assert re.search(r"p +0\.0 \[0\.0,16\.8\]", text)
    assert "(1 problem: no interval)" in text
    average = row(made.table.frame, benchmark="Avg", measure="avg")
    assert np.isnan(average["low"])
    assert average["method"] == "a benchmark has no interval: no interval"


def test_one_sample_a_problem_has_a_figure_and_no_second_table(tmp_path):
    entry = evaluate(tmp_path, "p", GOOD, samples=1)
    write_evaluations(tmp_path, "mine", [entry], tmp_path / "out")
    frame = pd.read_csv(tmp_path / "out" / "accuracy.csv")
    assert frame["measure"].tolist() == ["avg"]
    assert (tmp_path / "out" / "passk.png").stat().st_size > 10_000


def test_a_benchmark_that_a_policy_lacks_is_a_dash_without_an_average(tmp_path):
    entries = [
        evaluate(tmp_path, "a", GOOD),
        evaluate(tmp_path, "a", GOOD, benchmark="hard", title="Hard"),
        evaluate(tmp_path, "b", BAD),
        Entry("b", "hard", "nowhere", 4, None),
    ]
    _, markdown, problems = drawn(tmp_path, *entries)
    assert re.search(rf"\| b \| \d+\.\d\S* \[.*\] \| {DASH} \| {DASH} \|", markdown)
    assert problems == ["b on Hard: no response yet."]


@pytest.mark.parametrize(
    ("change", "told"),
    [({"temperature": 1.0}, "temperature"), ({"content_hash": "other"}, "content_hash")],
)
def test_policies_evaluated_differently_are_not_put_side_by_side(tmp_path, change, told):
    entries = [evaluate(tmp_path, "a", GOOD), evaluate(tmp_path, "b", BAD, **change)]
    with pytest.raises(LabError, match=f"a and b differ in {told} on easy"):
        write_evaluations(tmp_path, "mine", entries, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_mistakes_are_one_line(tmp_path):
    with pytest.raises(LabError, match="no response of 1 evaluations"):
        write_evaluations(tmp_path, "mine", [Entry("p", "x", "none", 2, None)], tmp_path / "out")
    entry = evaluate(tmp_path, "p", GOOD)
    with pytest.raises(LabError, match="p comes twice on easy"):
        write_evaluations(tmp_path, "mine", [entry, entry], tmp_path / "out")
    (tmp_path / entry.evaluation_id / "samples.parquet").write_bytes(b"PAR1 no table")
    with pytest.raises(LabError, match="is no table of samples") as error:
        write_evaluations(tmp_path, "mine", [entry], tmp_path / "out")
    assert "\n" not in str(error.value)


PAPER = "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"


def aime24(root, policy=PAPER, **changes):
    """AIME24 as its definition says, all wrong; with ``changes`` to how it was evaluated."""
    pinned = load_benchmark("aime24")
    options = {
        "count": pinned.count, "samples": pinned.samples, "temperature": pinned.temperature,
        "top_p": pinned.top_p, "max_tokens": pinned.max_tokens,
        "content_hash": pinned.content_sha256[0], **changes,
    }  # fmt: skip
    return evaluate(root, policy, lambda *_: 0.0, benchmark="aime24", title="AIME24", **options)


def test_published_values_stand_in_rows_of_their_own_where_sampling_is_the_pinned_one(tmp_path):
    frame, markdown, problems = drawn(tmp_path, aime24(tmp_path))
    assert f"| {PAPER} | measured | 0.0 [0.0, 11.6] |" in markdown
    assert "| DS-R1-Distill-Qwen-7B, base | published | 54.5 |" in markdown
    assert "| DS-R1-Distill-Qwen-7B, CE-GPPO(0.75, 1) | published | 66.0 |" in markdown
    assert not problems
    assert set(frame["policy"]) == {PAPER}


@pytest.mark.parametrize(
    "change",
    [{"samples": 2}, {"temperature": 1.0}, {"top_p": 1.0}, {"max_tokens": 64},
     {"content_hash": "0" * 64}, {"done": 90}],
)  # fmt: skip
def test_published_values_are_withheld_for_any_other_sampling(tmp_path, change):
    _, markdown, problems = drawn(tmp_path, aime24(tmp_path, **change))
    assert "54.5" not in markdown
    assert any("paper's values on AIME24 are not shown" in told for told in problems)


def test_published_values_are_withheld_for_a_part_and_for_other_models(tmp_path):
    part = replace(aime24(tmp_path), problems=20)
    _, markdown, problems = drawn(tmp_path, part)
    assert "AIME24 (20 of 30)" in markdown
    assert "54.5" not in markdown
    assert len(problems) == 1
    _, markdown, problems = drawn(tmp_path, aime24(tmp_path, "smollm2-135m"))
    assert (problems, "published" in markdown) == ([], False)


def test_the_command_draws_a_named_report_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = Path("runs/_evaluations")
    entry = evaluate(root, "p", GOOD)
    write_json(root / "_reports" / "mine.json", {"name": "mine", "entries": [vars(entry)]})
    done = CliRunner().invoke(main, ["evaluations", "--name", "mine"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    first = Path("report/mine/index.html").read_bytes()
    command = re.search(rb"<code>python -m (analysis .*?)\n?</code>", first)[1].decode()
    done = CliRunner().invoke(main, command.split()[1:], catch_exceptions=False)
    assert Path("report/mine/index.html").read_bytes() == first
    for words in (["evaluations", "--name", "other"], ["evaluations", "--mlflow", "x"],
                  ["table1", "--name", "mine"]):  # fmt: skip
        with pytest.raises(LabError):
            CliRunner().invoke(main, words, catch_exceptions=False)
