"""The one verl that this package is written against."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from cegppo_lab.errors import LabError

VERL_VERSION = "0.9.1"
INSTALL = f"pip install verl=={VERL_VERSION} TransferQueue"


def require_verl(*, to_train: bool = False) -> None:
    """Raise ``LabError`` unless verl is installed in the version that we extend.

    Losses, platform and rollout hook into names of verl that other versions may not have.
    ``to_train``: ask also for TransferQueue, which verl's trainer needs and its package does not
    bring along.
    """
    try:
        found = version("verl")
    except PackageNotFoundError:
        raise LabError(f"trainer=verl needs verl {VERL_VERSION}; type: {INSTALL}") from None
    if found != VERL_VERSION:
        raise LabError(f"trainer=verl needs verl {VERL_VERSION}, not {found}; type: {INSTALL}")
    if to_train and find_spec("transfer_queue") is None:
        raise LabError(f"verl's trainer needs the package TransferQueue; type: {INSTALL}")
