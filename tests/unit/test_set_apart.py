"""Tokens of a mini-batch that an algorithm sets apart: which ones, whatever its micro-batches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from cegppo_lab.algorithms import TokenBatch, algorithm_names, make_algorithm
from cegppo_lab.compose import resolve
from cegppo_lab.errors import LabError
from cegppo_lab.explain.dynamics import Settings, preview
from cegppo_lab.explain.weights import curves
from cegppo_lab.trainers.embedded.experience import collect
from cegppo_lab.trainers.embedded.policy import Policy
from cegppo_lab.trainers.embedded.update import accumulate
from cegppo_lab.trainers.verl.overrides import verl_overrides
from cegppo_lab.trainers.verl.trainer import planned_places

COV = {"cov_share": 0.1, "cov_low": 0.2, "cov_high": 3.0}
CHOOSE = [
    ("dapo", {"entropy_top": 0.3}),
    ("high_entropy_tokens", {}),
    ("clip_cov", COV),
    ("clip_cov", {**COV, "entropy_top": 0.5}),
    ("kl_cov", {"cov_share": 0.1}),
]
CROSSED = [
    ("erc", {"entropy_low": 1.1}, "entropy_low=1.1 must be below entropy_high=1.05"),
    ("clip_cov", {"cov_high": {0: 5, 9: 1}}, "cov_low=1 must be below cov_high=1"),
    ("dapo", {"entropy_top": 0}, "algorithm.entropy_top=0: must be > 0"),
    ("cegppo", {"entropy_top": {0: 0.2, 5: 2}}, "must be <= 1, not 2"),
    ("kl_cov", {"cov_share": 1.5}, "algorithm.cov_share=1.5: must be <= 1"),
]


def tokens(rows: int = 16, width: int = 20, seed: int = 0) -> TokenBatch:
    """Rollout tokens in rows of unequal lengths, with one advantage a row."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, width + 1, (rows, 1), generator=generator)
    old = -torch.randn(rows, width, generator=generator).abs()
    advantages = torch.randn(rows, 1, generator=generator).expand(rows, width)
    entropy = torch.rand(rows, width, generator=generator)
    return TokenBatch.of(old, old, advantages, torch.arange(width) < lengths, old_entropy=entropy)


def covariances(batch: TokenBatch) -> Tensor:
    found = torch.full(batch.mask.shape, -torch.inf)
    chosen = batch.advantages[batch.mask], batch.old_log_prob[batch.mask]
    found[batch.mask] = (chosen[0] - chosen[0].mean()) * (chosen[1] - chosen[1].mean())
    return found


@pytest.mark.parametrize("share", [0.001, 0.2, 0.5, 1.0])
def test_the_tokens_of_highest_entropy_learn(share: float) -> None:
    batch = tokens()
    apart = make_algorithm("dapo", entropy_top=share).set_apart(batch)
    learns, count = batch.mask & ~apart, int(batch.mask.sum())
    assert learns.sum() == max(round(share * count), 1)
    assert not (apart & ~batch.mask).any()
    if apart.any():
        assert batch.old_entropy[learns].min() > batch.old_entropy[apart].max()


def test_equal_entropies_all_learn() -> None:
    batch = replace(tokens(), old_entropy=torch.ones(16, 20))
    assert not make_algorithm("high_entropy_tokens").set_apart(batch).any()


def test_clip_cov_draws_from_its_interval() -> None:
    batch = tokens()
    drawn = make_algorithm("clip_cov", **COV).set_apart(batch)
    found = covariances(batch)
    inside = (found > 0.2) & (found < 3)
    assert drawn.sum() == int(0.1 * int(batch.mask.sum())) < inside.sum()
    assert not (drawn & ~inside).any()
    assert make_algorithm("clip_cov", **COV | {"cov_share": 1e-6}).set_apart(batch).sum() == 1
    assert torch.equal(
        make_algorithm("clip_cov", **COV | {"cov_share": 1}).set_apart(batch), inside
    )
    masked = make_algorithm("dapo", entropy_top=0.5).set_apart(batch)
    both = make_algorithm("clip_cov", **COV, entropy_top=0.5).set_apart(batch)
    assert torch.equal(both, drawn | masked)


def test_clip_covs_draw_can_be_repeated_and_is_no_order() -> None:
    algorithm, batch = make_algorithm("clip_cov", **COV), tokens()
    drawn = algorithm.set_apart(batch)
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    assert torch.equal(algorithm.set_apart(batch), drawn)
    assert torch.equal(torch.random.get_rng_state(), state)
    wider = TokenBatch.of(
        *(
            torch.nn.functional.pad(each, (0, 3))
            for each in (batch.old_log_prob, batch.old_log_prob, batch.advantages, batch.mask)
        )
    )
    assert torch.equal(algorithm.set_apart(wider)[:, :-3], drawn), "padding is nothing"

    found = covariances(batch)
    inside = ((found > 0.2) & (found < 3)).nonzero().tolist()
    counts = torch.zeros(len(inside))
    for number in range(400):
        moved = replace(batch, old_log_prob=batch.old_log_prob - number * 1e-6)
        chosen = algorithm.set_apart(moved)
        counts += torch.tensor([float(chosen[row, column]) for row, column in inside])
    expected = 400 * int(drawn.sum()) / len(inside)
    assert abs(counts - expected).max() < 6 * expected**0.5, "each is drawn as often as the others"


