"""Checks of the Ray cluster, and of the store as its nodes see it."""

from __future__ import annotations

import logging
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from cegppo_lab.doctor.finding import MISSING, OK, PATIENCE_S, Finding
from cegppo_lab.errors import LabError
from cegppo_lab.sweep.plan import check_writable

_NODE_PATIENCE_S = 30.0


@contextmanager
def ray_session(start: bool) -> Iterator[tuple[Finding, list[dict[str, Any]]]]:
    """What there is of Ray, and its living nodes for as long as the context lasts."""
    address = os.environ.get("RAY_ADDRESS", "")
    if not address and not start:
        told = f"{metadata.version('ray')}; a sweep starts its own (to try that: doctor --ray)"
        yield Finding("ray", OK, told), []
        return
    import ray

    where = address or "a cluster started for this check"
    try:
        _probe(address)
        ray.init(
            address=address or "local",
            include_dashboard=None if address else False,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    except (OSError, ValueError, RuntimeError) as error:  # ConnectionError is an OSError
        mend = "ray status --address HEAD:6379, or unset RAY_ADDRESS"
        told = f"{where} does not answer: {str(error).splitlines()[0]}"
        yield Finding("ray", MISSING, told, mend if address else "ray stop"), []
        return
    try:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        totals = {key: sum(n["Resources"].get(key, 0) for n in nodes) for key in ("CPU", "GPU")}
        told = f"{where}: {len(nodes)} nodes, {totals['CPU']:g} CPUs, {totals['GPU']:g} GPUs"
        yield Finding("ray", OK, told), nodes
    finally:
        ray.shutdown()


def _probe(address: str) -> None:
    """Raise at once where Ray would try for half a minute."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), PATIENCE_S).close()


def check_store(store: str, nodes: list[dict[str, Any]]) -> Finding:
    """Whether the run store can be written here and is the same folder on every node."""
    folder = Path(store).absolute()
    try:
        check_writable(store)
    except LabError as error:
        return Finding("run store", MISSING, str(error), "--store DIR, or CEGPPO_LAB_STORE=DIR")
    if not nodes:
        return Finding("run store", OK, f"{folder} can be written")
    token, probe = uuid.uuid4().hex, folder / f".doctor-{uuid.uuid4().hex}"
    probe.write_text(token)
    try:
        told = [(node["NodeManagerHostname"], _read_on(node, probe)) for node in nodes]
    finally:
        probe.unlink()
    blind = [f"{host} ({found})" for host, found in told if found != token]
    if blind:
        mend = "name a folder of a file system that all nodes mount: --store DIR"
        return Finding("run store", MISSING, f"{folder} is not seen by {', '.join(blind)}", mend)
    return Finding("run store", OK, f"{folder} can be written, and read on {len(nodes)} nodes")


def _read_on(node: dict[str, Any], path: Path) -> str:
    """The text of ``path`` as ``node`` reads it, or why it does not."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    task = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(_read)
    try:
        return ray.get(task.remote(str(path)), timeout=_NODE_PATIENCE_S)
    except ray.exceptions.RayError as error:
        return str(error).strip().splitlines()[-1]


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError as error:
        return error.strerror or "unreadable"
