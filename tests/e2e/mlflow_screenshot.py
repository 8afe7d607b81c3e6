"""The MLflow UI in a real browser: the steps of a user who compares a sweep's arms, and a picture.

``python -m tests.e2e.mlflow_screenshot --mlflow URI --experiment NAME --out FILE.png`` makes the
README's picture. Needs the extra ``browser`` and a Chromium. Written against MLflow 3.17.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

from playwright.sync_api import FloatRect, Locator, Page, Route, sync_playwright

from cegppo_lab import metrics
from cegppo_lab.tracking.connection import connect_to_read
from cegppo_lab.tracking.experiment import VIEW_NAME
from tests.e2e.lab import start, wait_for

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
LOCAL = ("127.0.0.1", "localhost")
TIMEOUT_MS = 60_000
WIDTH, HEIGHT = 1400, 900

_CURVES = """metric => Object.fromEntries(
    [...document.querySelectorAll('.js-plotly-plot')]
        .flatMap(plot => plot.data ?? [])
        .filter(trace => trace.metricKey === metric && trace.y?.length)
        .map(trace => [trace.name || trace.uuid, [[...trace.x], [...trace.y]]]))"""
_COLOURS = """metric => [...document.querySelectorAll('.js-plotly-plot')]
    .filter(plot => plot.data?.some(trace => trace.metricKey === metric))
    .flatMap(plot => [...plot.querySelectorAll('.scatterlayer path.js-line')])
    .map(line => line.style.stroke)"""


def browser_path() -> str | None:
    """The Chromium of this machine; None if there is none."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


@contextmanager
def serving(uri: str, folder: Path) -> Iterator[str]:
    """The address of an MLflow UI over ``uri``, started as users do; its log is in ``folder``."""
    with socket.create_server((LOCAL[0], 0)) as probe:
        port = probe.getsockname()[1]
    address = f"http://{LOCAL[0]}:{port}"
    server = start(folder, "ui", "--mlflow", uri, "--port", str(port))
    try:
        wait_for(lambda: server.poll() is not None or _answers(address), timeout=120)
        assert server.poll() is None, (folder / "log").read_text()
        yield address
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


@contextmanager
def browsing(foreign: list[str]) -> Iterator[Page]:
    """A new browser that reaches this machine only; ``foreign`` gets what else was asked for."""

    def pass_or_refuse(route: Route) -> None:
        address = urlsplit(route.request.url)
        if address.scheme in ("http", "https", "ws", "wss") and address.hostname not in LOCAL:
            foreign.append(route.request.url)
            route.abort()
        else:
            route.continue_()

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path())
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.set_default_timeout(TIMEOUT_MS)
        page.route("**/*", pass_or_refuse)
        closing = page.locator("[data-component-id='mlflow.assistant.chat_panel.close']")
        page.add_locator_handler(closing, lambda button: button.click())
        try:
            yield page
        finally:
            browser.close()


def open_sweep(page: Page, address: str, name: str) -> None:
    """Step 1: the experiment of one sweep."""
    page.goto(address)
    page.get_by_text("Model training", exact=True).click()
    page.get_by_role("link", name="Experiments", exact=True).click()
    page.get_by_role("link", name=name, exact=True).click()
    page.get_by_role("button", name="Views").wait_for()


def open_saved_view(page: Page) -> None:
    """Step 2: the view that the mirror saved, and its charts."""
    page.get_by_role("button", name="Views").click()
    page.get_by_role("menuitem", name=VIEW_NAME).click()
    page.get_by_role("button", name="Group by: arm").wait_for()
    open_charts(page)


def open_charts(page: Page) -> None:
    """The chart symbol above the list of runs."""
    page.locator("label:has(input[name='runs-view-mode'][value='CHART'])").click()


def group_by_arm(page: Page) -> None:
    """The same without the saved view: all charts, the runs grouped by their tag ``arm``."""
    open_charts(page)
    page.get_by_role("button", name="Group by").click()
    page.get_by_role("menuitemcheckbox", name="arm", exact=True).first.click()
    page.get_by_placeholder("Search metric charts").fill(f"{metrics.ENTROPY}$")


def compare_all(page: Page, metric: str) -> None:
    """MLflow's compare page: unfold the parent run, tick all, *Compare*, choose the metric."""
    page.locator(".ag-row button").first.click()
    page.get_by_role("link", name=" seed ").first.wait_for()
    page.locator(".ag-header input[type='checkbox']").first.click()
    page.get_by_role("button", name="Compare").click()
    page.get_by_role("link", name=metric, exact=True).click()


def curves(page: Page, metric: str, count: int) -> dict[str, dict[int, float]]:
    """By run or group, the values by step of the curves in the charts of ``metric``.

    Waits until there are ``count`` of them that no longer change. A group of runs is called
    ``tag.arm.NAME``. Each curve is drawn from all the seeds only once all their runs are loaded.
    """
    end = time.monotonic() + TIMEOUT_MS / 1000
    before, now = None, page.evaluate(_CURVES, metric)
    while len(now) < count or now != before:
        assert time.monotonic() < end, f"{count} curves of {metric} expected, there: {sorted(now)}"
        page.wait_for_timeout(500)
        before, now = now, page.evaluate(_CURVES, metric)
    return {
        name: dict(zip(map(int, steps), values, strict=True))
        for name, (steps, values) in now.items()
    }


def colours(page: Page, metric: str) -> set[str]:
    """The colours of the lines drawn in the charts of ``metric``."""
    return set(page.evaluate(_COLOURS, metric)) - {"rgb(0, 0, 0)", ""}  # black: edges of the bands


def arms_of(uri: str, experiment: str) -> set[str]:
    """The arms that an experiment's runs are tagged with."""
    with connect_to_read(uri) as client:
        found = client.get_experiment_by_name(experiment)
        assert found is not None, f"no experiment {experiment!r} at {uri}"
        runs = client.search_runs([found.experiment_id], max_results=1000)
        return {run.data.tags["arm"] for run in runs if "arm" in run.data.tags}


def picture(page: Page, out: Path) -> None:
    """Save the arms with their colours and the first row of charts."""
    page.get_by_role("button", name="Toggle sidebar").click()
    page.get_by_role("button", name="Hide banner").click()
    page.wait_for_timeout(1000)
    _widen_the_list(page, 80)
    page.mouse.move(0, 0)
    page.wait_for_timeout(2000)  # the charts grow into the room
    whole = _box(page.locator("main"))
    chart = _box(page.get_by_test_id("experiment-view-compare-runs-card").first)
    height = chart["y"] + chart["height"] + 16 - whole["y"]
    page.screenshot(path=out, clip={**whole, "height": height})


def _widen_the_list(page: Page, pixels: int) -> None:
    """Drag the border between runs and charts to the right: arms have long names."""
    button = _box(
        page.locator("[data-component-id='mlflow.experiment_page.table_resizer.collapse']")
    )
    x, y = button["x"] + button["width"] / 2, button["y"] + 100
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + pixels, y, steps=5)
    page.mouse.up()


def _box(part: Locator) -> FloatRect:
    box = part.bounding_box()
    assert box is not None, f"{part} is not on the page"
    return box


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mlflow", required=True, help="tracking URI of a database")
    parser.add_argument("--experiment", required=True, help="name of the sweep")
    parser.add_argument("--out", required=True, type=Path, help="the PNG to write")
    asked = parser.parse_args()
    arms = arms_of(asked.mlflow, asked.experiment)
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(asked.mlflow, Path(folder)) as address,
        browsing([]) as page,
    ):
        open_sweep(page, address, asked.experiment)
        open_saved_view(page)
        curves(page, metrics.ENTROPY, len(arms))
        picture(page, asked.out)
    print(f"{asked.out}: {len(arms)} arms, {asked.out.stat().st_size // 1000} kB")


def _answers(address: str) -> bool:
    try:
        return urlopen(f"{address}/health", timeout=5).status == 200
    except (URLError, OSError):
        return False


if __name__ == "__main__":
    main()
