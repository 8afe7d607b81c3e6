"""What a run needs of this machine and its cluster: found, or what to type to mend it.

Every check returns findings and raises nothing; what does not answer in seconds is given up.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

from cegppo_lab.config import RunConfig
from cegppo_lab.doctor.cluster import check_store, ray_session
from cegppo_lab.doctor.finding import MISSING, OK, WARN, Finding
from cegppo_lab.doctor.places import check_data, check_disk, check_mlflow, check_weights
from cegppo_lab.doctor.software import check_gpus, check_math_verify, check_packages, check_verl
from cegppo_lab.tasks.math import Math

__all__ = ["MISSING", "OK", "WARN", "Finding", "examine"]

STORE_GB = {"embedded": 1.0, "verl": 200.0}
"""Free disk that runs may fill: of verl, two checkpoints of 7B weights with their optimizer."""
TEMP_GB = 2.0


def examine(config: RunConfig, *, start_ray: bool = False) -> Iterator[Finding]:
    """Everything that ``config`` needs, checked one after the other.

    Joins the Ray cluster that RAY_ADDRESS names; without one, starts a local one only where
    ``start_ray`` says so.
    """
    verl = config.trainer.name == "verl"
    yield from check_packages()
    yield check_verl(wanted=verl)
    yield check_math_verify(wanted=isinstance(config.task, Math))
    yield check_gpus(wanted=verl and config.runtime.device != "cpu")
    with ray_session(start_ray) as (finding, nodes):
        yield finding
        yield check_store(config.runtime.store, nodes)
    yield check_mlflow(config.runtime.mlflow)
    yield check_weights(config.model.path)
    yield check_data(config.task)
    yield check_disk("disk of the store", config.runtime.store, STORE_GB[config.trainer.name])
    yield check_disk("disk for temporary files", tempfile.gettempdir(), TEMP_GB)
