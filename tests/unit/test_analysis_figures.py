"""Figures: what is drawn equals numpy's own numbers, and what is not whole is marked."""

from __future__ import annotations

import json

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image
from scipy import stats

from analysis import figures, series
from analysis.artifacts import record, save_figure, staged
from analysis.load import load_sweep
from analysis.style import looks
from cegppo_lab.errors import LabError
from cegppo_lab.metrics import ENTROPY, PPO_KL
from cegppo_lab.store import RunStore
from tests.unit.synthetic_sweep import (
    ARMS,
    BENCHMARK,
    EVERY,
    SEEDS,
    STEPS,
    STOP_REASON,
    manifest,
    metrics_at,
    shared_sweep,
    trial_id,
    write_trial,
)


@pytest.fixture(scope="module")
def store():
    return shared_sweep()[0]


@pytest.fixture(scope="module")
def data(store):
    return load_sweep(store, "quickstart")


def raw(store, arm, metric):
    return np.array(
        [[r.metrics[metric] for r in store.run(trial_id(arm, s)).steps()] for s in SEEDS]
    )


def smoothed(values, window=5):
    half = window // 2
    return np.array([
        [row[max(0, i - half) : i + half + 1].mean() for i in range(len(row))] for row in values
    ])  # fmt: skip


def lines_of(axes, color):
    return [line for line in axes.lines if to_hex(line.get_color()).upper() == color.upper()]


def test_the_line_is_the_mean_of_the_smoothed_seeds_and_the_band_scipys_interval(store, data):
    axes = figures.draw(data, "entropy").figure.axes[0]
    expected = smoothed(raw(store, "GRPO", ENTROPY))
    line = lines_of(axes, looks(data.arms)["GRPO"].color)[0]
    np.testing.assert_allclose(line.get_xdata(), np.arange(1, STEPS + 1))
    np.testing.assert_allclose(line.get_ydata(), expected.mean(axis=0))
    low, high = stats.ttest_1samp(expected, 0).confidence_interval(0.95)
    band = axes.collections[0].get_paths()[0].vertices
    at_30 = band[band[:, 0] == 30][:, 1]
    assert (at_30.min(), at_30.max()) == pytest.approx((low[29], high[29]))


def test_evaluations_are_markers_and_not_smoothed(data):
    axes = figures.draw(data, "accuracy").figure.axes[0]
    line = lines_of(axes, looks(data.arms)["GRPO"].color)[0]
    expected = data.accuracy("GRPO", BENCHMARK).to_numpy().mean(axis=0)
    np.testing.assert_allclose(line.get_ydata(), expected)
    assert np.abs(line.get_xdata() - np.arange(0, STEPS + 1, EVERY)).max() < EVERY / 2


def test_the_mean_ends_where_a_seed_ends_and_the_end_is_marked(data):
    drawing = figures.draw(data, "entropy")
    axes = drawing.figure.axes[0]
    lines = lines_of(axes, looks(data.arms)["CE-GPPO(0.75, 1)"].color)
    assert lines[0].get_xdata()[-1] == 40  # no mean of the survivors
    assert [line.get_xdata()[-1] for line in lines if line.get_marker() == "X"] == [40]
    assert sum(line.get_xdata()[-1] == STEPS for line in lines[1:]) == 2
    assert "seed 12 stopped" in [text.get_text() for text in axes.texts]
    assert STOP_REASON in drawing.caption


def test_smoothing_interval_and_missing_seeds_are_stated_on_the_figure(data):
    figure = figures.draw(data, "entropy").figure
    stated = figure.get_supxlabel().replace("\n", " ")
    assert "rolling mean of 5 steps" in stated
    assert "95% t interval" in stated
    assert "DAPO (2 of 3 seeds)" in [t.get_text() for t in figure.legends[0].get_texts()]


@pytest.mark.parametrize("key", [*series.PANELS, "overview"])
def test_the_legend_covers_no_axes(data, key):
    figure = (figures.overview(data) if key == "overview" else figures.draw(data, key)).figure
    figure.draw_without_rendering()
    legend = figure.legends[0].get_window_extent()
    assert not any(legend.overlaps(axes.get_window_extent()) for axes in figure.axes)
    assert all(figure.bbox.x0 <= edge <= figure.bbox.x1 for edge in (legend.x0, legend.x1))


@pytest.mark.parametrize(
    ("level", "kind"),
    [
        (lambda step: 1e-4 * (1 + step / 64), "linear"),
        (lambda step: 10 ** (-5 + 3 * step / 64), "log"),
        (lambda step: (-1) ** step * 10 ** (-5 + 3 * step / 64), "symlog"),
    ],
)
def test_the_kl_axis_follows_the_data_and_says_so(tmp_path, level, kind):
    def at(arm, step, noise):
        return {**metrics_at(arm, step, noise), PPO_KL: level(step)}

    store = RunStore(tmp_path)
    store.write_manifest(manifest("s", ARMS[:1]))
    for seed in SEEDS:
        write_trial(store, ARMS[0], seed, at=at)
    drawing = figures.draw(load_sweep(store, "s"), "kl")
    assert drawing.figure.axes[0].get_yscale() == kind
    assert ("log axis" in drawing.caption) == (kind != "linear")


def test_a_switch_of_a_coefficient_is_a_rule(tmp_path):
    differs = {"algorithm.beta1": {"0": 0.0, "30": 0.5}, "algorithm.beta2": 1.0}
    arm = {"name": "switched", "algorithm": "cegppo", "differs": differs}
    store = RunStore(tmp_path)
    store.write_manifest(manifest("s", [arm]))
    write_trial(store, arm, 11)
    drawing = figures.draw(load_sweep(store, "s"), "entropy")
    assert [30, 30] in [list(line.get_xdata()) for line in drawing.figure.axes[0].lines]
    assert "beta1 from 0 to 0.5 at step 30" in drawing.caption.replace("\xa0", " ")


def test_unknown_figures_and_metrics_that_no_run_has_are_refused(data, tmp_path):
    with pytest.raises(LabError, match="entropy"):
        figures.draw(data, "entrpy")
    store = RunStore(tmp_path)
    store.write_manifest(manifest("s", ARMS[:1]))
    write_trial(store, ARMS[0], 11, at=lambda *_: {ENTROPY: 0.5})
    with pytest.raises(LabError, match="actor/ppo_kl"):
        figures.draw(load_sweep(store, "s"), "kl")


def test_files_carry_what_made_them_and_the_same_store_draws_the_same_bytes(data, tmp_path):
    for place in ("one", "two"):
        drawing = figures.draw(data, "kl")
        made_by = record(data, drawing.title, {"metric": PPO_KL})
        save_figure(drawing.figure, tmp_path / place, "kl", made_by)
    for suffix in ("png", "pdf", "json"):
        one, two = ((tmp_path / place / f"kl.{suffix}").read_bytes() for place in ("one", "two"))
        assert one == two
    sidecar = json.loads((tmp_path / "one" / "kl.json").read_text())
    assert {t["trial_id"] for t in sidecar["trials"]} == set(data.trials["trial_id"])
    assert (sidecar["code"], sidecar["query"]["metric"]) == (["0123abcd"], PPO_KL)
    image = Image.open(tmp_path / "one" / "kl.png")
    assert trial_id("DAPO", 12) in image.text["Source"]
    assert image.info["dpi"] == pytest.approx((200, 200), abs=0.1)


def test_a_failed_block_leaves_no_file_and_no_folder(tmp_path):
    def fail():
        with staged(tmp_path / "new" / "report") as folder:
            (folder / "half.txt").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []
