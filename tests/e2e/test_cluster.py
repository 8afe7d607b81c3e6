"""Sweeps on a Ray cluster of several nodes (real raylets on this machine), lost and gained."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from ray.cluster_utils import Cluster

from cegppo_lab.store import RunStore
from tests.e2e.lab import TINY, lab, numbers, processes_in, start, wait_for

TRIALS, STEPS = 4, 48
SWEEP = [
    *("sweep", "quickstart", "seeds=[1]", *TINY, f"trainer.steps={STEPS}"),
    *("runtime.retry_backoff_s=1", "runtime.retries=0", "--mlflow", "sqlite:///none/mlflow.db"),
]


@pytest.fixture
def nodes() -> Iterator[Callable[..., tuple[Cluster, list[object]]]]:
    """A cluster whose head has no CPU, and as many nodes of one CPU as wanted."""
    started: list[Cluster] = []

    def start_cluster(count: int, **options: object) -> tuple[Cluster, list[object]]:
        head = {"num_cpus": 0, "include_dashboard": False}
        started.append(Cluster(initialize_head=True, head_node_args=head))
        return started[0], [_add(started[0], **options) for _ in range(count)]

    yield start_cluster
    for each in started:
        each.shutdown()


def _add(cluster: Cluster, **options: object) -> object:
    return cluster.add_node(num_cpus=1, include_dashboard=False, **options)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    lab(folder, *SWEEP)
    return folder


def _raylet(node: object) -> psutil.Process:
    (raylet,) = node.all_processes["raylet"]
    return psutil.Process(raylet.process.pid)


def _trained_on(folder: Path, node: object) -> str | None:
    """The trial that a worker of this node trains, once it has a checkpoint behind it."""
    workers = {child.pid for child in _raylet(node).children(recursive=True)}
    store = RunStore(folder / "runs")
    for each in store.trial_ids():
        run = store.run(each)
        attempts = run.provenance()
        if attempts and attempts[-1]["pid"] in workers and 3 <= len(run.steps()) < STEPS - 4:
            return each
    return None


def _check_whole(folder: Path, undisturbed: Path) -> None:
    """All trials done, each step once, the numbers of the undisturbed sweep, no lock held."""
    store = RunStore(folder / "runs")
    ids = store.trial_ids()
    assert [store.run(each).status().state for each in ids] == ["done"] * TRIALS
    for each in ids:
        assert [row.step for row in store.run(each).steps()] == list(range(1, STEPS + 1))
        assert not store.run(each).locked()
    assert numbers(folder) == numbers(undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("workers_too", [True, False])
def test_trials_of_a_lost_node_go_on_elsewhere_and_a_node_that_joins_is_used(
    nodes: Callable[..., tuple[Cluster, list[object]]],
    undisturbed: Path,
    tmp_path: Path,
    workers_too: bool,
) -> None:
    cluster, (doomed, *_) = nodes(3)
    driver = start(tmp_path, *SWEEP, f"cluster.address={cluster.address}")
    wait_for(lambda: _trained_on(tmp_path, doomed))
    joined = _add(cluster)  # one trial of four has found no node yet
    wait_for(lambda: _trained_on(tmp_path, joined))
    victim = _trained_on(tmp_path, doomed)
    assert victim, "the trial was over before the node could be lost; take more steps"
    raylet = _raylet(doomed)
    killed = [raylet, *(raylet.children(recursive=True) if workers_too else [])]
    for process in killed:
        os.kill(process.pid, signal.SIGKILL)
    driver.wait(timeout=300)
    assert driver.returncode == 0, (tmp_path / "log").read_text()
    _check_whole(tmp_path, undisturbed)
    run = RunStore(tmp_path / "runs").run(victim)
    if workers_too:  # a worker outlives its raylet by seconds, in which it may end its trial
        assert run.provenance()[-1]["resumed_from"] >= 2
        assert "its node is gone" in (tmp_path / "log").read_text()
    wait_for(lambda: not processes_in(tmp_path))
