"""The clip-bias preview: what an algorithm does to entropy where rewards carry no signal.

A tabular softmax policy (slots x symbols, one set of logits a slot) is trained on coin flips, so
that what is left is the algorithm's own drift of entropy. All algorithms and seeds run at once, as
one batched tensor program; the seeds of all algorithms draw the same random numbers, and an
algorithm's curve does not depend on which others are shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from cegppo_lab.algorithms import Algorithm
from cegppo_lab.algorithms.advantage import group_advantages
from cegppo_lab.algorithms.batch import TokenBatch
from cegppo_lab.errors import LabError
from cegppo_lab.explain.tabular import Adam, entropy, entropy_change, logits_gradient
from cegppo_lab.streams import torch_stream

CLASSES = ("PA&HP", "PA&LP", "NA&HP", "NA&LP")
"""Sign of the advantage (PA, NA) and probability under the rollout policy, above .5 (HP) or not."""


class Settings(BaseModel):
    """The preview's experiment. Its start has entropy .83: one likely symbol and a Zipf tail."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(200, ge=1)
    seeds: int = Field(6, ge=2)
    slots: int = Field(12, ge=1)
    symbols: int = Field(20, ge=2)
    repeats: int = Field(3, ge=1)
    """How often a response passes through every slot."""
    prompts: int = Field(16, ge=1)
    rollouts: int = Field(8, ge=2)
    mini_batches: int = Field(8, ge=1)
    lr: float = Field(0.08, gt=0)
    reward: float = Field(0.3, gt=0, lt=1)
    """The probability of reward 1, whatever the response."""
    top: float = Field(0.85, gt=0, lt=1)
    """The likeliest symbol's probability at the start; the others follow rank^-0.7."""

    def start(self) -> Tensor:
        """The logits at the start, (symbols,), float64."""
        tail = torch.arange(1, self.symbols, dtype=torch.float64) ** -0.7
        return torch.cat([torch.tensor([self.top]), tail / tail.sum() * (1 - self.top)]).log()


@dataclass(frozen=True)
class Drift:
    """The previews of all algorithms, in their order; N algorithms, R seeds, T steps, C classes.

    ``entropy``: (N, R, T + 1), nats per token. ``predicted``: (N, R, T, C, 2), the change of
    entropy to first order (Eq. 7) that each class of tokens brings, inside and outside the clip
    interval; an entropy bonus is counted with the first class, inside. ``clipped``: (N, R), the
    share of tokens outside it.
    """

    labels: tuple[str, ...]
    entropy: Tensor
    predicted: Tensor
    clipped: Tensor


def preview(algorithms: Mapping[str, Algorithm], settings: Settings) -> Drift:
    """Train all ``algorithms`` on rewards without signal.

    Raises ``LabError`` for terms that need more than the policy: ``kl_coef``,
    ``positive_loss_coef``.
    """
    for label, algorithm in algorithms.items():
        for key in ("kl_coef", "positive_loss_coef"):
            if getattr(algorithm, key):
                raise LabError(f"{label}: the preview has no {key}; say {algorithm.name}.{key}=0")
    world = _World(list(algorithms.values()), settings)
    told = [world.step(step) for step in range(settings.steps)]
    entropies = torch.stack([world.start, *(each[0] for each in told)], -1)
    return Drift(
        labels=tuple(algorithms),
        entropy=entropies,
        predicted=torch.stack([each[1] for each in told], 2),
        clipped=torch.stack([each[2] for each in told]).mean(0),
    )


