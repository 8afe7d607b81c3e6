"""What the nodes of a cluster can hold, see and import."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cegppo_lab.config import RuntimeConfig
from cegppo_lab.errors import LabError
from cegppo_lab.provenance import version
from cegppo_lab.trial import Trial

_ANSWER_S = 60.0
_VISIBLE_S = 5.0
"""How long a network file system may take to show what another node has written."""
_COMPARED = ("torch", "transformers", "ray", "numpy")
_SHOWN_NODES = 3
_IMPORT_HINT = "install the package there, or type cluster.ship_code=true"
_STORE_HINT = "name a folder that all nodes mount with --store DIR, or run without that node"


@dataclass(frozen=True)
class Node:
    """A living node: Ray's id, its host, and what it has in all (CPU, GPU and custom resources)."""

    id: str
    host: str
    resources: Mapping[str, float]

    @classmethod
    def of_this_machine(cls, runtime: RuntimeConfig) -> Node:
        """This machine as the node of a local cluster; GPUs that a trial asks for are there."""
        import torch

        gpus = max(runtime.gpus, torch.cuda.device_count())
        found = {"CPU": float(os.cpu_count() or 1), "GPU": gpus, **runtime.resources}
        return cls("", platform.node(), found)

    def text(self) -> str:
        """What it has, for a person."""
        hidden = ("node:", "memory", "object_store_memory")
        kept = {k: v for k, v in self.resources.items() if not k.startswith(hidden)}
        return f"{self.host}: {amounts({'CPU': 0.0, **kept})}"


def alive_nodes() -> list[Node]:
    """The nodes of the cluster that this process is connected to."""
    import ray

    return [
        Node(found["NodeID"], found["NodeManagerHostname"], found["Resources"])
        for found in ray.nodes()
        if found["Alive"]
    ]


def needs(runtime: RuntimeConfig) -> dict[str, float]:
    """What Ray sets aside for a trial, on one node.

    A trial that spans nodes asks the cluster for its GPUs itself: see ``trainers/verl/cluster.py``.
    """
    gpus = 0.0 if runtime.nodes > 1 else runtime.gpus
    wanted = {"CPU": runtime.cpus, "GPU": gpus, **runtime.resources}
    return {name: amount for name, amount in wanted.items() if amount}


def amounts(resources: Mapping[str, float]) -> str:
    """Resources for a person, e.g. ``4 CPU, 1 h100``."""
    return ", ".join(f"{amount:g} {name}" for name, amount in resources.items())


def concurrency(runtimes: Iterable[RuntimeConfig], nodes: Sequence[Node]) -> int:
    """How many of these trials the nodes hold at a time, placed one after the other; 1 at least.

    Trials that span nodes make all wait for one another.
    """
    free = [dict(node.resources) for node in nodes]
    placed, full = 0, []
    for runtime in runtimes:
        if runtime.nodes > 1:
            return 1
        wanted = needs(runtime)
        if wanted in full:
            continue
        room = next((each for each in free if _holds(each, wanted)), None)
        if room is None:
            full.append(wanted)
            continue
        for name, amount in wanted.items():
            room[name] -= amount
        placed += 1
    return max(placed, 1)


def _holds(resources: Mapping[str, float], wanted: Mapping[str, float]) -> bool:
    return all(resources.get(name, 0) + 1e-9 >= amount for name, amount in wanted.items())


def refuse_too_large(trials: Sequence[Trial], nodes: Sequence[Node]) -> None:
    """Raise ``LabError`` for a trial that no node could hold even if it were idle."""
    seen: list[dict[str, float]] = []
    for trial in trials:
        wanted = needs(trial.config.runtime)
        if wanted in seen or any(_holds(node.resources, wanted) for node in nodes):
            seen.append(wanted)
            continue
        order = sorted(nodes, key=lambda n: [-n.resources.get(k, 0) for k in ("GPU", "CPU")])
        largest = "; ".join(node.text() for node in order[:_SHOWN_NODES])
        raise LabError(
            f"arm {trial.arm!r} needs {amounts(wanted)} on one node and no node has that "
            f"(largest: {largest}); lower runtime.cpus, runtime.gpus or runtime.resources, or "
            "type cluster.wait=true to wait for such a node"
        )


