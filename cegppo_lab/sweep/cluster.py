"""The Ray cluster that a sweep runs on: its own on this machine, or one that is running."""

from __future__ import annotations

import logging
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator

from cegppo_lab.algorithms import outside
from cegppo_lab.config import RuntimeConfig
from cegppo_lab.errors import LabError
from cegppo_lab.processes import temporary_folder, watched
from cegppo_lab.resources import shipped
from cegppo_lab.store import RunStore
from cegppo_lab.sweep.nodes import Node, alive_nodes, probe_nodes, refuse_too_large
from cegppo_lab.trainer_config import Section
from cegppo_lab.trial import Trial

LOCAL, AUTO = "local", "auto"
_PATIENCE_S = 3.0
_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_OVERRIDE_JOB_RUNTIME_ENV": "1",  # where a Ray job has sent a working directory already
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
_CACHES = ("__pycache__", "*.pyc")
_MAX_SHIPPED_MB = 100


class ClusterSpec(Section):
    """Where a sweep runs. Never part of a trial's id."""

    address: str | None = None
    """``local``: a cluster of this call's own; ``auto``: the one that runs on this machine;
    ``HOST:PORT``: one that this machine has joined. Null: RAY_ADDRESS if set, else ``local``."""
    ship_code: bool | Literal["auto"] = "auto"
    """Whether workers import this installation's code, sent by Ray, instead of their node's own;
    ``auto``: wherever the cluster is not ``local``."""
    wait: bool = False
    """Wait for nodes that trials need and the cluster does not have (one that scales by itself)."""

    @field_validator("address")
    @classmethod
    def _known(cls, address: str | None) -> str | None:
        if address is not None and (wrong := _wrong_with(address)):
            raise ValueError(wrong)
        return address

    def resolved(self) -> str:
        """The address to join. Raises ``LabError`` for a RAY_ADDRESS that cannot be joined."""
        if self.address is not None:
            return self.address
        found = os.environ.get("RAY_ADDRESS") or LOCAL
        if wrong := _wrong_with(found):
            raise LabError(f"RAY_ADDRESS={found}: {wrong}")
        return found


def _wrong_with(address: str) -> str:
    """Why a sweep's driver cannot join ``address``; empty where nothing is known against it."""
    host, _, port = address.rpartition(":")
    if address.startswith("ray://"):
        # Under Ray Client, Tune runs its callbacks on the cluster: ours are the driver's.
        name = address.removeprefix("ray://").partition(":")[0] or "HEAD"
        return (
            "a sweep's driver runs on a machine of the cluster, which Ray Client's is not; type "
            f"ray job submit --address http://{name}:8265 --working-dir . -- "
            "python -m cegppo_lab sweep NAME cluster.address=auto"
        )
    if address in (LOCAL, AUTO) or (host and "/" not in host and port.isdecimal()):
        return ""
    return "must be local, auto or HOST:PORT"


@dataclass(frozen=True)
class Cluster:
    """A connection to a cluster, for as long as the context of :func:`cluster` lasts."""

    address: str
    ships_code: bool
    waits: bool
    say: Callable[[str], None] = print
    _probed: set[Path] = field(default_factory=set)

    @property
    def local(self) -> bool:
        """Whether it is this call's own, of this machine alone."""
        return self.address == LOCAL

    def nodes(self) -> list[Node]:
        """The nodes that are alive now."""
        return alive_nodes()

    def check(self, store: RunStore, trials: Sequence[Trial]) -> None:
        """Raise ``LabError`` for trials that no node can hold, and nodes that could not run them.

        The store and the versions are asked of every node, once for a store.
        """
        nodes = self.nodes()
        if not self.waits:
            refuse_too_large(trials, nodes)
        root = store.root.resolve()
        if not self.local and root not in self._probed:
            for note in probe_nodes(root, nodes):
                self.say(f"note: {note}")
            self._probed.add(root)


