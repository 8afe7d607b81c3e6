"""Counter-based random streams."""

from __future__ import annotations

import subprocess
import sys

import torch

from cegppo_lab.streams import numpy_stream, seed_of, torch_stream


def test_a_stream_depends_on_all_of_its_labels_and_on_nothing_else() -> None:
    labels = [(1, "a"), ("1", "a"), (1, "a", 0), (1, "b"), (11, "a"), (1, "a", "0"), ("a", 1)]
    seeds = [seed_of(*each) for each in labels]
    assert len(set(seeds)) == len(labels)
    assert all(0 <= seed < 2**63 for seed in seeds)
    torch.rand(5)  # the global generator does not matter
    assert torch.equal(
        torch.rand(4, generator=torch_stream(1, "a")), torch.rand(4, generator=torch_stream(1, "a"))
    )
    assert (numpy_stream(1, "a").random(4) == numpy_stream(1, "a").random(4)).all()


def test_a_seed_is_the_same_in_every_process() -> None:
    code = "from cegppo_lab.streams import seed_of; print(seed_of(3, 'rollout', 7))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(told.stdout) == seed_of(3, "rollout", 7)