def probe_nodes(root: Path, nodes: Sequence[Node]) -> list[str]:
    """Let every node read and write the store at ``root``; what differs there without harm.

    Raises ``LabError`` for a node that does not share the store, has another code, or does not
    answer.
    """
    folder, nonce = root / f".probe-{uuid.uuid4().hex}", uuid.uuid4().hex
    folder.mkdir(parents=True)
    try:
        (folder / "nonce").write_text(nonce)
        here, notes = described(), []
        calls = {node.id: (str(folder), nonce, node.id) for node in nodes}
        for node, told in zip(nodes, ask(look, calls, _ANSWER_S), strict=True):
            if isinstance(told, Exception):
                reason = str(told).strip().splitlines()[-1]
                missing = "No module named" in reason
                hint = f"; {_IMPORT_HINT}" if missing else "; see ray status, or remove that node"
                raise LabError(f"node {node.host} cannot run trials: {reason}{hint}")
            if reason := told["store"] or _unseen(folder / node.id, nonce):
                raise LabError(
                    f"node {node.host} does not share the store {root}: {reason}; {_STORE_HINT}"
                )
            notes += _differences(node, here, told["versions"])
        return list(dict.fromkeys(notes))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def ask(
    function: Callable[..., Any], calls: Mapping[str, tuple[Any, ...]], patience_s: float
) -> list[Any]:
    """What ``function`` returns on each node of ``calls`` (node id -> arguments), in their order.

    All are asked at once, for ``patience_s`` seconds in all; a ``RayError`` stands for no answer.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(function)
    asked = []
    for node_id, arguments in calls.items():
        there = NodeAffinitySchedulingStrategy(node_id, soft=False)
        asked.append(task.options(scheduling_strategy=there).remote(*arguments))
    end, told = time.monotonic() + patience_s, []
    for each in asked:
        try:
            told.append(ray.get(each, timeout=max(end - time.monotonic(), 0.1)))
        except ray.exceptions.RayError as error:  # a timeout, too
            told.append(error)
    return told


def look(folder: str, nonce: str, name: str) -> dict[str, Any]:
    """On a node: answer in the store, and say what is installed here."""
    reason = ""
    try:
        if (Path(folder) / "nonce").read_text() == nonce:
            (Path(folder) / name).write_text(nonce)
        else:
            reason = "it has another folder there"
    except OSError as error:
        reason = error.strerror or "unreadable"
    return {"store": reason, "versions": described()}


def _unseen(answer: Path, nonce: str) -> str:
    end = time.monotonic() + _VISIBLE_S
    while time.monotonic() < end:
        if answer.exists() and answer.read_text() == nonce:
            return ""
        time.sleep(0.1)
    return "what it writes there is not seen here"


def _differences(node: Node, here: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    if here["code"] != there["code"]:
        raise LabError(
            f"node {node.host} has another cegppo_lab (code {there['code']}, here {here['code']}): "
            f"its numbers could be others; type cluster.ship_code=true"
        )
    if absent := [name for name, found in there.items() if found is None and here[name]]:
        raise LabError(f"node {node.host} has no {absent[0]}; install there what is installed here")
    return [
        f"node {node.host} has {name} {there[name]}, this machine {own}; "
        "trials that move between them may not repeat to the bit"
        for name, own in here.items()
        if own != there[name]
    ]


def described() -> dict[str, str | None]:
    """What the numbers of this process depend on: a hash of our code, and versions."""
    return {
        "code": _code_hash(),
        "python": platform.python_version(),
        **{name: version(name) for name in _COMPARED},
    }


def _code_hash() -> str:
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]
