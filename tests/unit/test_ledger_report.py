"""The token ledger on the sweep's page: its numbers equal scipy's, and only where runs have it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from analysis import ledger
from analysis.figures import ledger as figures
from analysis.load import StoreSource, load_sweep
from analysis.report import write_report
from cegppo_lab import metrics as names
from cegppo_lab.store import RunStore
from tests.unit.synthetic_sweep import (
    ARMS,
    SEEDS,
    manifest,
    metrics_at,
    shared_sweep,
    trial_id,
    write_trial,
)

ARM = "CE-GPPO(0.5, 1)"
OURS = [arm for arm in ARMS if arm["name"] in ("GRPO", ARM)]


def with_ledger(arm: str, step: int, noise: np.random.Generator) -> dict[str, float]:
    values = metrics_at(arm, step, noise)
    if not step:
        return values
    for kind in names.LEDGER_CLASSES:
        values[names.ledger(kind, names.LEDGER_TOKENS)] = float(noise.integers(1, 100))
        values[names.ledger(kind, names.LEDGER_MASS)] = noise.random()
        values[names.ledger(kind, names.LEDGER_ENTROPY)] = 1e-6 * noise.normal()
    changes = [values[names.ledger(kind, names.LEDGER_ENTROPY)] for kind in names.LEDGER_CLASSES]
    values[names.LEDGER_PREDICTED] = sum(changes)
    values[names.LEDGER_MEASURED] = 1e3 * sum(changes) + 3e-3 * noise.normal()
    values[names.LEDGER_RATCHET] = 0.01 * noise.random()
    return values


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = RunStore(tmp_path_factory.mktemp("ledger"))
    store.write_manifest(manifest("ledger", OURS))
    for arm in OURS:
        for seed in SEEDS:
            write_trial(store, arm, seed, at=with_ledger)
    return store


def runs(store, key):
    """Seed x step of the arm's metric, read without the analysis."""
    rows = [store.run(trial_id(ARM, seed)).steps() for seed in SEEDS]
    return np.array([[r.metrics[key] for r in run if r.step] for run in rows])


def interval(values, digits, scale=1.0):
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    numbers = [scale * number for number in (values.mean(), low, high)]
    return "{} [{}, {}]".format(*(f"{number:.{digits}f}" for number in numbers))


def cell(data, title, column):
    section = next(one for one in ledger.sections(data) if one.title.startswith(title))
    row = next(row for row in section.rows if row[0] == ARM)
    return row[section.header.index(column)]


def test_a_share_is_that_of_the_classes_sizes_with_scipys_interval(store):
    data = load_sweep(store, "ledger")
    for title, quantity in (
        ("Share of the gradient", names.LEDGER_MASS),
        ("Share of the predicted", names.LEDGER_ENTROPY),
    ):
        found = {k: runs(store, names.ledger(k, quantity)) for k in names.LEDGER_CLASSES}
        total = sum(np.abs(table) for table in found.values())
        expected = (found["na_lp_out"] / total).mean(axis=1)
        assert cell(data, title, "NA&LP, clipped") == interval(expected, 1, 100)


def test_the_correlation_is_pearsons_within_each_seed(store):
    data = load_sweep(store, "ledger")
    pairs = zip(
        runs(store, names.LEDGER_PREDICTED), runs(store, names.LEDGER_MEASURED), strict=True
    )
    expected = np.array([stats.pearsonr(*pair).statistic for pair in pairs])
    assert 0.2 < expected.mean() < 0.95
    told = cell(data, "Checks", "correlation of predicted and measured")
    low, high = stats.ttest_1samp(expected, 0).confidence_interval(0.95)
    shown = [
        float(part) for part in told.replace("[", "").replace("]", "").replace(",", "").split()
    ]
    assert shown == pytest.approx([expected.mean(), max(low, -1), min(high, 1)], abs=0.0051)


def without_gradient(arm: str, step: int, noise: np.random.Generator) -> dict[str, float]:
    values = with_ledger(arm, step, noise)
    return {key: 0.0 if key.startswith("ledger/") else value for key, value in values.items()}


def test_an_arm_without_any_gradient_is_drawn_and_told(tmp_path):
    idle = RunStore(tmp_path)
    idle.write_manifest(manifest("idle", OURS[:1]))
    for seed in SEEDS:
        write_trial(idle, OURS[0], seed, at=without_gradient)
    data = load_sweep(idle, "idle")
    for draw in (figures.mass, figures.entropy):
        assert "no gradient" in draw(data).alt


@pytest.mark.slow
def test_the_page_has_the_ledger_with_its_figures_and_tables(store, tmp_path):
    page = write_report(StoreSource(store), "ledger", tmp_path).path_to_index
    html = page.read_text(encoding="utf-8")
    assert "Token ledger" in html
    for title in ("Share of the tokens", "Gradient mass by class", "Predicted entropy change"):
        assert title in html
    for stem in ("ledger_mass", "ledger_entropy"):
        assert {(page.parent / f"{stem}.{end}").exists() for end in ("png", "pdf", "json")} == {
            True
        }


def test_runs_without_a_ledger_have_no_part_of_it():
    data = load_sweep(shared_sweep()[0], "quickstart")
    assert ledger.arms(data) == []
    assert ledger.sections(data) == []
