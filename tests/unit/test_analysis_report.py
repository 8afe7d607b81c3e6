"""Tables and the page: numbers equal scipy's, nothing from outside is trusted, no half files."""

from __future__ import annotations

import io
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis import tables
from analysis.answer import answer
from analysis.load import StoreSource, load_sweep
from analysis.report import write_report
from cegppo_lab.errors import LabError
from cegppo_lab.metrics import ENTROPY
from cegppo_lab.store import RunStore
from tests.unit.synthetic_sweep import (
    ARMS,
    BENCHMARK,
    SEEDS,
    STEPS,
    STOP_REASON,
    manifest,
    shared_sweep,
    trial_id,
    write_trial,
)


@pytest.fixture(scope="module")
def store():
    return shared_sweep()[0]


@pytest.fixture(scope="module")
def result(store, tmp_path_factory):
    return write_report(StoreSource(store), "quickstart", tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def frame(store):
    return tables.results_table(load_sweep(store, "quickstart"))


def entropies(store, arm, steps):
    runs = [store.run(trial_id(arm, seed)).steps() for seed in SEEDS]
    return np.array([[r.metrics[ENTROPY] for r in run if r.step in steps] for run in runs])


def row(frame, arm, quantity):
    return frame[(frame["arm"] == arm) & (frame["quantity"] == quantity)].iloc[0]


@pytest.mark.parametrize(
    ("quantity", "steps"),
    [("entropy_start", [1]), ("entropy_mid", range(30, 36)), ("entropy_end", range(59, 65))],
)
def test_an_estimate_is_the_mean_over_seeds_with_scipys_interval(store, frame, quantity, steps):
    seeds = entropies(store, "CE-GPPO(0.5, 1)", steps).mean(axis=1)
    low, high = stats.ttest_1samp(seeds, 0).confidence_interval(0.95)
    found = row(frame, "CE-GPPO(0.5, 1)", quantity)
    assert found["estimate"] == pytest.approx(seeds.mean())
    assert (found["low"], found["high"]) == pytest.approx((max(low, 0), high))


def test_a_difference_is_scipys_paired_one(store, frame):
    ends = [
        entropies(store, arm, range(59, 65)).mean(axis=1) for arm in ("CE-GPPO(0.5, 1)", "GRPO")
    ]
    expected = stats.ttest_rel(*ends).confidence_interval(0.95)
    found = row(frame, "CE-GPPO(0.5, 1)", "entropy_end_difference")
    assert (found["low"], found["high"]) == pytest.approx(tuple(expected))
    assert found["reference"] == "GRPO"


def test_partial_arms_say_how_many_seeds_they_have(frame):
    stopped = row(frame, "CE-GPPO(0.75, 1)", "entropy_end")
    assert (stopped["n_seeds"], stopped["n_planned"]) == (2, 3)
    assert tables.cell(stopped).endswith("(2 of 3 seeds, 1 stopped)")
    assert row(frame, "CE-GPPO(0.75, 1)", "entropy_start")["n_seeds"] == 3
    missing = row(frame, "DAPO", "entropy_end")  # a run that never was is not one that was stopped
    assert tables.cell(missing).endswith("(2 of 3 seeds)")


def test_an_arm_without_runs_is_shown_as_such(tmp_path):
    store = RunStore(tmp_path)
    store.write_manifest(manifest("s", ARMS[:2]))
    write_trial(store, ARMS[0], 11)
    frame = tables.results_table(load_sweep(store, "s"))
    assert tables.cell(row(frame, "DAPO", "entropy_end")) == "n/a (0 of 3 seeds)"
    assert tables.cell(row(frame, "DAPO", "accuracy_end")) == "n/a (0 of 3 seeds)"
    assert tables.cell(row(frame, "GRPO", "entropy_end")).endswith("(1 seed: no interval)")
    for text in (tables.to_markdown(frame), tables.to_terminal(frame)):
        assert "DAPO" in text
        assert "n/a" in text
        assert all("[" not in line for line in text.splitlines() if "GRPO" in line)


def test_the_csv_gives_the_numbers_back(frame):
    back = pd.read_csv(io.StringIO(tables.to_csv(frame)), keep_default_na=False, na_values=[""])
    numbers = ["estimate", "low", "high", "n_seeds", "n_planned"]
    pd.testing.assert_frame_equal(back[numbers], frame[numbers], check_dtype=False)


def test_the_terminal_table_has_every_arm_in_110_columns(frame):
    text = tables.to_terminal(frame)
    assert max(map(len, text.splitlines())) <= 110
    for arm in ARMS:
        assert arm["name"] in text


def test_markdown_rows_match_their_heads_even_with_a_pipe_in_a_name(tmp_path):
    store, arm = RunStore(tmp_path), {"name": "a|b", "algorithm": "grpo", "differs": {}}
    store.write_manifest(manifest("s", [arm, ARMS[1]]))
    for seed in SEEDS:
        write_trial(store, arm, seed)
        write_trial(store, ARMS[1], seed)
    text = tables.to_markdown(tables.results_table(load_sweep(store, "s")))
    assert r"a\|b" in text
    for block in text.split("**")[2::2]:
        rows = [r.replace(r"\|", "") for r in block.splitlines() if r.startswith("|")]
        assert len({r.count("|") for r in rows}) == 1


def test_the_answer_marks_as_apart_only_what_the_interval_separates(store):
    entropy, accuracy = answer(load_sweep(store, "quickstart"))
    ends = {a: entropies(store, a, range(59, 65)).mean(axis=1) for a in ("GRPO", "CE-GPPO(0.5, 1)")}
    assert f"GRPO ({ends['GRPO'].mean():.2f})" in entropy
    assert entropy.index("GRPO (0") < entropy.index("DAPO (0") < entropy.index("(0.5,\xa01) (0")
    assert BENCHMARK in accuracy


@pytest.mark.parametrize(("spread", "sign"), [(0.001, "<"), (0.3, "~")])
def test_the_sign_between_neighbours_follows_the_spread_over_seeds(tmp_path, spread, sign):
    store = RunStore(tmp_path)
    store.write_manifest(manifest("s", ARMS[:2]))
    for arm, level in zip(ARMS[:2], (0.3, 0.5), strict=True):
        for seed, deviation in zip(SEEDS, (-1, 0.2, 0.8), strict=True):
            shift = deviation * (1 if arm["name"] == "DAPO" else -1)
            numbers = {ENTROPY: level + spread * shift}
            write_trial(store, arm, seed, at=lambda *_, numbers=numbers: dict(numbers))
    assert f" {sign} " in answer(load_sweep(store, "s"))[0]


class Page(HTMLParser):
    VOID = frozenset({"meta", "img", "br", "link", "source"})

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_is_whole_self_contained_and_tells_all(store, result):
    assert result.path_to_index.parts[-2:] == ("quickstart", "index.html")
    html = result.path_to_index.read_text()
    page = Page(html)
    text = " ".join(page.words)
    assert page.open == []
    assert "http" not in html
    images = [attrs for tag, attrs in page.tags if tag == "img"]
    assert len(images) == 5
    assert all(i["src"].startswith("data:image/png") and "GRPO from" in i["alt"] for i in images)
    assert not any(tag in {"script", "link", "iframe"} for tag, _ in page.tags)
    told = ["head is scaled by 40", STOP_REASON, "0123abcd", "torch", "trainer.steps=64"]
    assert all(words in text for words in told)
    assert all(t["trial_id"] in text for t in store.manifest("quickstart")["trials"])
    made = {path.name for path in result.path_to_index.parent.iterdir()}
    stems = ["entropy", "accuracy", "reward", "kl", "grad_norm", "overview"]
    assert made == {f"{s}.{x}" for s in stems for x in ("png", "pdf", "json")} | {
        "index.html", "results.md", "results.csv", "results.json",
        "comparisons.md", "comparisons.csv", "comparisons.json", "claims.json",
    }  # fmt: skip


def test_text_from_the_manifest_is_escaped(tmp_path):
    evil = "<script>alert('x')</script>"
    arm = {"name": evil, "algorithm": evil, "differs": {f"algorithm.{evil}": evil}}
    store = RunStore(tmp_path / "runs")
    store.write_manifest(manifest("s", [arm], question=evil, notes=[evil], overrides=[evil]))
    write_trial(store, arm, 11, last=9, state="failed", reason=evil, at=lambda *_: {ENTROPY: 0.5})
    html = write_report(StoreSource(store), "s", tmp_path / "report").path_to_index.read_text()
    assert evil not in html
    assert html.count("&lt;script&gt;") >= 7
    assert not any(tag == "script" for tag, _ in Page(html).tags)


def test_a_second_report_replaces_the_first_and_keeps_other_files(store, result):
    index = result.path_to_index
    before = index.read_bytes()
    index.write_text("old")
    (index.parent / "mine.bib").write_text("notes")
    write_report(StoreSource(store), "quickstart", index.parents[1])
    assert index.read_bytes() == before
    assert (index.parent / "mine.bib").read_text() == "notes"
    assert [path.name for path in index.parents[1].iterdir()] == ["quickstart"]


def test_an_unknown_sweep_creates_nothing(store, tmp_path):
    with pytest.raises(LabError, match="quickstart"):
        write_report(StoreSource(store), "quickstrat", tmp_path / "report")
    assert list(tmp_path.iterdir()) == []


def test_a_report_of_one_unfinished_run_says_what_it_cannot(tmp_path):
    store = RunStore(tmp_path / "runs")
    store.write_manifest(manifest("s", ARMS[:1]))
    write_trial(store, ARMS[0], 11, last=3, state="running", at=lambda *_: {ENTROPY: 0.5})
    result = write_report(StoreSource(store), "s", tmp_path / "report")
    assert any("no kl figure" in told for told in result.problems)
    assert "No run has reached" in result.path_to_index.read_text()
    assert f"3 of {STEPS}" in result.path_to_index.read_text()
