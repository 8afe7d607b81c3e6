"""A uniform sample of a step's tokens, inside and outside the clip interval, for the store."""

from __future__ import annotations

import torch
from torch import Tensor

from cegppo_lab.algorithms import Algorithm
from cegppo_lab.store import TokenSample
from cegppo_lab.streams import torch_stream
from cegppo_lab.trainers.embedded.rollout import Rollout

_DIGITS = 4


class TokenSampler:
    """Keeps at most ``size`` tokens of each side over all the batches of one step.

    Every token gets a random key, and those with the smallest keys stay: uniform without
    replacement, however the step is split. The stream is its own, so sampling changes no number.
    """

    def __init__(self, size: int, seed: int, step: int) -> None:
        self._size, self._step = size, step
        self._stream = torch_stream(seed, "token-sample", step)
        self._kept = {False: torch.empty(0, 7), True: torch.empty(0, 7)}
        self._counts = {False: 0, True: 0}

    @torch.no_grad()
    def add(
        self, algorithm: Algorithm, rollout: Rollout, log_prob: Tensor, advantages: Tensor
    ) -> None:
        """Offer the tokens of a (micro-)batch.

        ``log_prob``: (batch, tokens), the current policy's; ``advantages``: (batch,).
        """
        mask, old = rollout.mask, rollout.log_prob
        ratio = (log_prob.detach().float() - old).exp()
        outside = (ratio < 1 - algorithm.clip_low) | (ratio > 1 + algorithm.clip_high)
        keys = torch.rand(mask.shape, generator=self._stream, dtype=torch.float64)
        columns = (
            keys.to(mask.device),
            old.exp(),
            ratio,
            advantages[:, None].expand(mask.shape),
            rollout.entropy,
            rollout.response_ids,
            torch.arange(mask.shape[1], device=mask.device).expand(mask.shape),
        )
        table = torch.stack([column.double() for column in columns], -1)
        for side in (False, True):
            mine = table[mask & (outside == side)].cpu()
            self._counts[side] += len(mine)
            pool = torch.cat([self._kept[side], mine])
            self._kept[side] = pool[pool[:, 0].argsort()[: self._size]]

    def result(self) -> TokenSample:
        """What was kept, as the store's record; numbers rounded to four significant digits."""
        rows = torch.cat([self._kept[False], self._kept[True]])
        _, probability, ratio, advantage, entropy, token, position = rows.T.tolist()
        return TokenSample(
            step=self._step + 1,
            inside_count=self._counts[False],
            outside_count=self._counts[True],
            probability=_rounded(probability),
            ratio=_rounded(ratio),
            advantage=_rounded(advantage),
            entropy=_rounded(entropy),
            token=[int(value) for value in token],
            position=[int(value) for value in position],
            outside=[False] * len(self._kept[False]) + [True] * len(self._kept[True]),
        )


def _rounded(values: list[float]) -> list[float]:
    return [float(f"{value:.{_DIGITS}g}") for value in values]
