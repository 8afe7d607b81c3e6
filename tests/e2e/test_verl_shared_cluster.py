"""verl on a running Ray cluster of two nodes (on this machine): what a job leaves, and to whom."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster
from ray.util import (
    list_named_actors,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.placement_group import PlacementGroup

from cegppo_lab import metrics as names
from cegppo_lab.compose import resolve
from cegppo_lab.errors import LabError
from cegppo_lab.trainers.base import TrainerError
from cegppo_lab.trainers.verl.cluster import NAMESPACE, _alone, shared_cluster
from tests.e2e.lab import processes_in, wait_for

TRIAL = {
    "trainer": "verl",
    "trainer.steps": 2,
    "trainer.train_batch_size": 8,
    "trainer.gen_batch_size": 8,
    "trainer.rollout_n": 4,
    "trainer.mini_batches": 2,
    "trainer.filter_groups": False,
    "trainer.eval_every": 2,
    "trainer.eval_samples": 2,
    "trainer.max_prompt_length": 8,
    "trainer.max_response_length": 16,
    "runtime.nodes": 2,
    "runtime.gpus": 1,
    "runtime.checkpoint_every": 1,
}
# A job that leaves behind what Ray does not remove by itself: detached, one without a lifetime.
LITTERING_JOB = """
import sys, time, ray
ray.init(address=sys.argv[1], namespace=sys.argv[2], logging_level=40)
class Littering:
    def litter(self):
        for lifetime in ("detached", None):
            ray.get(ray.util.placement_group([{"GPU": 1}], lifetime=lifetime).ready())
        other = ray.remote(num_cpus=0, name="left", namespace="elsewhere", lifetime="detached")
        self.other = other(Littering).remote()
        ray.get(self.other.__ray_ready__.remote())
maker = ray.remote(num_cpus=0)(Littering).remote()
ray.get(maker.litter.remote())
print("done", flush=True)
time.sleep(600)
"""
UNRELATED = "unrelated"


class Bystander:
    """Somebody else's actor."""

    def pid(self) -> int:
        """Its process."""
        return os.getpid()


