"""Finding, checking and rescaling a policy's weights; the policies and tokenizers that ship."""

from __future__ import annotations

import hashlib

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Qwen2Config, Qwen2ForCausalLM

from cegppo_lab.errors import LabError
from cegppo_lab.models import local_folder, weights_hash
from cegppo_lab.tasks import make_task
from cegppo_lab.trainers.embedded.policy import Policy, Rollout
from cegppo_lab.trainers.embedded.weights import rescale_head


def _rollout(policy: Policy, prompts: list[str], max_new_tokens: int = 20) -> Rollout:
    return policy.generate(
        prompts,
        repeats=3,
        max_new_tokens=max_new_tokens,
        temperature=1.0,
        uniforms=torch.rand(
            3 * len(prompts), max_new_tokens, generator=torch.Generator().manual_seed(7)
        ),
    )


def _qwen2(tied: bool) -> Qwen2ForCausalLM:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    return Qwen2ForCausalLM(Qwen2Config(**sizes, **heads, vocab_size=20, tie_word_embeddings=tied))


def _gpt2() -> GPT2LMHeadModel:
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 16}
    return GPT2LMHeadModel(GPT2Config(**sizes, vocab_size=20, tie_word_embeddings=False))


def test_head_scale_keeps_the_function_and_moves_the_weights():
    plain, scaled = (Policy.load("table_walk", head_scale=scale) for scale in (1.0, 40.0))
    one, two = _rollout(plain, ["^35:"]), _rollout(scaled, ["^35:"])
    assert one.texts == two.texts
    torch.testing.assert_close(one.log_prob, two.log_prob, atol=2e-5, rtol=1e-5)
    ratio = scaled.model.model.norm.weight / plain.model.model.norm.weight
    torch.testing.assert_close(ratio, torch.full_like(ratio, 40.0))


@pytest.mark.parametrize(
    ("model", "scale", "message"),
    [
        (_qwen2(tied=True), 40, "tied"),
        (_gpt2(), 2, "no final RMS norm"),
        (_qwen2(tied=False), 0, "positive"),
    ],
)
def test_head_scale_is_refused_where_it_would_change_the_function(model, scale, message):
    with pytest.raises(LabError, match=message):
        rescale_head(model, scale)


@pytest.mark.parametrize("name", ["table_walk", "chain"])
def test_shipped_policies_load_and_speak_their_task(name):
    policy, task = Policy.load(name), make_task(name)
    rollout = _rollout(policy, [p.prompt for p in task.heldout()[:8]], max_new_tokens=60)
    assert policy.tokenizer("\n")["input_ids"] == [2]
    assert rollout.finished.float().mean() > 0.9
    file = local_folder(name) / "model.safetensors"
    assert policy.weights_hash() == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["table_walk", "chain"])
def test_any_sequence_of_tokens_survives_decoding(name):
    tokenizer = Policy.load(name).tokenizer
    rows = torch.randint(2, len(tokenizer), (200, 40), generator=torch.Generator().manual_seed(0))
    texts = tokenizer.batch_decode(rows, skip_special_tokens=True)
    assert tokenizer(texts)["input_ids"] == rows.tolist()
    assert tokenizer.decode([0, 5, 1, 0], skip_special_tokens=True) == tokenizer.decode([5])
    message = [{"role": "user", "content": "^35:"}]
    assert tokenizer.apply_chat_template(message, tokenize=False) == "^35:"


def test_mistaken_paths_are_told(tmp_path):
    with pytest.raises(LabError, match="Did you mean 'table_walk'"):
        Policy.load("table_wlk")
    with pytest.raises(LabError, match="shipped policy"):
        Policy.load(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(LabError, match=r"no \*\.safetensors"):
        weights_hash(tmp_path)
    with pytest.raises(LabError, match="float23"):
        Policy.load("chain", dtype="float23")
    with pytest.raises(LabError, match="not on this machine"):
        weights_hash("nobody/has-this-model")
    with pytest.raises(LabError, match="no token"):
        _rollout(Policy.load("chain"), ["ÿ"])
