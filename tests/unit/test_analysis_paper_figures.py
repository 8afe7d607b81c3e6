"""The paper's six figures: the right arms and panels, nothing invented, what is missing said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_hex

from analysis.figures.paper import FIGURES, paper_figure
from analysis.select import by_model, find, matches, short_named
from analysis.style import looks
from cegppo_lab.errors import LabError
from cegppo_lab.metrics import ENTROPY
from tests.unit.synthetic_paper import SEEDS, STEPS, Memory, run, sweep, tokens


@pytest.fixture(scope="module")
def source():
    return Memory()


def drawn(source, key, **options):
    return paper_figure(key, [source.sweep(FIGURES[key].feeds[0])], **options)


def labels(drawing):
    return [text.get_text() for text in drawing.figure.legends[0].get_texts()]


@pytest.mark.parametrize(
    ("key", "panels", "arms"),
    [
        ("figure1", ["importance ratio (log axis)", "entropy (nats per token)"], 3),
        ("figure2", ["entropy (nats per token)", "share of responses correct"], 3),
        ("figure3", ["entropy (nats per token)", "share of responses correct"], 4),
        ("figure4", ["KL, k1 estimate (nats per token)", "L2 norm before clipping"], 2),
        ("figure5", ["entropy (nats per token)", "share of responses correct"], 4),
        ("figure6", ["entropy (nats per token)", "share of responses correct"], 2),
    ],
)
def test_a_figure_has_the_papers_panels_and_arms(source, key, panels, arms):
    drawing = drawn(source, key)
    assert [axes.get_ylabel() for axes in drawing.figure.axes] == panels
    assert len(labels(drawing)) == arms
    assert "Scale: embedded (table_walk)." in drawing.caption


def test_a_line_is_its_arms_mean(source):
    data = source.sweep("algorithms")
    axes = drawn(source, "figure4").figure.axes[1]
    color = looks(data.arms)["CE-GPPO(0.75, 1)"].color
    line = next(ln for ln in axes.lines if to_hex(ln.get_color()).upper() == color.upper())
    expected = data.metric("CE-GPPO(0.75, 1)", "actor/grad_norm").mean()
    np.testing.assert_allclose(line.get_ydata(), expected)


def test_the_scatter_shows_the_stored_tokens_and_their_share(source):
    drawing = drawn(source, "figure1")
    scatter = drawing.figure.axes[0]
    points = np.concatenate([c.get_offsets() for c in scatter.collections])
    one = tokens(1)
    assert len(points) == 4 * 2 * len(SEEDS)
    assert {tuple(point) for point in points.tolist()} == set(
        zip(one.probability, one.ratio, strict=True)
    )
    edges = sorted(line.get_ydata()[0] for line in scatter.lines if line.get_ydata()[0] != 0)
    assert edges[:2] == [0.8, 1.2]
    assert "outside are only 20.00% of all" in drawing.caption
    assert "same in all 4 seeds: no interval" in drawing.caption  # one of two has p < 0.5


def test_without_token_samples_the_rest_is_drawn_and_the_lack_is_said(source):
    data = replace(source.sweep("missing_gradients"), load_tokens=None)
    drawing = paper_figure("figure1", [data])
    assert len(drawing.figure.axes) == 1
    assert "has stored token samples" in drawing.caption


def test_the_switch_is_a_rule_at_its_step(source):
    drawing = drawn(source, "figure6")
    for axes in drawing.figure.axes:
        rules = [
            ln for ln in axes.lines if len(set(ln.get_xdata())) == 1 and len(ln.get_xdata()) > 1
        ]
        assert [rule.get_xdata()[0] for rule in rules] == [12]
    assert "from 0 to 0.5 at step 12" in drawing.caption


def two_models():
    benchmarks = ("aime24", "aime25")
    runs = [
        run(arm, seed, name=f"{arm} {size}", model=model, trainer="verl", benchmarks=benchmarks)
        for size, model in (("1.5B", "r1-distill-qwen-1.5b"), ("7B", "r1-distill-qwen-7b"))
        for arm in ("GRPO", "DAPO", "CE-GPPO(0.75, 1)")
        for seed in SEEDS[:2]
    ]
    return sweep("paper/algorithms", runs)


def test_every_model_has_a_row_of_its_own_with_the_same_looks():
    drawing = paper_figure("figure2", [two_models()])
    titles = [axes.get_title(loc="left") for axes in drawing.figure.axes]
    assert len(titles) == 6
    assert sum("1.5b" in title for title in titles) == 3
    assert [t for t in titles if "aime25" in t] == [titles[2], titles[5]]
    assert labels(drawing) == ["GRPO", "DAPO", "CE-GPPO(0.75, 1)"]
    assert "Scale: paper" in drawing.caption
    parts = [short_named(part) for part in by_model(two_models()).values()]
    for part in parts:
        table = part.metric("GRPO", ENTROPY)
        assert list(table.index) == list(SEEDS[:2])
    assert len(parts[0].tokens()) == 3 * 2 * 8


def test_published_marks_are_the_papers_and_only_where_asked_for():
    runs = [run(arm, s, steps=STEPS) for arm in ("GRPO", "DAPO") for s in SEEDS]
    data = sweep("algorithms", runs)
    plain = paper_figure("figure2", [data])
    marked = paper_figure("figure2", [data], published=True)

    def marks(drawing):
        return [ln for ax in drawing.figure.axes for ln in ax.lines if ln.get_marker() == "D"
                and ln.get_markerfacecolor() == "none"]  # fmt: skip

    assert marks(plain) == []
    points = [tuple(p) for ln in marks(marked) for p in zip(*ln.get_data(), strict=True)]
    assert sorted(points) == [(0, 0.65), (0, 0.67)]  # the others lie beyond 20 steps
    assert "published, not measured here" in labels(marked)
    assert "read off" in marked.caption


def test_missing_arms_and_panels_are_said(source):
    runs = [run("CE-GPPO(0.5, 1)", s, benchmarks=(), metrics=(ENTROPY,)) for s in SEEDS]
    drawing = paper_figure("figure2", [sweep("mine", runs)])
    assert len(drawing.figure.axes) == 1
    assert labels(drawing) == ["CE-GPPO(0.5, 1)"]  # stands in for the paper's coefficients
    assert "Not among the arms of mine: algorithm=grpo; algorithm=dapo." in drawing.caption
    assert "No run of mine has logged accuracies." in drawing.caption


def test_a_figure_without_any_panel_is_refused(source):
    data = sweep("mine", [run("GSPO", s) for s in SEEDS])
    with pytest.raises(
        LabError, match="figure4 cannot be drawn: Not among the arms of mine: algorithm=grpo"
    ):
        paper_figure("figure4", [data])


@pytest.mark.parametrize("key", ["figure1", "figure3", "figure5", "figure6"])
def test_a_figure_is_not_drawn_from_arms_that_it_is_not_about(key):
    data = sweep("mine", [run(arm, s) for arm in ("GRPO", "DAPO") for s in SEEDS])
    with pytest.raises(
        LabError, match=f"{key} cannot be drawn: Not among the arms of mine: at least . with"
    ):
        paper_figure(key, [data])


def test_a_plain_selector_takes_no_arm_with_an_extra(source):
    data = source.sweep("entropy_mitigation")
    assert [arm.name for arm in find(data, {"algorithm": "grpo"})] == ["GRPO"]
    bonus = {"algorithm": "grpo", "entropy_coef": "positive"}
    assert [arm.name for arm in find(data, bonus)] == ["GRPO + 0.01 H"]
    switch = source.sweep("beta_switch").arms[1]
    assert matches(switch, {"algorithm": "cegppo", "beta1": "scheduled", "beta2": 1})
    assert not matches(switch, {"algorithm": "cegppo", "beta1": 0.0})


def test_runs_that_ended_early_are_marked_and_told():
    runs = [run("GRPO", s) for s in SEEDS[1:]]
    runs.append(run("GRPO", SEEDS[0], steps=9, state="stopped", reason="entropy below 0.05"))
    runs += [run("CE-GPPO(0.75, 1)", s) for s in SEEDS]
    drawing = paper_figure("figure4", [sweep("algorithms", runs)])
    assert "seed 11 stopped at step 9 (entropy below 0.05)" in drawing.caption
    texts = [t.get_text() for axes in drawing.figure.axes for t in axes.texts]
    assert texts.count("seed 11 stopped") == 2
