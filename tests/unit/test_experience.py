"""Rollouts of a training step: which groups are kept, and what their advantages are."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest
import torch

from cegppo_lab.algorithms.advantage import group_advantages
from cegppo_lab.compose import resolve
from cegppo_lab.config import RunConfig
from cegppo_lab.tasks import Problem
from cegppo_lab.tasks.table_walk import TableWalk
from cegppo_lab.trainers.embedded.experience import collect
from cegppo_lab.trainers.embedded.policy import Policy


class Hopeless(TableWalk):
    """Table walk that nobody can solve."""

    def reward(self, problem: Problem, response: str) -> float:
        return 0.0


class Coin(TableWalk):
    """Table walk whose verdict is a coin that the response decides: groups are hardly ever even."""

    def reward(self, problem: Problem, response: str) -> float:
        return float(zlib.crc32(response.encode()) % 2)


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy.load("table_walk", head_scale=40.0)


def _run(tiny: dict[str, Any], task: type[TableWalk] = TableWalk, **changes: Any) -> RunConfig:
    values = {f"trainer.{key}": value for key, value in changes.items() if key != "algorithm"}
    algorithm = {"algorithm": changes.get("algorithm", "grpo")}
    run = resolve({**tiny, **algorithm, **values})
    return run.model_copy(update={"task": task(**run.task.model_dump())})


def test_advantages_by_hand() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    by_hand = torch.tensor(
        [
            [1.5, -0.5, -0.5, -0.5],  # mean 1/4, deviation 1/2
            [0.5 * 3**0.5, 0.5 * 3**0.5, -0.5 * 3**0.5, -0.5 * 3**0.5],  # 1/2, 1/sqrt(3)
            [0.0, 0.0, 0.0, 0.0],
        ]
    )
    torch.testing.assert_close(group_advantages(rewards), by_hand, atol=1e-5, rtol=0)
    centred = torch.tensor([[0.75, -0.25, -0.25, -0.25], [0.5, 0.5, -0.5, -0.5], [0.0] * 4])
    torch.testing.assert_close(group_advantages(rewards, by_std=False), centred)


@pytest.mark.parametrize("by_std", [True, False])
def test_advantages_are_verls(by_std: bool) -> None:
    core_algos = pytest.importorskip("verl.trainer.ppo.core_algos")
    rewards = torch.rand(5, 4, generator=torch.Generator().manual_seed(0))
    tokens = torch.zeros(20, 3)
    tokens[:, 1] = rewards.flatten()
    theirs, _ = core_algos.compute_grpo_outcome_advantage(
        tokens,
        torch.ones(20, 3),
        index=np.arange(5).repeat(4),
        norm_adv_by_std_in_grpo=by_std,
    )
    ours = group_advantages(rewards, by_std=by_std).flatten()
    torch.testing.assert_close(ours, theirs[:, 2])


def test_rewards_and_advantages_belong_to_their_rows(policy: Policy, tiny: dict[str, Any]) -> None:
    run = _run(tiny, train_batch_size=8, max_gen_batches=3)
    experience = collect(policy, run, 0)
    rollout = experience.rollout
    for row, text in enumerate(rollout.texts):
        shown = rollout.input_ids[row][rollout.attention_mask[row].bool()]
        prompt = policy.tokenizer.decode(shown[: len(shown) - int(rollout.mask[row].sum())])
        problem = Problem("", prompt, f"{prompt[1]}-{prompt[2]}")
        assert run.task.reward(problem, text) == experience.rewards[row]
    groups = experience.rewards.view(-1, 4)
    assert len(groups) == experience.groups
    assert all(0 < group.mean() < 1 for group in groups)  # every kept group is mixed
    expected = (groups - groups.mean(-1, keepdim=True)) / groups.std(-1, keepdim=True)
    torch.testing.assert_close(experience.advantages.view(-1, 4), expected, atol=1e-4, rtol=0)


def test_filtering_keeps_mixed_groups_of_all_generation_batches_in_order(
    policy: Policy, tiny: dict[str, Any]
) -> None:
    run = _run(tiny, train_batch_size=8, rollout_n=2, max_gen_batches=2)
    kept = collect(policy, run, 0)
    whole = _run(tiny, train_batch_size=8, rollout_n=2, filter_groups=False)
    first = collect(policy, whole, 0)
    assert first.metrics["train/num_gen_batches"] == 1
    assert first.groups == 8
    mixed = first.rewards.view(-1, 2).std(-1) > 0
    assert 0 < mixed.sum() < 8  # the seed is such that a second batch is needed
    assert kept.metrics["train/num_gen_batches"] == 2
    keeps = mixed.repeat_interleave(2)
    texts = [text for text, keep in zip(first.rollout.texts, keeps, strict=True) if keep]
    assert kept.rollout.texts[: len(texts)] == texts
    assert len(texts) < len(kept.rollout.texts) == 2 * kept.groups <= 16
    assert first.metrics["train/mixed_groups"] == pytest.approx(float(mixed.double().mean()))


def test_generation_stops_when_the_batch_is_full(policy: Policy, tiny: dict[str, Any]) -> None:
    experience = collect(policy, _run(tiny, Coin, rollout_n=16, max_gen_batches=5), 0)
    assert experience.groups == 4
    assert experience.metrics["train/num_gen_batches"] == 1
    few = collect(policy, _run(tiny, Coin, rollout_n=2, max_gen_batches=20), 0)
    assert few.groups == 4
    assert 1 < few.metrics["train/num_gen_batches"] < 20


@pytest.mark.parametrize("algorithm", ["grpo", "dapo"])
def test_dynamic_sampling_filters_whatever_the_trainer_says(
    policy: Policy, tiny: dict[str, Any], algorithm: str
) -> None:
    run = _run(tiny, Hopeless, algorithm=algorithm, filter_groups=False, max_gen_batches=3)
    experience = collect(policy, run, 0)
    batches = {"grpo": 1, "dapo": 3}[algorithm]
    assert experience.metrics["train/num_gen_batches"] == batches
    assert experience.groups == {"grpo": 4, "dapo": 0}[algorithm]
    assert (experience.rollout is None) == (algorithm == "dapo")
    assert not experience.advantages.any()


@pytest.mark.filterwarnings("error")
def test_a_step_without_a_mixed_group_is_measured_all_the_same(
    policy: Policy, tiny: dict[str, Any]
) -> None:
    metrics = collect(policy, _run(tiny, Hopeless), 0).metrics
    assert metrics["critic/rewards/mean"] == 0.0
    assert metrics["train/mixed_groups"] == metrics["train/trained_groups"] == 0.0
    assert metrics["actor/entropy"] > 0.1
    assert metrics["response_length/min"] <= metrics["response_length/mean"]


def test_what_is_measured_is_over_all_responses_before_filtering(
    policy: Policy, tiny: dict[str, Any]
) -> None:
    whole = collect(policy, _run(tiny, train_batch_size=8, filter_groups=False), 0)
    kept = collect(policy, _run(tiny, train_batch_size=8, max_gen_batches=1), 0)
    assert kept.groups < whole.groups
    for key in ("actor/entropy", "critic/rewards/mean", "response_length/mean"):
        assert kept.metrics[key] == whole.metrics[key]
    rollout = whole.rollout
    assert whole.metrics["actor/entropy"] == pytest.approx(
        float(rollout.entropy[rollout.mask].mean()), rel=1e-5
    )
    assert whole.metrics["critic/rewards/mean"] == pytest.approx(float(whole.rewards.mean()))
    assert whole.metrics["response_length/max"] == rollout.mask.sum(-1).max()


def test_every_generation_batch_has_randomness_of_its_own(
    policy: Policy, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds, prompts, real = [], [], policy.generate

    def spy(asked: list[str], **options: Any) -> Any:
        seeds.append(tuple(options["uniforms"].flatten().tolist()))
        prompts.append(tuple(asked))
        return real(asked, **options)

    monkeypatch.setattr(policy, "generate", spy)
    for step in (0, 1):
        collect(policy, _run(tiny, Hopeless, max_gen_batches=3, train_batch_size=8), step)
    assert len(set(seeds)) == len(set(prompts)) == 6


def test_a_step_sees_other_prompts_than_the_step_before(
    policy: Policy, tiny: dict[str, Any]
) -> None:
    run = _run(tiny, filter_groups=False)
    zero, again, one = (collect(policy, run, step).rollout for step in (0, 0, 1))
    assert zero.texts == again.texts
    assert zero.texts != one.texts
    assert not torch.equal(zero.input_ids[:, :4], one.input_ids[:, :4])
    other_seed = run.model_copy(update={"seed": 1})
    assert collect(policy, other_seed, 0).rollout.texts != zero.texts
    other_arm = _run(tiny, algorithm="cispo", filter_groups=False)
    assert collect(policy, other_arm, 0).rollout.texts == zero.texts  # common random numbers
