"""AdamW that also learns in small steps where the policy's weights are of low precision."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor


class MasterAdamW(torch.optim.AdamW):
    """AdamW over a model's parameters, through float32 copies of those of lower precision.

    A bfloat16 weight has 8 significant bits: an update below 1/256 of it would be rounded away, as
    those of lr 1e-6 are. So the copies ("masters") are what is updated, and each step writes them
    back rounded. Gradients are added up in the masters in float32, one backward pass at a time; the
    parameters' own are freed. float32 parameters are their own masters: plain AdamW.

    One such optimizer at a time may exist for a model of lower precision.
    """

    def __init__(self, model: torch.nn.Module, **options: Any) -> None:
        parameters = list(model.parameters())
        masters = [_master(parameter) for parameter in parameters]
        super().__init__(masters, **options)
        pairs = zip(parameters, masters, strict=True)
        self._rounded = [pair for pair in pairs if pair[0] is not pair[1]]
        for parameter, master in self._rounded:
            parameter.register_post_accumulate_grad_hook(partial(_move_gradient, master))

    @property
    def masters(self) -> list[Tensor]:
        """What is optimised, in the order of the model's parameters."""
        return self.param_groups[0]["params"]

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One AdamW step on the masters; the model's parameters follow."""
        loss = super().step(closure)
        for parameter, master in self._rounded:
            parameter.copy_(master)
        return loss


def _master(parameter: Tensor) -> Tensor:
    if parameter.dtype == torch.float32:
        return parameter
    return parameter.detach().float().requires_grad_()


def _move_gradient(master: Tensor, parameter: Tensor) -> None:
    gradient = parameter.grad.float()
    master.grad = gradient if master.grad is None else master.grad.add_(gradient)
    parameter.grad = None
