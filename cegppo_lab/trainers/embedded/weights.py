"""The one change that is made to a policy's weights on loading."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from cegppo_lab.errors import LabError


@torch.no_grad()
def rescale_head(model: PreTrainedModel, scale: float) -> None:
    """Multiply the final norm by ``scale`` and divide the head by it, in place: same function.

    Raises:
        LabError: ``scale`` is not positive, the head shares the embeddings' weights, or the model
            has no final RMS norm at ``norm``.
    """
    head, norm = model.get_output_embeddings(), getattr(model.get_decoder(), "norm", None)
    if not scale > 0:
        raise LabError(f"head_scale={scale}: must be positive; 1 leaves the model as it is.")
    if head.weight is model.get_input_embeddings().weight:
        raise LabError(
            f"head_scale={scale}: this model's head is tied to its embeddings; use head_scale=1."
        )
    if norm is None or getattr(norm, "bias", None) is not None:
        kind = model.config.model_type
        raise LabError(f"head_scale={scale}: no final RMS norm in a {kind!r}; use head_scale=1.")
    norm.weight.mul_(scale)
    head.weight.div_(scale)