@contextmanager
def cluster(spec: ClusterSpec, say: Callable[[str], None] = print) -> Iterator[Cluster]:
    """Join the cluster that ``spec`` names, or start a local one for the time of the context.

    ``say`` is told what differs between nodes without harm. Raises ``LabError`` when there is no
    cluster at the address.
    """
    import ray

    address = spec.resolved()
    ships = address != LOCAL if spec.ship_code == "auto" else spec.ship_code
    for key, value in _SETTINGS.items():
        os.environ.setdefault(key, value)
    # Failures of trials are told by the progress display, in one line each.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    with temporary_folder("cegppo-lab-code-") if ships else nullcontext() as scratch:
        # Said outright: without an address Ray joins whatever cluster was started on this machine.
        with joining(address):
            ray.init(
                address,
                include_dashboard=False if address == LOCAL else None,
                logging_level=logging.ERROR,
                log_to_driver=False,
                runtime_env=_runtime_env(address, scratch),
            )
        # Watched to the end of Ray's own shutdown: killed in it, we would leave Ray's agents.
        with watched():
            try:
                yield Cluster(address, ships, spec.wait, say)
            finally:
                ray.shutdown()


def reach(address: str, patience_s: float) -> None:
    """Raise ``OSError`` soon where nobody answers at ``HOST:PORT``; other addresses say nothing."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), patience_s).close()


@contextmanager
def joining(address: str) -> Iterator[None]:
    """Turn what Ray raises on the way into one line; soon where Ray would try for half a minute."""
    try:
        reach(address, _PATIENCE_S)
        yield
    except LabError:
        raise
    except Exception as error:  # a start that takes too long is a bare Exception of Ray's
        if address == LOCAL:
            raise LabError(f"Ray does not start: {_first_line(error)}; type ray stop") from None
        start = "ray start --head" if address == AUTO else f"ray start --address={address}"
        raise LabError(
            f"cluster.address={address}: no Ray cluster that this machine has joined "
            f"({_first_line(error)}); type {start} here, or cluster.address=local"
        ) from None


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def _runtime_env(address: str, scratch: Path | None) -> dict[str, Any] | None:
    """What Ray brings to the workers: our settings where they do not inherit them, and the code."""
    settings = {} if address == LOCAL else {"env_vars": dict(_SETTINGS)}
    # As the working directory: py_modules come after the driver's folder in a worker's sys.path.
    code = {"working_dir": str(_copy_code(scratch))} if scratch else {}
    return (settings | code) or None


def _copy_code(scratch: Path) -> Path:
    """``scratch`` with a copy of the packages, laid out as in the wheel: their data inside.

    Beside them, the modules of the user's own algorithms as they were loaded.
    """
    root = Path(__file__).resolve().parents[2]
    for package in ("cegppo_lab", "analysis"):
        shutil.copytree(root / package, scratch / package, ignore=shutil.ignore_patterns(*_CACHES))
    for data in ("conf", "sweeps"):
        goal = scratch / "cegppo_lab" / "_data" / data
        if not goal.is_dir():
            shutil.copytree(shipped(data), goal)
    for found in outside.loaded():
        for name, content in found.files.items():
            (scratch / name).parent.mkdir(parents=True, exist_ok=True)
            (scratch / name).write_bytes(content)
    megabytes = sum(f.stat().st_size for f in scratch.rglob("*") if f.is_file()) / 1e6
    if megabytes > _MAX_SHIPPED_MB:
        raise LabError(
            f"the code has {megabytes:.0f} MB with what lies beside it in {root / 'cegppo_lab'}, "
            f"and Ray should carry {_MAX_SHIPPED_MB} at most; install the package on every node "
            "and type cluster.ship_code=false"
        )
    return scratch


def nodes_of(spec: ClusterSpec, runtime: RuntimeConfig) -> list[Node]:
    """The nodes that a sweep would run on, without starting anything: this machine where local."""
    if spec.resolved() == LOCAL:
        return [Node.of_this_machine(runtime)]
    with cluster(spec.model_copy(update={"ship_code": False})) as held:
        return held.nodes()