def test_kl_cov_pulls_the_highest_covariances() -> None:
    """But none without an advantage, high as its covariance may be."""
    batch = tokens()
    some = (batch.advantages + 3) * batch.mask
    some[:4] = 0
    batch = replace(batch, advantages=some)
    pulled = make_algorithm("kl_cov", cov_share=0.1).set_apart(batch)
    found = covariances(batch).masked_fill(batch.advantages == 0, -torch.inf)
    count = int(0.1 * int(batch.mask.sum()))
    assert covariances(batch)[:4].amax() > found[pulled].amin()
    assert torch.equal(found[pulled].sort().values, found.flatten().topk(count).values.flip(0))


@pytest.mark.parametrize(("name", "options"), CHOOSE, ids=str)
def test_micro_batches_choose_nothing(
    name: str, options: dict[str, Any], tiny: dict[str, Any]
) -> None:
    """The trainer's gradient of a mini-batch, whole and in micro-batches of every kind."""
    words = {f"algorithm.{key}": value for key, value in options.items()}
    plain = {"algorithm": name, **words, "trainer.train_batch_size": 4, "trainer.rollout_n": 4}
    policy, gradients = Policy.load("table_walk", head_scale=40.0), []
    experience, rows = None, torch.arange(2, 14)
    for split in ({"micro_batch_size": 64}, {"micro_batch_size": 5}, {"micro_batch_tokens": 150}):
        own = {f"runtime.{key}": value for key, value in split.items()}
        config = resolve({**tiny, **plain, **own})
        if experience is None:
            fresh = collect(policy, config, 0)
            generator = torch.Generator().manual_seed(0)
            noise = 0.3 * torch.randn(fresh.rollout.mask.shape, generator=generator)
            moved = replace(fresh.rollout, log_prob=fresh.rollout.log_prob + noise)
            advantages = torch.randn(len(fresh.advantages), generator=generator)
            experience = replace(fresh, rollout=moved, advantages=advantages)
        policy.model.zero_grad(set_to_none=True)
        accumulate(policy, None, config.algorithm, config, experience, rows)
        gradients.append(torch.cat([p.grad.flatten() for p in policy.model.parameters()]))
    whole, *parts = gradients
    for part in parts:
        assert (part - whole).norm() <= 1e-5 * whole.norm()
    policy.model.zero_grad(set_to_none=True)
    base = {"clip_cov": "grpo", "kl_cov": "kl_cov"}.get(name, "dapo")
    bare = make_algorithm(base, **({"cov_coef": 0} if name == "kl_cov" else {}))
    accumulate(policy, None, bare, config, experience, rows)
    plainly = torch.cat([p.grad.flatten() for p in policy.model.parameters()])
    assert (plainly - whole).norm() > 1e-3 * whole.norm(), "the choice matters"


@pytest.mark.parametrize(("name", "options", "told"), CROSSED, ids=str)
def test_a_mistake_is_one_line(name: str, options: dict[str, Any], told: str) -> None:
    with pytest.raises(LabError) as error:
        make_algorithm(name, **options)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "words",
    [
        {"algorithm": "erc"},
        {"algorithm": "high_entropy_tokens"},
        {"algorithm": "grpo", "algorithm.entropy_top": {0: 0.2, 5: 0.5}},
    ],
    ids=str,
)
def test_verl_is_refused_what_it_cannot_give(words: dict[str, Any], tmp_path: Any) -> None:
    config = resolve({"trainer": "verl", **words})
    places = planned_places(tmp_path / "verl", tmp_path / "checkpoints", "a/model")
    with pytest.raises(LabError, match=r"needs .*old_entropy of each .*=embedded") as e:
        verl_overrides(config, places, 0, 5)
    assert "\n" not in str(e.value)


def test_explain_draws_every_algorithm() -> None:
    every = {name: make_algorithm(name) for name in algorithm_names()}
    for name, curve in curves(every, [0.1, 0.5, 1.0, 1.5]).items():
        assert torch.tensor([curve.positive, curve.negative]).isfinite().all(), name
        assert curve.positive[2] == curve.negative[2] == 1, "on policy"
    small = Settings(steps=2, seeds=2, slots=3, symbols=5, prompts=4, rollouts=4, mini_batches=2)
    assert preview(every, small).entropy.isfinite().all()


def test_the_previews_seeds_choose_apart() -> None:
    small = {"steps": 4, "slots": 3, "symbols": 5, "prompts": 4, "rollouts": 4, "mini_batches": 2}
    algorithm = {"80/20": make_algorithm("high_entropy_tokens", entropy_top=0.5)}
    few, more = (preview(algorithm, Settings(seeds=seeds, **small)).entropy for seeds in (2, 3))
    torch.testing.assert_close(few[0], more[0, :2], rtol=0, atol=1e-6)
