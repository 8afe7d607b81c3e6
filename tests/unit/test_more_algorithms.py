"""Algorithms beyond the paper's: each trains, and old trial ids stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from cegppo_lab import metrics as names
from cegppo_lab.algorithms import make_algorithm
from cegppo_lab.compose import resolve
from cegppo_lab.execute import attempt
from cegppo_lab.store import RunStore
from cegppo_lab.trainers.embedded.experience import collect
from cegppo_lab.trainers.embedded.policy import Policy
from cegppo_lab.trial import make_trial

ADDED = [
    {"algorithm": "cegppo_decay"},
    {"algorithm": "high_entropy_tokens"},
    {"algorithm": "erc"},
    {"algorithm": "clip_cov", "algorithm.cov_low": 0.1},
    {"algorithm": "kl_cov"},
    {"algorithm": "dr_grpo"},
    {"algorithm": "gmpo"},
    {"algorithm": "sapo"},
    {"algorithm": "cispo", "algorithm.clamp": "cap", "algorithm.cap": 2.0},
]


@pytest.mark.parametrize("words", ADDED, ids=lambda words: "-".join(map(str, words.values())))
def test_it_trains(words: dict[str, Any], tiny: dict[str, Any], tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    trial = make_trial(resolve({**tiny, **words, "trainer.steps": 2}))
    for _ in attempt(store, trial):
        pass
    run = store.run(trial.trial_id)
    assert run.status().state == "done"
    norms = [row.metrics[names.GRAD_NORM] for row in run.steps() if names.GRAD_NORM in row.metrics]
    assert len(norms) == 2
    assert min(norms) > 0


def test_dr_grpo_only_subtracts_the_mean(tiny: dict[str, Any]) -> None:
    policy = Policy.load("table_walk", head_scale=1.0)
    by_name = {
        name: collect(policy, resolve({**tiny, "algorithm": name}), 0)
        for name in ("grpo", "dr_grpo")
    }
    rewards = by_name["dr_grpo"].rewards.view(-1, 4)
    centred = (rewards - rewards.mean(-1, keepdim=True)).flatten()
    assert centred.any()
    assert torch.equal(by_name["dr_grpo"].advantages, centred)
    assert not torch.equal(by_name["grpo"].advantages, centred)


@pytest.mark.parametrize("beta1", [0.0, 0.5, 1.0])
def test_cegppos_decaying_weight_vanishes_with_the_ratio(beta1: float) -> None:
    ratios = torch.tensor([1e-6, 1e-3, 0.1, 0.79, 0.8, 0.9, 1.0, 1.5, 8.0], dtype=torch.float64)
    log_prob = ratios.log().repeat(2, 1)
    mask = torch.ones_like(log_prob, dtype=torch.bool)
    advantages = torch.tensor([[-1.0], [1.0]], dtype=torch.float64).expand_as(log_prob)
    ours, theirs = (
        make_algorithm(name, beta1=beta1, dual_clip=5)
        .loss(log_prob, torch.zeros_like(log_prob), advantages, mask)
        .weight
        for name in ("cegppo_decay", "cegppo")
    )
    below = (ratios < 0.8) & (advantages < 0)
    assert torch.equal(ours[~below], theirs[~below])
    torch.testing.assert_close(ours[below], beta1 * ratios[:4], rtol=1e-12, atol=0)
    assert (ours[0, :4] <= beta1 * ours[1, :4] * (1 + 1e-12)).all(), "push down over push up"


def test_options_that_came_later_leave_ids_alone() -> None:
    told = resolve({"algorithm": "cispo"}).identity()["algorithm"]
    assert not {"clamp", "cap"} & told.keys()
    assert told["name"] == "cispo"
    other = resolve({"algorithm": "cispo", "algorithm.clamp": "upper"}).identity()["algorithm"]
    assert other == {**told, "clamp": "upper"}


@pytest.mark.parametrize("name", ["grpo", "dapo", "cegppo", "gppo", "dr_grpo"])
def test_the_mask_of_entropy_leaves_ids_alone(name: str) -> None:
    told = resolve({"algorithm": name}).identity()["algorithm"]
    assert "entropy_top" not in told
    masked = resolve({"algorithm": name, "algorithm.entropy_top": 0.2}).identity()["algorithm"]
    assert masked == {**told, "entropy_top": 0.2}
    assert resolve({"algorithm": "high_entropy_tokens"}).identity()["algorithm"]["entropy_top"]
