"""One thread everywhere, and the smallest run that still learns something."""

from __future__ import annotations

import os

import pytest
import torch

torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # for child processes
for _name in ("CEGPPO_LAB_STORE", "MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
    os.environ.pop(_name, None)


@pytest.fixture(scope="session")
def tiny() -> dict[str, object]:
    """Overrides that make a run of six steps last about two seconds."""
    return {
        "trainer.steps": 6,
        "trainer.train_batch_size": 4,
        "trainer.rollout_n": 4,
        "trainer.mini_batches": 2,
        "trainer.eval_samples": 2,
        "runtime.checkpoint_every": 2,
    }
