"""``python -m cegppo_lab.models.convert FILE FOLDER``: one GGUF file, dequantised to float32."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)


def convert(file: Path, folder: Path) -> None:
    """Write the model and the tokenizer of ``file`` to ``folder``, and have them on disk."""
    options = {"gguf_file": file.name, "local_files_only": True}
    model = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **options)
    tokenizer = AutoTokenizer.from_pretrained(file.parent, **options)
    repair(model, tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for path in folder.iterdir():
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


def repair(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Mend what transformers makes of a GGUF file's tokenizer metadata, in place.

    - The end-of-sequence token is the one that the model's config names: for SmolLM2 the
      tokenizer says ``<|im_start|>``, with which no answer would ever end.
    - Padding is not an end token: torch gives the row of ``pad_token_id`` in the embeddings no
      gradient. Where the file says nothing better it is the unknown token, or there is none.
    - Decoding keeps the spaces before punctuation.
    """
    config = model.config
    eos = config.eos_token_id
    ends = set(eos if isinstance(eos, list) else [eos]) - {None}
    if ends:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(min(ends))
    candidates = (config.pad_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id)
    pad = next((each for each in candidates if each is not None and each not in ends), None)
    tokenizer.pad_token = None if pad is None else tokenizer.convert_ids_to_tokens(pad)
    config.pad_token_id = model.generation_config.pad_token_id = pad
    tokenizer.clean_up_tokenization_spaces = False


if __name__ == "__main__":
    convert(*map(Path, sys.argv[1:]))
