"""The stored token samples: bounded, uniform, apart by the clip interval, and without effect."""

from __future__ import annotations

import json

import pytest
import torch

from cegppo_lab import metrics as names
from cegppo_lab.algorithms import make_algorithm
from cegppo_lab.compose import resolve
from cegppo_lab.execute import attempt
from cegppo_lab.store import RunStore
from cegppo_lab.trainers.embedded.rollout import Rollout
from cegppo_lab.trainers.embedded.token_sampler import TokenSampler
from cegppo_lab.trial import make_trial

ALGORITHM = make_algorithm("grpo", clip_low=0.2, clip_high=0.2)


def rollout(rows: int = 40, width: int = 30) -> tuple[Rollout, torch.Tensor, torch.Tensor]:
    """Responses of unequal lengths whose token id is their place in the batch; new log-probs."""
    generator = torch.Generator().manual_seed(3)
    mask = torch.arange(width) < torch.randint(1, width + 1, (rows, 1), generator=generator)
    old = torch.log(torch.rand(rows, width, generator=generator).clamp(min=0.01))
    ids = torch.arange(rows * width).view(rows, width)
    shift = 0.2 * torch.randn(rows, width, generator=generator)
    advantages = torch.randn(rows, generator=generator)
    prompts = torch.zeros(rows, 1, dtype=torch.long)
    made = Rollout(
        input_ids=torch.cat([prompts, ids], 1),
        attention_mask=torch.cat([torch.ones_like(prompts, dtype=torch.bool), mask], 1),
        response_ids=ids,
        mask=mask,
        log_prob=old.where(mask, 0.0),
        entropy=-old,
        texts=[""] * rows,
        finished=mask.any(-1),
    )
    return made, old + shift, advantages


def test_every_kept_token_is_told_as_it_was():
    made, log_prob, advantages = rollout()
    sampler = TokenSampler(25, seed=1, step=7)
    sampler.add(ALGORITHM, made, log_prob, advantages)
    kept = sampler.result()
    ratio = (log_prob - made.log_prob).exp()
    outside = ((ratio < 0.8) | (ratio > 1.2)) & made.mask
    assert kept.step == 8
    assert (kept.inside_count, kept.outside_count) == (
        int((made.mask & ~outside).sum()), int(outside.sum())
    )  # fmt: skip
    assert len(set(kept.token)) == 50
    assert kept.outside == [False] * 25 + [True] * 25
    for place, token in enumerate(kept.token):
        row, column = divmod(token, made.mask.shape[1])
        assert made.mask[row, column]
        assert bool(outside[row, column]) == kept.outside[place]
        assert kept.position[place] == column
        assert kept.probability[place] == pytest.approx(
            float(made.log_prob[row, column].exp()), 1e-3
        )
        assert kept.ratio[place] == pytest.approx(float(ratio[row, column]), rel=1e-3)
        assert kept.advantage[place] == pytest.approx(float(advantages[row]), rel=1e-3)
        assert kept.entropy[place] == pytest.approx(float(made.entropy[row, column]), rel=1e-3)


def test_tokens_are_drawn_evenly_however_the_step_is_split():
    made, log_prob, advantages = rollout(rows=8, width=10)
    inside = made.mask & ((log_prob - made.log_prob).exp() - 1).abs().lt(0.2)
    counts = torch.zeros(80)
    for step in range(600):
        sampler = TokenSampler(10, seed=0, step=step)
        for rows in torch.arange(8).split(3):
            sampler.add(ALGORITHM, made.select(rows), log_prob[rows], advantages[rows])
        kept = sampler.result()
        chosen = [t for t, out in zip(kept.token, kept.outside, strict=True) if not out]
        assert len(chosen) == len(set(chosen)) == 10
        counts[chosen] += 1
    expected = 600 * 10 / int(inside.sum())
    drawn = counts[inside.flatten()]
    chi2 = float(((drawn - expected) ** 2 / expected).sum())
    assert chi2 < 2 * int(inside.sum())  # the mean of chi2 is below the number of cells


def test_sampling_changes_no_number_and_survives_the_store(tmp_path, tiny):
    runs = {}
    for size in (0, 5):
        config = resolve({**tiny, "trainer.steps": 2, "runtime.token_samples": size})
        store, trial = RunStore(tmp_path / str(size)), make_trial(config)
        list(attempt(store, trial))
        runs[size] = store.run(trial.trial_id)
    assert runs[0].trial_id == runs[5].trial_id
    assert runs[0].tokens() == []
    assert not (runs[0].path / "tokens.jsonl").read_text()
    for without, with_samples in zip(runs[0].steps(), runs[5].steps(), strict=True):
        shared = [k for k in without.metrics if not names.is_volatile(k)]
        assert [without.metrics[k] for k in shared] == [with_samples.metrics[k] for k in shared]
    samples = runs[5].tokens()
    assert [sample.step for sample in samples] == [1, 2]
    for sample in samples:
        assert len(sample.token) == 5 + min(5, sample.outside_count)
        assert all(0 < p <= 1 for p in sample.probability)
    line = (runs[5].path / "tokens.jsonl").read_text().splitlines()[0]
    assert json.loads(line)["step"] == 1


def test_the_share_of_improbable_clipped_tokens_is_a_part_of_the_clipped_share():
    made, log_prob, advantages = rollout()
    wide = advantages[:, None].expand_as(log_prob)
    out = ALGORITHM.loss(log_prob, made.log_prob, wide, made.mask)
    ratio = (log_prob - made.log_prob).exp()
    clipped = ((ratio < 0.8) & (wide < 0)) | ((ratio > 1.2) & (wide > 0))
    improbable = clipped & (made.log_prob.exp() < names.LOW_PROBABILITY) & made.mask
    expected = float(improbable.sum() / made.mask.sum())
    assert 0 < out.metrics[names.CLIPFRAC_IMPROBABLE] < out.metrics[names.CLIPFRAC]
    assert out.metrics[names.CLIPFRAC_IMPROBABLE] == pytest.approx(expected)
