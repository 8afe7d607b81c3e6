"""verl's own trainer on a CPU, to rehearse a GPU job: a platform, a rollout engine, one patch.

Importing this package changes nothing and needs no verl. Processes started with
:data:`ENVIRONMENT` load :mod:`.plugin`, which changes verl in them.
"""

from cegppo_lab.trainers.verl.cpu.settings import (
    CPU_OVERRIDES,
    ENVIRONMENT,
    ROLLOUT_NAME,
    Override,
)

__all__ = ["CPU_OVERRIDES", "ENVIRONMENT", "ROLLOUT_NAME", "Override"]
