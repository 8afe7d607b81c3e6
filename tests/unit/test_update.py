"""Optimizer steps: exact whatever the micro-batches, and told when they make no sense."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch

from cegppo_lab.compose import resolve
from cegppo_lab.config import RunConfig
from cegppo_lab.trainers.base import TrainingStoppedError
from cegppo_lab.trainers.embedded.experience import Experience, collect
from cegppo_lab.trainers.embedded.micro_batches import micro_batches
from cegppo_lab.trainers.embedded.policy import Policy
from cegppo_lab.trainers.embedded.update import accumulate, learning_rate, make_optimizer, update

ROWS = torch.tensor([5, 0, 3, 14, 7, 9, 2])  # a mini-batch in an order of its own


def _load() -> Policy:
    return Policy.load("table_walk", head_scale=40.0)


@pytest.fixture(scope="module")
def policy() -> Policy:
    return _load()


@pytest.fixture(scope="module")
def experience(policy: Policy, tiny: dict[str, Any]) -> Experience:
    """Sixteen responses of unequal lengths, cut at random, with advantages of both signs."""
    fresh = collect(policy, _run(tiny, **{"trainer.filter_groups": False}), 0)
    rollout = fresh.rollout
    generator = torch.Generator().manual_seed(0)
    width = rollout.mask.shape[1]
    lengths = torch.randint(3, width + 1, (16, 1), generator=generator)
    kept = rollout.mask & (torch.arange(width) < lengths)
    attention = torch.cat([rollout.attention_mask[:, :-width].bool(), kept], 1)
    cut = replace(rollout, mask=kept, attention_mask=attention)
    return replace(fresh, rollout=cut, advantages=torch.randn(16, generator=generator))


def _run(tiny: dict[str, Any], **values: Any) -> RunConfig:
    return resolve({**tiny, **values})


def _off_policy(experience: Experience) -> Experience:
    """The same responses as if an older policy had sampled them: ratios far from 1."""
    noise = torch.randn(experience.rollout.mask.shape, generator=torch.Generator().manual_seed(1))
    old = experience.rollout.log_prob + 0.4 * noise
    return replace(experience, rollout=replace(experience.rollout, log_prob=old))


def _gradient(
    policy: Policy, run: RunConfig, experience: Experience, reference: Policy | None = None
) -> tuple[torch.Tensor, dict[str, float]]:
    policy.model.zero_grad(set_to_none=True)
    metrics = accumulate(policy, reference, run.algorithm, run, experience, ROWS)
    gradient = torch.cat([p.grad.flatten().double() for p in policy.model.parameters()])
    policy.model.zero_grad(set_to_none=True)
    return gradient, metrics


@pytest.mark.parametrize(
    "options",
    [
        {"algorithm": "cegppo"},
        {"algorithm": "cegppo", "algorithm.entropy_coef": 0.05},
        {"algorithm": "grpo", "algorithm.positive_loss_coef": 0.3},
        {
            "algorithm": "dapo",
            "algorithm.aggregation": "seq-mean-token-mean",
            "algorithm.entropy_coef": 0.05,
            "algorithm.positive_loss_coef": 0.3,
            "algorithm.kl_coef": 0.1,
        },
        {"algorithm": "cispo", "algorithm.aggregation": "seq-mean-token-sum"},
        {"algorithm": "gspo"},
    ],
    ids=lambda options: " ".join(str(value) for value in options.values()),
)
def test_gradients_and_metrics_do_not_depend_on_the_micro_batches(
    policy: Policy, experience: Experience, tiny: dict[str, Any], options: dict[str, Any]
) -> None:
    off_policy, reference = _off_policy(experience), _load()
    with torch.no_grad():
        for parameter in reference.model.parameters():
            parameter.mul_(0.9)

    def gradient(
        rows: int, chunk: int, tokens: int | None = None
    ) -> tuple[torch.Tensor, dict[str, float]]:
        sizes = {"micro_batch_size": rows, "chunk_tokens": chunk, "micro_batch_tokens": tokens}
        sizes = {f"runtime.{key}": value for key, value in sizes.items()}
        return _gradient(policy, _run(tiny, **options, **sizes), off_policy, reference)

    whole, metrics = gradient(len(ROWS), 8192)
    assert whole.norm() > 0.1
    for sizes in ((1, 8192), (3, 8192), (len(ROWS), 5), (3, 17), (7, 8192, 100), (2, 17, 90)):
        part, told = gradient(*sizes)
        assert (part - whole).norm() <= 2e-6 * whole.norm()
        assert told == pytest.approx(metrics, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("size", [3, 256])
@pytest.mark.parametrize("tokens", [1, 60, 150, 10_000])
def test_a_micro_batch_holds_no_more_tokens_than_it_may(
    experience: Experience, tiny: dict[str, Any], size: int, tokens: int
) -> None:
    sizes = {"runtime.micro_batch_size": size, "runtime.micro_batch_tokens": tokens}
    rollout = experience.rollout
    parts = micro_batches(rollout, ROWS, _run(tiny, **sizes).runtime)
    assert sorted(torch.cat(list(parts)).tolist()) == sorted(ROWS.tolist())
    cells = [rollout.select(part).trimmed().input_ids.numel() for part in parts]
    assert all(count <= tokens or len(part) == 1 for count, part in zip(cells, parts, strict=True))
    assert all(len(part) <= size for part in parts)
    lengths = [int(rollout.attention_mask[row].sum()) for part in parts for row in part]
    assert lengths == sorted(lengths, reverse=True)
    if size == 256:  # no part could have taken the first row of the next one
        for part, after in pairwise(parts):
            joined = rollout.select(torch.cat([part, after[:1]])).trimmed()
            assert joined.input_ids.numel() > tokens


def _moved(dtype: str, run: RunConfig, experience: Experience, steps: int) -> torch.Tensor:
    """How far ``steps`` updates move the weights, from the same start in both types."""
    policy = Policy.load("table_walk", head_scale=40.0, dtype="bfloat16")
    policy.model.to(getattr(torch, dtype))
    optimizer = make_optimizer(policy, run)
    before = torch.cat([master.detach().flatten().clone() for master in optimizer.masters])
    for step in range(steps):
        update(policy, None, optimizer, run, experience, step)
    for parameter, master in zip(policy.model.parameters(), optimizer.masters, strict=True):
        assert torch.equal(parameter, master.to(parameter.dtype))
    return torch.cat([master.detach().flatten() for master in optimizer.masters]) - before


def test_small_steps_add_up_in_bfloat16(experience: Experience, tiny: dict[str, Any]) -> None:
    """At lr 1e-6 a bfloat16 weight itself would never move: see the last assertion."""
    options = {"trainer.lr": 1e-6, "trainer.lr_warmup_steps": 0, "runtime.micro_batch_size": 3}
    run = _run(tiny, **options, **{"trainer.weight_decay": 0.0})
    low, full = (_moved(dtype, run, experience, 20) for dtype in ("bfloat16", "float32"))
    assert full.abs().max() > 1e-5
    assert torch.cosine_similarity(low, full, dim=0) > 0.95
    assert float(low.norm() / full.norm()) == pytest.approx(1, abs=0.05)
    weights = torch.cat([p.detach().flatten() for p in _load().model.parameters()])
    rounded = (weights.bfloat16() + full.bfloat16()) - weights.bfloat16()
    assert rounded.float().norm() < 0.5 * full.norm()


def test_gradients_of_micro_batches_are_added_in_float32(
    experience: Experience, tiny: dict[str, Any]
) -> None:
    run = _run(tiny, **{"runtime.micro_batch_size": 1})
    policy = Policy.load("table_walk", dtype="bfloat16")
    parts: list[torch.Tensor] = []
    embedding = policy.model.get_input_embeddings().weight
    embedding.register_hook(lambda gradient: parts.append(gradient.float()))
    optimizer = make_optimizer(policy, run)
    accumulate(policy, None, run.algorithm, run, experience, ROWS)
    assert len(parts) == len(ROWS)
    assert all(parameter.grad is None for parameter in policy.model.parameters())
    assert torch.equal(optimizer.masters[0].grad, sum(parts[1:], parts[0]))
    assert optimizer.masters[0].dtype == torch.float32


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_first_mini_batch_is_on_policy_whatever_decoding_rounds(
    tiny: dict[str, Any], dtype: str
) -> None:
    run = _run(tiny, **{"model.dtype": dtype, "trainer.filter_groups": False})
    policy = Policy.load("table_walk", head_scale=40.0, dtype=dtype)
    collected = collect(policy, run, 0)
    metrics = accumulate(policy, None, run.algorithm, run, collected, torch.arange(16))
    assert metrics["actor/ratio_max"] == pytest.approx(1, abs=1e-4)
    assert metrics["actor/ratio_min"] == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("aggregation", ["token-mean", "seq-mean-token-mean"])
def test_at_ratio_one_the_gradient_is_the_policy_gradient_of_plain_forward_passes(
    policy: Policy, experience: Experience, tiny: dict[str, Any], aggregation: str
) -> None:
    options = {"algorithm": "grpo", "algorithm.aggregation": aggregation}
    ours, _ = _gradient(policy, _run(tiny, **options), experience)
    rollout, objective, tokens = experience.rollout, torch.tensor(0.0), 0
    for row in ROWS.tolist():
        ids = rollout.input_ids[row][rollout.attention_mask[row].bool()]
        count = int(rollout.mask[row].sum())
        log_p = policy.model(input_ids=ids[None]).logits[0, :-1].log_softmax(-1)
        chosen = log_p.gather(1, ids[1:, None])[-count:, 0] * experience.advantages[row]
        objective = objective + (chosen.sum() if aggregation == "token-mean" else chosen.mean())
        tokens += count
    loss = -objective / (tokens if aggregation == "token-mean" else len(ROWS))
    parameters = list(policy.model.parameters())
    plain = torch.cat([g.flatten().double() for g in torch.autograd.grad(loss, parameters)])
    assert (ours - plain).norm() <= 1e-4 * plain.norm()


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_first_mini_batch_is_on_policy(
    policy: Policy, tiny: dict[str, Any], temperature: float
) -> None:
    run = _run(tiny, **{"trainer.temperature": temperature, "trainer.filter_groups": False})
    _, metrics = _gradient(policy, run, collect(policy, run, 0))
    assert metrics["actor/ratio_max"] == pytest.approx(1, abs=1e-4)
    assert metrics["actor/ratio_min"] == pytest.approx(1, abs=1e-4)
    assert metrics["actor/ppo_kl"] == pytest.approx(0, abs=1e-5)
    assert metrics["actor/pg_clipfrac"] == 0


def test_kl_is_to_the_reference_and_0_before_the_first_update(
    experience: Experience, tiny: dict[str, Any]
) -> None:
    run = _run(
        tiny,
        **{
            "algorithm.kl_coef": 0.1,
            "trainer.mini_batches": 1,
            "trainer.lr": 1e-3,
            "trainer.lr_warmup_steps": 0,
        },
    )
    policy, reference = _load(), _load()
    optimizer = make_optimizer(policy, run)
    first = update(policy, reference, optimizer, run, experience, 0)
    second = update(policy, reference, optimizer, run, experience, 1)
    assert first["actor/kl_loss"] == pytest.approx(0, abs=1e-7)
    assert second["actor/kl_loss"] > 1e-4
    assert all(parameter.grad is None for parameter in reference.model.parameters())


def test_the_positive_loss_is_the_likelihood_of_the_rewarded_responses(
    policy: Policy, experience: Experience, tiny: dict[str, Any]
) -> None:
    run = _run(tiny, **{"algorithm.positive_loss_coef": 0.3, "runtime.micro_batch_size": 2})
    _, metrics = _gradient(policy, run, experience)
    rows = ROWS[experience.rewards[ROWS] == 1]
    assert 0 < len(rows) < len(ROWS)
    tokens = experience.rollout.log_prob[rows][experience.rollout.mask[rows]]
    assert metrics["actor/positive_loss"] == pytest.approx(-float(tokens.mean()), rel=1e-4)
    total = metrics["actor/pg_loss"] + 0.3 * metrics["actor/positive_loss"]
    assert metrics["actor/loss"] == pytest.approx(total, rel=1e-5)


def test_every_group_is_trained_once_and_whole(
    experience: Experience, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[int]] = []
    real = accumulate

    def spy(*arguments: Any) -> dict[str, float]:
        seen.append(arguments[5].tolist())
        return real(*arguments)

    monkeypatch.setattr("cegppo_lab.trainers.embedded.update.accumulate", spy)
    policy = _load()
    for parts, count in ((3, 3), (9, 4)):
        seen.clear()
        run = _run(tiny, **{"trainer.mini_batches": parts})
        metrics = update(policy, None, make_optimizer(policy, run), run, experience, 0)
        assert metrics["train/optimizer_steps"] == len(seen) == count
        assert sorted(row for rows in seen for row in rows) == list(range(16))
        assert all(len({row // 4 for row in rows}) == len(rows) // 4 for rows in seen)
    for step in range(1, 7):
        update(policy, None, make_optimizer(policy, run), run, experience, step)
    assert len({tuple(map(tuple, seen[i : i + 4])) for i in range(0, 28, 4)}) > 3  # shuffled anew


def test_the_step_is_adamws_at_the_warm_up_rate(
    experience: Experience, tiny: dict[str, Any]
) -> None:
    run = _run(tiny, **{"trainer.mini_batches": 1, "trainer.lr": 1e-3, "trainer.grad_clip": 0.5})
    ours, theirs = _load(), _load()
    metrics = update(ours, None, make_optimizer(ours, run), run, experience, 4)
    assert metrics["actor/lr"] == pytest.approx(5e-4)  # warm-up over ten steps, the fifth
    accumulate(theirs, None, run.algorithm, run, experience, torch.arange(16))
    parameters = list(theirs.model.parameters())
    norm = torch.sqrt(sum(p.grad.double().square().sum() for p in parameters))
    assert metrics["actor/grad_norm"] == pytest.approx(float(norm), rel=1e-5)
    assert norm > 0.5
    for parameter in parameters:
        parameter.grad *= 0.5 / norm
    torch.optim.AdamW(parameters, lr=5e-4, weight_decay=0.1, foreach=False).step()
    for mine, other in zip(ours.model.parameters(), parameters, strict=True):
        torch.testing.assert_close(mine, other, atol=2e-6, rtol=1e-4)


def test_the_learning_rate_warms_up_and_stays(tiny: dict[str, Any]) -> None:
    run = _run(tiny, **{"trainer.lr": 1.0, "trainer.lr_warmup_steps": 4})
    rates = [learning_rate(run, step) for step in range(6)]
    assert rates == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert learning_rate(_run(tiny, **{"trainer.lr": 1.0, "trainer.lr_warmup_steps": 0}), 0) == 1.0


def test_a_schedule_takes_effect_at_its_step(experience: Experience, tiny: dict[str, Any]) -> None:
    run = _run(tiny, **{"algorithm.entropy_coef": {0: 0.0, 3: 0.5}, "trainer.mini_batches": 1})
    told = []
    for step in (2, 3):
        policy = _load()
        told.append(update(policy, None, make_optimizer(policy, run), run, experience, step))
    assert "actor/entropy_loss" not in told[0]
    assert told[1]["actor/entropy_loss"] > 0.1


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_what_is_not_finite_stops_training_and_spares_the_policy(
    experience: Experience, tiny: dict[str, Any], broken: str
) -> None:
    run, policy = _run(tiny, **{"trainer.mini_batches": 1}), _load()
    if broken == "loss":
        experience = replace(experience, advantages=experience.advantages * torch.inf)
    else:
        policy.model.lm_head.weight.register_hook(lambda grad: grad * torch.nan)
    before = [parameter.clone() for parameter in policy.model.parameters()]
    with pytest.raises(TrainingStoppedError, match=r"step 3: loss .* gradient norm .*nan"):
        update(policy, None, make_optimizer(policy, run), run, experience, 2)
    for old, now in zip(before, policy.model.parameters(), strict=True):
        assert torch.equal(old, now)
