"""A verl job on the running Ray cluster: one at a time, and nothing of it stays behind.

A trial that spans nodes cannot have a Ray cluster of its own. verl's driver joins the running one
in a namespace that marks its Ray job, also for those who come after a crash. Ray writes a job's id
into the ids of its actors and placement groups, which tells them from everybody else's.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import psutil
import ray
from ray import PlacementGroupID
from ray.util import list_named_actors, placement_group_table, remove_placement_group
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cegppo_lab.errors import LabError
from cegppo_lab.trainers.base import TrainerError

NAMESPACE = "cegppo-lab-verl"
"""Ray namespace of every verl job that we start on a shared cluster."""
PATIENCE_S = 60.0
_LOCK = {"name": "one-verl-job", "namespace": "cegppo-lab"}
_QUEUE_NAMESPACE = "transfer_queue"
_JOB_ID_DIGITS = 8
"""An actor's and a placement group's id end with the id of their job: 4 bytes."""
_POLL_S = 0.5


@contextlib.contextmanager
def shared_cluster(
    nodes: int, gpus: int, environment: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """Hydra overrides that place one verl job on the running Ray cluster.

    ``gpus`` are those on each of the ``nodes``; ``environment`` is what the job's processes need
    on every node (the cluster's own processes do not inherit the driver's). The job must have
    ended when the context does; then, and first of all, whatever jobs of ours left is removed:
    named actors (detached ones too) and placement groups of jobs in :data:`NAMESPACE`, nothing
    else. Uses this process's connection to Ray; without one, it joins ``RAY_ADDRESS``.

    Raises ``LabError`` when there is no cluster or it is too small, ``TrainerError`` when another
    verl job has it: verl's queue has a cluster-wide name, so that two jobs would share it.
    """
    with _connected(), _alone():
        _require(nodes, gpus)
        remove_leftovers()
        _refuse_foreign_job()
        try:
            yield {
                "+ray_kwargs.ray_init.address": ray.get_runtime_context().gcs_address,
                "+ray_kwargs.ray_init.namespace": NAMESPACE,
                "+ray_kwargs.ray_init.runtime_env.env_vars": dict(environment),
            }
        finally:
            remove_leftovers()


def remove_leftovers(patience_s: float = PATIENCE_S) -> None:
    """Remove the placement groups and named actors of our verl jobs, and wait until all ended.

    Only for who holds the cluster's lock, or knows that no trial runs. A driver that nobody owns
    any more ends by losing its actors. Raises ``TrainerError`` when one does not.
    """

    def nothing_left() -> bool:
        jobs = _our_jobs()
        removed = [*_remove_groups(set(jobs)), *_remove_actors(set(jobs))]
        return not removed and not any(jobs.values())

    if not _becomes_true(nothing_left, patience_s):
        alive = ", ".join(driver for driver in _our_jobs().values() if driver)
        raise TrainerError(f"a verl job of before is still on the Ray cluster: {alive}; end it")


def _our_jobs() -> dict[str, str]:
    """Job id (hex) -> where its driver lives, empty once it has ended; jobs in our namespace."""
    # Ray's public list of jobs needs its dashboard, which a minimal installation does not have.
    jobs = ray._private.worker.global_worker.gcs_client.get_all_job_info(
        skip_submission_job_info_field=True, skip_is_running_tasks_field=True
    )
    return {
        job_id.hex(): ""
        if job.is_dead
        else f"process {job.driver_pid} on {job.driver_address.ip_address}"
        for job_id, job in jobs.items()
        if job.config.ray_namespace == NAMESPACE
    }


def _remove_groups(jobs: set[str]) -> list[str]:
    """Remove the placement groups of ``jobs``; the ids of those that were there."""
    found = [
        group_id
        for group_id, group in placement_group_table().items()
        if group_id[-_JOB_ID_DIGITS:] in jobs and group["state"] != "REMOVED"
    ]
    for group_id in found:
        remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(group_id))))
    return found


def _remove_actors(jobs: set[str]) -> list[str]:
    """Kill the named actors of ``jobs``; the names of those that were there."""
    found = []
    for named in list_named_actors(all_namespaces=True):
        with contextlib.suppress(ValueError):  # it died since it was listed
            actor = ray.get_actor(**named)
            if actor._actor_id.hex()[-_JOB_ID_DIGITS:] in jobs:
                ray.kill(actor)
                found.append(named["name"])
    return found


def _refuse_foreign_job() -> None:
    others = list_named_actors(all_namespaces=True)
    if any(named["namespace"] == _QUEUE_NAMESPACE for named in others):
        raise TrainerError(
            "a verl job that is not of this suite has the Ray cluster (its TransferQueue is "
            "running); wait for its end, then type the same command again"
        )


def _require(nodes: int, gpus: int) -> None:
    alive = [node["Resources"].get("GPU", 0.0) for node in ray.nodes() if node["Alive"]]
    if sum(found >= gpus for found in alive) < nodes:
        shown = " + ".join(f"{found:g}" for found in alive)
        raise LabError(
            f"runtime.nodes={nodes} x runtime.gpus={gpus} does not fit the Ray cluster, whose "
            f"nodes have {shown} GPUs; add nodes (ray start --address=HEAD:6379) and name the "
            "cluster in RAY_ADDRESS"
        )


@contextlib.contextmanager
def _connected() -> Iterator[None]:
    """A connection to Ray: this process's, or one for as long as the context lasts."""
    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS", "auto")
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except ConnectionError:
        raise LabError(
            f"no Ray cluster at {address}, which runtime.nodes above 1 needs; type "
            "ray start --head, join the other nodes to it, and set RAY_ADDRESS=HEAD:6379"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


@ray.remote(num_cpus=0)
class _Holder:
    """The lock. Its name is unique in the cluster, and Ray ends it when its maker dies.

    A lock file would need one file system under every sweep of the cluster, and would say nothing
    about sweeps with another store.
    """

    def __init__(self, who: str) -> None:
        self._who = who

    def who(self) -> str:
        """Who made it."""
        return self._who


@contextlib.contextmanager
def _alone(patience_s: float = PATIENCE_S) -> Iterator[None]:
    """Hold the cluster's lock; ``TrainerError`` when another does for longer than we wait."""
    here = ray.get_runtime_context().get_node_id()
    options = _Holder.options(
        **_LOCK, scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=False)
    )
    who = f"process {os.getpid()} ({psutil.Process().name()}) on {ray.util.get_node_ip_address()}"
    made: list[Any] = []

    def taken() -> bool:
        with contextlib.suppress(ValueError):  # the name is another's
            made.append(options.remote(who))
        return bool(made)

    if not _becomes_true(taken, patience_s):
        raise TrainerError(
            f"another verl job has the Ray cluster: {_holder()}; the cluster takes one at a time; "
            "wait for its end, then type the same command again"
        )
    try:
        ray.get(made[0].who.remote())
        yield
    finally:
        ray.kill(made[0])


def _holder() -> str:
    try:
        return ray.get(ray.get_actor(**_LOCK).who.remote())
    except (ValueError, ray.exceptions.RayActorError):
        return "one that is ending"


def _becomes_true(condition: Callable[[], bool], patience_s: float) -> bool:
    end = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(_POLL_S)
    return True
