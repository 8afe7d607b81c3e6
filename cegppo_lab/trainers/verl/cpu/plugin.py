"""Makes the verl of this process run on a CPU; verl imports it where ``ENVIRONMENT`` says so.

verl is still importing itself then, which is why nothing here may need more of it than it names.
"""

from __future__ import annotations

from cegppo_lab.trainers.verl.cpu.settings import ROLLOUT_NAME
from cegppo_lab.trainers.verl.version import require_verl

require_verl()

import verl.utils.distributed as distributed  # noqa: E402
from verl.plugin.platform.platform_manager import PlatformRegistry, set_platform  # noqa: E402
from verl.workers.rollout.base import _ROLLOUT_REGISTRY  # noqa: E402
from verl.workers.rollout.replica import RolloutReplica, RolloutReplicaRegistry  # noqa: E402

from cegppo_lab.trainers.verl.cpu.platform import PlatformCPU  # noqa: E402

_ROLLOUT = "cegppo_lab.trainers.verl.cpu.rollout"
_initialize = distributed.initialize_global_process_group_ray


def _initialize_with_gloo(timeout_second: int | None = None, backend: str | None = None) -> None:
    """verl's own, with a backend that torch accepts: its ``cpu:gloo,cpu:gloo`` is refused."""
    _initialize(timeout_second, backend or "cpu:gloo")


def _load_replica() -> type[RolloutReplica]:
    from cegppo_lab.trainers.verl.cpu.rollout import CPUReplica  # needs the whole of verl

    return CPUReplica


PlatformRegistry.register(platform="cpu")(PlatformCPU)
set_platform(PlatformCPU())
distributed.initialize_global_process_group_ray = _initialize_with_gloo
RolloutReplicaRegistry.register(ROLLOUT_NAME, _load_replica)
_ROLLOUT_REGISTRY[(ROLLOUT_NAME, "async")] = f"{_ROLLOUT}.WeightPusher"
