"""Checks of the Ray cluster, and of the store as its nodes see it."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from cegppo_lab.doctor.finding import MISSING, OK, PATIENCE_S, Finding
from cegppo_lab.errors import LabError
from cegppo_lab.sweep.cluster import reach
from cegppo_lab.sweep.nodes import ask
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
        reach(address.removeprefix("ray://"), PATIENCE_S)
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
        calls = {node["NodeID"]: (str(probe),) for node in nodes}
        told = [str(found).strip() for found in ask(_read, calls, _NODE_PATIENCE_S)]
    finally:
        probe.unlink()
    blind = [
        f"{node['NodeManagerHostname']} ({found.splitlines()[-1]})"
        for node, found in zip(nodes, told, strict=True)
        if found != token
    ]
    if blind:
        mend = "name a folder of a file system that all nodes mount: --store DIR"
        return Finding("run store", MISSING, f"{folder} is not seen by {', '.join(blind)}", mend)
    return Finding("run store", OK, f"{folder} can be written, and read on {len(nodes)} nodes")


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError as error:
        return error.strerror or "unreadable"