class Worker:
    """What a Tune worker is to a trial: an actor in whose process the trainer runs."""

    def pid(self) -> int:
        """Its process."""
        return os.getpid()

    def train(self, folder: str) -> list[tuple[int, dict[str, float]]]:
        """Train the tiny trial in ``folder``: (step, metrics) of every record."""
        from cegppo_lab.trainers.verl.trainer import VerlTrainer

        records = VerlTrainer().run(resolve(TRIAL), Path(folder) / "checkpoints")
        return [(record.step, record.metrics) for record in records]


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster of two nodes with a (logical) GPU each, in use by somebody else."""
    node = {"num_cpus": 8, "num_gpus": 1}
    two = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    two.add_node(**node)
    ray.init(address=two.address, logging_level="ERROR", log_to_driver=False)
    options = {"name": UNRELATED, "namespace": UNRELATED, "lifetime": "detached", "num_cpus": 0}
    bystander = ray.remote(**options)(Bystander).remote()
    group = placement_group([{"CPU": 1}], name=UNRELATED)
    ray.get([bystander.pid.remote(), group.ready()])
    yield two.address
    ray.shutdown()
    two.shutdown()


def _on_the_cluster() -> tuple[list[str], list[str]]:
    """Names of the placement groups and of the named actors that there are."""
    groups = placement_group_table().values()
    actors = list_named_actors(all_namespaces=True)
    return (
        sorted(group["name"] for group in groups if group["state"] != "REMOVED"),
        sorted(actor["name"] for actor in actors),
    )


def _only_the_unrelated() -> bool:
    return _on_the_cluster() == ([UNRELATED], [UNRELATED])


def _start_littering_job(address: str, namespace: str) -> subprocess.Popen[str]:
    job = subprocess.Popen(
        [sys.executable, "-c", LITTERING_JOB, address, namespace], stdout=subprocess.PIPE, text=True
    )
    assert job.stdout.readline().strip() == "done"
    return job


def test_what_a_killed_job_left_is_removed_by_the_next(cluster: str) -> None:
    job = _start_littering_job(cluster, NAMESPACE)
    job.kill()
    job.wait()
    assert "left" in _on_the_cluster()[1]
    with shared_cluster(2, 1, {}):
        assert "left" not in _on_the_cluster()[1]
        assert _on_the_cluster()[0] == [UNRELATED]
    wait_for(_only_the_unrelated, timeout=20)


def test_the_litter_of_others_stays(cluster: str) -> None:
    job = _start_littering_job(cluster, "of-another-project")
    before = _on_the_cluster()
    with shared_cluster(2, 1, {}):
        pass
    wait_for(lambda: _on_the_cluster() == before, timeout=20)
    job.kill()
    job.wait()
    ray.kill(ray.get_actor("left", "elsewhere"))
    _remove_groups_but(UNRELATED)


def _remove_groups_but(name: str) -> None:
    for group_id, group in placement_group_table().items():
        if group["name"] != name and group["state"] != "REMOVED":
            found = PlacementGroup(ray.PlacementGroupID(bytes.fromhex(group_id)))
            remove_placement_group(found)


def test_one_job_at_a_time(cluster: str) -> None:
    with (
        shared_cluster(2, 1, {}),
        pytest.raises(TrainerError, match=rf"has the Ray cluster: process {os.getpid()} "),
        _alone(patience_s=1),
    ):
        pass
    with shared_cluster(2, 1, {}):  # the lock was given back
        pass


def test_refuses_a_cluster_that_is_too_small(cluster: str) -> None:
    with (
        pytest.raises(LabError, match=r"runtime.nodes=2 x runtime.gpus=4 .* have 1 \+ 1 GPUs"),
        shared_cluster(2, 4, {}),
    ):
        pass


def test_refuses_to_share_a_foreign_jobs_queue(cluster: str) -> None:
    options = {"name": "TransferQueueController", "namespace": "transfer_queue", "num_cpus": 0}
    queue = ray.remote(**options)(Bystander).remote()
    ray.get(queue.pid.remote())
    with pytest.raises(TrainerError, match="not of this suite"), shared_cluster(2, 1, {}):
        pass
    assert "TransferQueueController" in _on_the_cluster()[1]
    ray.kill(queue)
    wait_for(_only_the_unrelated, timeout=20)


@pytest.mark.slow
def test_a_trial_over_two_nodes_leaves_nothing(cluster: str, tmp_path: Path) -> None:
    worker = ray.remote(num_cpus=1)(Worker).remote()
    records = ray.get(worker.train.remote(str(tmp_path)))
    assert [step for step, _ in records] == [0, 1, 2]
    assert all(names.ENTROPY in metrics for step, metrics in records if step)
    # Two data-parallel ranks, one a node, had a part each.
    assert len(list(tmp_path.glob("checkpoints/global_step_2/actor/model_world_size_2_*"))) == 2
    wait_for(_only_the_unrelated, timeout=30)
    assert not processes_in(tmp_path)
    wait_for(lambda: ray.available_resources()["GPU"] == 2, timeout=20)


@pytest.mark.slow
def test_a_killed_worker_leaves_nothing(cluster: str, tmp_path: Path) -> None:
    worker = ray.remote(num_cpus=1)(Worker).remote()
    pid = ray.get(worker.pid.remote())
    training = worker.train.remote(str(tmp_path))
    # As late as possible: its two ranks have their placement groups, its queue runs.
    wait_for(lambda: list(tmp_path.glob("checkpoints/global_step_1")), timeout=240)
    assert "TransferQueueController" in _on_the_cluster()[1]
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(training)
    wait_for(lambda: _only_the_unrelated() and not processes_in(tmp_path), timeout=60)
    with shared_cluster(2, 1, {}):  # the lock went with its holder
        pass
