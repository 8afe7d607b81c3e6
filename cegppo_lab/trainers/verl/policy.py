"""The model folder that verl loads: the configured one, or a copy with what verl needs of it."""

from __future__ import annotations

from pathlib import Path

from tokenizers import AddedToken
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from cegppo_lab.models import local_folder
from cegppo_lab.trainers.embedded.weights import rescale_head

_TURN_END = "<|im_end|>"
"""verl's agent loop asks for it in every tokenizer of a Qwen model; nothing else here uses it."""


def verl_folder(path: str | Path, head_scale: float, copy: Path) -> Path:
    """The folder of the policy ``path`` for verl: itself if it will do, else ``copy``, written.

    A copy is written for a ``head_scale`` other than 1 (see :meth:`Policy.load`; verl trains the
    scaled weights, and its checkpoints hold them), and for a Qwen2 tokenizer without the end of a
    chat turn, like the shipped policies': that token gets an id after the embeddings, which no
    prompt and no response contains. Raises ``LabError`` for a policy that is not on this machine
    or whose head cannot be scaled.
    """
    folder = local_folder(path, download=True)
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    lacks_token = config.model_type == "qwen2" and _TURN_END not in tokenizer.get_vocab()
    if head_scale == 1.0 and not lacks_token:
        return folder
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype="auto", use_safetensors=True, local_files_only=True
    )
    if head_scale != 1.0:
        rescale_head(model, head_scale)
    if lacks_token:
        tokenizer.add_tokens([AddedToken(_TURN_END, normalized=False, special=True)])
    model.save_pretrained(copy, safe_serialization=True)
    tokenizer.save_pretrained(copy)
    return copy