class _World:
    """The policies of all algorithms (A) and seeds (R): logits (A, R, slots, symbols)."""

    def __init__(self, algorithms: list[Algorithm], settings: Settings) -> None:
        self._algorithms, self._set = algorithms, settings
        shape = (len(algorithms), settings.seeds, settings.slots, settings.symbols)
        self._logits = settings.start().float().expand(shape).clone()
        self._adam = Adam(shape, parts=2 * len(CLASSES), lr=settings.lr)
        self._slot = torch.arange(settings.slots).repeat(settings.repeats)
        self.start = entropy(self._logits).mean(-1)

    def step(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """One rollout batch: entropy after it, predicted changes by class, clipped share."""
        draws, advantages = self._rollout(step)
        old = self._logits.log_softmax(-1)
        algorithms = [algorithm.at(step) for algorithm in self._algorithms]
        predicted, clipped = 0.0, 0.0
        for rows in torch.arange(draws.shape[2]).tensor_split(self._set.mini_batches):
            part, outside = self._update(algorithms, old, draws[:, :, rows], advantages[:, rows])
            predicted, clipped = predicted + part, clipped + outside / self._set.mini_batches
        return entropy(self._logits).mean(-1), predicted, clipped

    def _rollout(self, step: int) -> tuple[Tensor, Tensor]:
        """Symbols (A, R, rows, tokens) from common random numbers, and advantages (R, rows)."""
        rows, tokens = self._set.prompts * self._set.rollouts, len(self._slot)
        draws, coins = [], []
        for seed in range(self._set.seeds):
            stream = torch_stream(seed, "explain", step)
            draws.append(torch.rand(rows, tokens, generator=stream))
            coins.append(torch.rand(self._set.prompts, self._set.rollouts, generator=stream))
        advantages = group_advantages((torch.stack(coins) < self._set.reward).float())
        upto = self._logits.softmax(-1).cumsum(-1)[..., :-1].contiguous()
        by_slot = torch.stack(draws).view(self._set.seeds, rows, self._set.repeats, -1)
        by_slot = by_slot.permute(0, 3, 1, 2).reshape(self._set.seeds, self._set.slots, -1)
        symbols = torch.searchsorted(upto, by_slot.expand(len(upto), -1, -1, -1).contiguous())
        symbols = symbols.view(len(upto), self._set.seeds, -1, rows, self._set.repeats)
        symbols = symbols.permute(0, 1, 3, 4, 2).reshape(len(upto), self._set.seeds, rows, tokens)
        return symbols, advantages.reshape(self._set.seeds, rows)

    def _update(
        self, algorithms: list[Algorithm], old: Tensor, symbols: Tensor, advantages: Tensor
    ) -> tuple[Tensor, Tensor]:
        """An Adam step on a mini-batch: predicted entropy change by class, share outside."""
        log_probs = self._logits.log_softmax(-1)
        shape = symbols.shape
        at = (self._slot * self._set.symbols + symbols).flatten(2)
        new, before = (each.flatten(2).gather(2, at).view(shape) for each in (log_probs, old))
        spread = advantages[None, :, :, None].expand(shape)
        now, then = (
            entropy(each)[..., None, self._slot].expand(shape) for each in (log_probs, old)
        )
        weights, outside = [], []
        for number, algorithm in enumerate(algorithms):
            batch = _batch(algorithm, *(each[number] for each in (new, before, spread, now, then)))
            weights.append(algorithm.weight(batch).view(shape[1:]))
            low, high = algorithm.outside(batch)
            outside.append((low | high).view(shape[1:]))
        pushes = torch.stack(weights) * spread / (shape[2] * shape[3])
        beyond = torch.stack(outside)
        kinds = 2 * (2 * (spread < 0) + (before.exp() <= 0.5)) + beyond
        gradient = logits_gradient(pushes, kinds, at.view(shape), log_probs, 2 * len(CLASSES))
        gradient[:, :, 0] += self._bonus(algorithms, log_probs)
        moves = self._adam.moves(gradient)
        change = entropy_change(log_probs[:, :, None], moves).mean(-1)
        self._logits = self._logits + moves.sum(2)
        return change.unflatten(-1, (len(CLASSES), 2)), beyond.float().mean((2, 3))

    def _bonus(self, algorithms: list[Algorithm], log_probs: Tensor) -> Tensor:
        """The entropy bonuses' gradient with respect to the logits."""
        coefs = torch.tensor([algorithm.entropy_coef for algorithm in algorithms])
        surprise = log_probs + entropy(log_probs)[..., None]
        return coefs[:, None, None, None] * -log_probs.exp() * surprise / self._set.slots


def _batch(algorithm: Algorithm, new: Tensor, *told: Tensor) -> TokenBatch:
    """All seeds' rows of one algorithm as one batch, (R * rows, tokens).

    ``told``: the rollout's log-probabilities, the advantages, the entropies now and in the rollout,
    each (R, rows, tokens) as ``new``. Tokens are set apart among those of their own seed.
    """
    batch = _rows(*(each.flatten(0, 1) for each in (new, *told)))
    if algorithm.set_apart(batch) is None:
        return batch
    seeds = [_rows(*own) for own in zip(new, *told, strict=True)]
    return replace(batch, apart=torch.cat([algorithm.set_apart(seed) for seed in seeds]))


def _rows(new: Tensor, old: Tensor, advantages: Tensor, now: Tensor, then: Tensor) -> TokenBatch:
    mask = torch.ones_like(new, dtype=torch.bool)
    return TokenBatch.of(new, old, advantages, mask, entropy=now, old_entropy=then)
