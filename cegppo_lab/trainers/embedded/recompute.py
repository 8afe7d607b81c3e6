"""transformers' gradient checkpointing, for a model that stays in evaluation mode otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from cegppo_lab.errors import LabError


class RecomputedLayers:
    """The layers of a model that keep their inputs only and run again in the backward pass.

    transformers does this to layers in training mode; their dropout, which is in modules of its
    own, stays off.

    Raises:
        LabError: the model has no such layers, or training mode changes what they compute.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        layers = [part for part in model.modules() if isinstance(part, GradientCheckpointingLayer)]
        if not layers or not model.supports_gradient_checkpointing:
            raise _refusal(model, "has no layers that transformers can compute again")
        model.gradient_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})
        self._layers = layers
        self._check_same_function(model)

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Forward passes in here save memory; they cannot use a key-value cache."""
        self._set_training(True)
        try:
            yield
        finally:
            self._set_training(False)

    def _set_training(self, on: bool) -> None:
        for layer in self._layers:
            layer.training = on

    @torch.no_grad()
    def _check_same_function(self, model: PreTrainedModel) -> None:
        probe = torch.arange(8, device=model.device)[None] % model.config.vocab_size
        backbone = model.get_decoder()
        plain = backbone(input_ids=probe, use_cache=False).last_hidden_state
        with self.recorded():
            trained = backbone(input_ids=probe, use_cache=False).last_hidden_state
        if not torch.equal(plain, trained):
            raise _refusal(model, "has dropout inside its layers")


def _refusal(model: PreTrainedModel, reason: str) -> LabError:
    return LabError(
        f"runtime.gradient_checkpointing=true: model type {model.config.model_type!r} {reason}; "
        "say runtime.gradient_checkpointing=false"
    )
