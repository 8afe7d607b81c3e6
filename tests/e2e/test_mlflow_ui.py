"""A user's way through the MLflow UI to the curves of a sweep's arms, clicked in a real browser."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import pytest

pytest.importorskip("playwright.sync_api", reason="needs: pip install -e '.[browser]'")

from playwright.sync_api import Page

from cegppo_lab.metrics import ENTROPY, GRAD_NORM, PPO_KL
from cegppo_lab.tracking import mirror_sweep
from tests.e2e.mlflow_screenshot import (
    arms_of,
    browser_path,
    browsing,
    colours,
    compare_all,
    curves,
    group_by_arm,
    open_saved_view,
    open_sweep,
    picture,
    serving,
)
from tests.unit.synthetic_sweep import ARMS, shared_sweep

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        browser_path() is None, reason="needs a Chromium in PATH: apt-get install chromium"
    ),
]

NAME = "quickstart"


@pytest.fixture(scope="module")
def tracking_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database with the mirror of a small sweep: 4 arms, 11 trials, one of them stopped early."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"
    mirror_sweep(shared_sweep()[0], NAME, uri)
    return uri


@pytest.fixture(scope="module")
def address(tracking_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tracking_uri, tmp_path_factory.mktemp("ui")) as found:
        yield found


@pytest.fixture
def page(address: str) -> Iterator[Page]:
    """A new browser at the sweep's experiment; no step may have asked another machine."""
    foreign: list[str] = []
    with browsing(foreign) as page:
        open_sweep(page, address, NAME)
        yield page
    assert foreign == []


def stored(metric: str) -> dict[str, dict[int, list[float]]]:
    """By arm and step, the values of all its seeds, from the run store."""
    store = shared_sweep()[0]
    found: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for entry in store.manifest(NAME)["trials"]:
        if entry["trial_id"] in store.trial_ids():
            for row in store.run(entry["trial_id"]).steps():
                found[entry["arm"]][row.step].append(row.metrics[metric])
    return found


def means(metric: str) -> dict[str, dict[int, float]]:
    """By arm and step, the mean over its seeds, under the names that MLflow gives the groups."""
    return {
        f"tag.arm.{arm}": pytest.approx({step: fmean(seen) for step, seen in steps.items()})
        for arm, steps in stored(metric).items()
    }


def test_the_saved_view_shows_a_curve_for_each_arm_in_a_colour_of_its_own(page: Page) -> None:
    open_saved_view(page)
    for metric in (ENTROPY, GRAD_NORM, PPO_KL):
        assert curves(page, metric, len(ARMS)) == means(metric)
    assert len(colours(page, ENTROPY)) == len(ARMS)
    for arm in ARMS:
        assert page.get_by_text(f"Group: {arm['name']}", exact=True).is_visible()
        assert page.get_by_text(f"{arm['name']} ({ENTROPY})", exact=True).count()
    assert page.get_by_text("11 matching runs").is_visible()


def test_grouping_by_the_tag_arm_by_hand_shows_the_same_curves(page: Page) -> None:
    group_by_arm(page)
    assert curves(page, ENTROPY, len(ARMS)) == means(ENTROPY)
    assert curves(page, GRAD_NORM, 0) == {}


def test_the_compare_page_overlays_every_trial_of_the_sweep(page: Page) -> None:
    compare_all(page, ENTROPY)
    drawn = curves(page, ENTROPY, 11)
    store = shared_sweep()[0]
    assert drawn == {
        f"{entry['arm']} seed {entry['seed']}": pytest.approx(
            {row.step: row.metrics[ENTROPY] for row in store.run(entry["trial_id"]).steps()}
        )
        for entry in store.manifest(NAME)["trials"]
        if entry["trial_id"] in store.trial_ids()
    }


def test_the_readme_picture_can_be_made_again(
    page: Page, tracking_uri: str, tmp_path: Path
) -> None:
    assert arms_of(tracking_uri, NAME) == {arm["name"] for arm in ARMS}
    open_saved_view(page)
    curves(page, ENTROPY, len(ARMS))
    picture(page, tmp_path / "compare.png")
    assert 20_000 < (tmp_path / "compare.png").stat().st_size < 300_000
