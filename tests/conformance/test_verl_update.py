"""verl's actor update with our loss against the embedded trainer's, on one fixed batch.

verl's side is its own worker in real processes, gloo between them: micro-batches, global counts,
loss scaling, FSDP 2 and the averaging of gradients over ranks are all verl's code.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cegppo_lab import metrics as names
from cegppo_lab.compose import resolve
from cegppo_lab.config import RunConfig
from cegppo_lab.trainers.embedded.experience import Experience, collect
from cegppo_lab.trainers.embedded.policy import Policy
from cegppo_lab.trainers.embedded.update import accumulate
from cegppo_lab.trainers.verl.cpu import ENVIRONMENT
from cegppo_lab.trainers.verl.policy import verl_folder

ROWS = 8
TEMPERATURE = 0.8
HEAD_SCALE = 40.0
SECONDS = 240


@dataclass(frozen=True)
class Case:
    """An algorithm by its overrides, in verl's micro-batches of two rows or of so many tokens."""

    overrides: dict[str, Any]
    dynamic_tokens: int | None = None

    def run(self, tiny: dict[str, Any]) -> RunConfig:
        plain = {
            "trainer.train_batch_size": 2,
            "trainer.rollout_n": ROWS // 2,
            "trainer.filter_groups": False,
            "trainer.temperature": TEMPERATURE,
            "runtime.micro_batch_size": 3,
        }
        return resolve({**tiny, **plain, **self.overrides})

    def for_verl(self, tiny: dict[str, Any]) -> dict[str, Any]:
        """The same in verl's terms: the entropy bonus is verl's own."""
        algorithm = self.run(tiny).algorithm
        return {
            "algorithm": algorithm.name,
            "options": algorithm.model_dump(mode="json") | {"entropy_coef": 0.0},
            "aggregation": algorithm.aggregation,
            "entropy_coeff": algorithm.entropy_coef,
            "dynamic_tokens": self.dynamic_tokens,
        }

    def __str__(self) -> str:
        values = " ".join(str(value) for value in self.overrides.values())
        return f"{values} dynamic" if self.dynamic_tokens else values


CASES = [
    Case({"algorithm": "grpo"}),
    Case({"algorithm": "cegppo", "algorithm.beta1": 0.5, "algorithm.dual_clip": 1.5}),
    Case({"algorithm": "gspo"}),
    Case({"algorithm": "cispo", "algorithm.aggregation": "seq-mean-token-sum"}),
    Case({"algorithm": "cegppo", "algorithm.entropy_coef": 0.05}),
    Case({"algorithm": "cegppo"}, dynamic_tokens=120),
]


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy.load("table_walk", head_scale=HEAD_SCALE)


@pytest.fixture(scope="module")
def experience(policy: Policy, tiny: dict[str, Any]) -> Experience:
    """Responses of unequal lengths, off-policy on purpose, with advantages of both signs."""
    fresh = collect(policy, CASES[0].run(tiny), 0)
    generator = torch.Generator().manual_seed(0)
    rollout, width = fresh.rollout, fresh.rollout.mask.shape[1]
    lengths = torch.randint(3, width + 1, (ROWS, 1), generator=generator)
    kept = rollout.mask & (torch.arange(width) < lengths)
    noise = 0.3 * torch.randn(kept.shape, generator=generator)
    attention = torch.cat([rollout.attention_mask[:, :-width].bool(), kept], 1)
    cut = replace(rollout, mask=kept, attention_mask=attention, log_prob=rollout.log_prob + noise)
    advantages = torch.randn(ROWS, generator=generator)
    return replace(fresh, rollout=cut, advantages=advantages, rewards=(advantages > 0).float())


@pytest.fixture(scope="module")
def results(
    tmp_path_factory: pytest.TempPathFactory, experience: Experience, tiny: dict[str, Any]
) -> dict[int, list[dict[str, Any]]]:
    """What verl computed for each case, at one rank and at two."""
    folder = tmp_path_factory.mktemp("verl_update")
    model = verl_folder("table_walk", HEAD_SCALE, folder / "policy")
    torch.save(_batch(experience), folder / "batch.pt")
    (folder / "cases.json").write_text(json.dumps([case.for_verl(tiny) for case in CASES]))
    overrides = {"actor_rollout_ref.model.path": str(model)}
    (folder / "overrides.json").write_text(json.dumps(overrides))
    processes = [p for ranks in (1, 2) for p in _start(folder, ranks)]
    try:
        for process in processes:
            output, _ = process.communicate(timeout=SECONDS)
            assert process.returncode == 0, output[-4000:]
    finally:
        for process in processes:
            process.kill()
    return {
        ranks: torch.load(folder / f"results_{ranks}.pt", weights_only=True) for ranks in (1, 2)
    }


def _start(folder: Path, ranks: int) -> list[subprocess.Popen[str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    base = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    base |= ENVIRONMENT | {
        "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "LOCAL_RANK": "0",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "tests.conformance.verl_worker", str(folder)]
    return [
        subprocess.Popen(
            command,
            env=base | {"RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(ranks)
    ]


def _batch(experience: Experience) -> dict[str, Any]:
    """The same rows without padding, in verl's fields."""
    rollout, lists = experience.rollout, {}
    seen = rollout.attention_mask[:, : rollout.prompt_length].bool()
    ids = rollout.input_ids[:, : rollout.prompt_length]
    lists["prompts"] = [row[keep] for row, keep in zip(ids, seen, strict=True)]
    pairs = list(zip(rollout.response_ids, rollout.mask, strict=True))
    lists["responses"] = [row[keep] for row, keep in pairs]
    lists["response_mask"] = [keep[keep].long() for _, keep in pairs]
    lists["old_log_probs"] = [
        row[keep] for row, keep in zip(rollout.log_prob, rollout.mask, strict=True)
    ]
    lists["advantages"] = [
        value.expand(int(keep.sum())).clone()
        for value, keep in zip(experience.advantages, rollout.mask, strict=True)
    ]
    return {**lists, "temperature": TEMPERATURE}


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda number: str(CASES[number]))
def test_the_same_gradient(
    policy: Policy,
    experience: Experience,
    results: dict[int, list[dict[str, Any]]],
    tiny: dict[str, Any],
    number: int,
    ranks: int,
) -> None:
    run, theirs = CASES[number].run(tiny), results[ranks][number]
    policy.model.zero_grad(set_to_none=True)
    metrics = accumulate(policy, None, run.algorithm, run, experience, torch.arange(ROWS))
    ours = {name: p.grad.clone() for name, p in policy.model.named_parameters()}
    policy.model.zero_grad(set_to_none=True)
    assert ours.keys() == theirs["gradient"].keys()
    whole = torch.cat([ours[name].flatten() for name in ours])
    difference = torch.cat([(theirs["gradient"][name] - ours[name]).flatten() for name in ours])
    assert whole.norm() > 0.01
    assert difference.norm() <= 1e-5 * whole.norm()
    assert theirs["metrics"][names.GRAD_NORM] == pytest.approx(float(whole.norm()), rel=1e-5)
    told = {names.LOSS, names.PPO_KL, names.CLIPFRAC_LOW, names.CLIPFRAC_HIGH, names.RATIO_MEAN}
    told |= {names.CLIPFRAC, names.CLIPFRAC_DUAL}
    if CASES[number].dynamic_tokens:
        told = {names.LOSS}
    else:
        assert metrics[names.CLIPFRAC] > 0
    assert {key: theirs["metrics"][key] for key in told} == pytest.approx(
        {key: metrics[key] for key in told}, rel=1e-4, abs=1e-6
    )
