"""The CPU as a verl platform: gloo between processes, one device each, no GPU memory to manage."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any

import torch
from verl.plugin.platform.platform_base import PlatformBase


def _nothing(*_: Any, **__: Any) -> None:
    """What there is to do on a CPU for most of what verl asks of a GPU."""


def _zero(*_: Any, **__: Any) -> int:
    return 0


def _device_module() -> ModuleType:
    """``torch.cpu`` with the functions of ``torch.cuda`` that verl calls."""
    module = ModuleType("cegppo_lab_cpu_device")
    vars(module).update(
        {name: getattr(torch.cpu, name) for name in dir(torch.cpu) if not name.startswith("_")}
    )
    for name in ("set_device", "manual_seed", "manual_seed_all", "empty_cache", "ipc_collect"):
        setattr(module, name, _nothing)
    module.reset_peak_memory_stats = _nothing
    for name in ("memory_allocated", "memory_reserved"):
        setattr(module, name, _zero)
        setattr(module, f"max_{name}", _zero)
    module.mem_get_info = lambda *_: (0, 0)
    module.get_device_name = lambda *_: "CPU"
    module.get_rng_state, module.set_rng_state = torch.get_rng_state, torch.set_rng_state
    return module


class PlatformCPU(PlatformBase):
    """Every method as its base class documents it.

    Ray calls the devices "GPU": ``ray.init(num_gpus=N)`` gives a machine N logical ones, which
    verl's placement groups then reserve.
    """

    device_name = "cpu"
    vendor_name = "generic"
    device_module = _device_module()

    def is_available(self) -> bool:
        return True

    def current_device(self) -> str:
        return "cpu"  # verl hands it to Tensor.to, where an index would mean a GPU.

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None: ...

    def synchronize(self, device_index: int | None = None) -> None: ...

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None: ...

    def empty_cache(self) -> None: ...

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    def nvtx_range(self, msg: str) -> AbstractContextManager[None]:
        return nullcontext()

    def profiler_start(self) -> None: ...

    def profiler_stop(self) -> None: ...

    def ray_resource_name(self) -> str:
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return []

    def is_ipc_supported(self) -> bool:
        return False

    def cudart(self) -> None: ...
