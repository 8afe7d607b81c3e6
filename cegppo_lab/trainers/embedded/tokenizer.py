"""A tokenizer for a task's own vocabulary, in the format that transformers rebuilds for Qwen2."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import AddedToken
from transformers import PreTrainedTokenizerBase, Qwen2Tokenizer

PAD, EOS = "<pad>", "$"
_NEWLINE = "Ċ"  # how byte-level BPE spells "\n"
_CONCATENATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def build_tokenizer(vocabulary: Sequence[str]) -> PreTrainedTokenizerBase:
    """A tokenizer that splits text into exactly the tokens of ``vocabulary``.

    Ids: pad 0, end of sequence 1, newline 2, then the single characters in the order given, then
    the words of several characters. Transformers 5 rebuilds a ``Qwen2Tokenizer`` for every model of
    type qwen2, hence the shape: a byte-level BPE without merges over the characters, and the words
    as added tokens (not special: decoding keeps them). The chat template concatenates messages.

    Args:
        vocabulary: distinct printable ASCII strings without spaces; no word may be a run of others.
    """
    characters = [token for token in vocabulary if len(token) == 1]
    words = [token for token in vocabulary if len(token) > 1]
    ids = {token: i for i, token in enumerate([PAD, EOS, _NEWLINE, *characters])}
    tokenizer = Qwen2Tokenizer(
        vocab=ids,
        merges=[],
        unk_token=None,
        eos_token=EOS,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.add_tokens([AddedToken(word, normalized=False, special=False) for word in words])
    tokenizer.chat_template = _CONCATENATE
    return tokenizer
