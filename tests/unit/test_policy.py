"""The policy's sampling and scoring, held to transformers' own forward pass and generate."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from cegppo_lab.errors import LabError
from cegppo_lab.tasks import make_task
from cegppo_lab.trainers.embedded import decode
from cegppo_lab.trainers.embedded.decode import CacheDecoder, Qwen2Decoder, make_decoder
from cegppo_lab.trainers.embedded.policy import Policy, Rollout
from cegppo_lab.trainers.embedded.rollout import _choose
from cegppo_lab.trainers.embedded.tokenizer import build_tokenizer

PROMPTS = ["^35:", "^3:", "^", "^35:aabaca3d"]  # of 4, 3, 1 and 7 or more tokens
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
TOKENIZER = build_tokenizer([*make_task("table_walk").vocabulary()])
IDS = {"vocab_size": len(TOKENIZER), "bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0}


def _qwen2(tied: bool = False) -> Qwen2ForCausalLM:
    theta = {"rope_type": "default", "rope_theta": 50.0}
    config = Qwen2Config(
        **SIZES, **HEADS, **IDS, tie_word_embeddings=tied, rope_parameters=theta, rms_norm_eps=1e-3
    )
    return Qwen2ForCausalLM(config)


def _llama() -> LlamaForCausalLM:
    return LlamaForCausalLM(LlamaConfig(**SIZES, **HEADS, **IDS))


def _gpt2() -> GPT2LMHeadModel:
    return GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64, **IDS))


def _policy(model) -> Policy:
    """``model`` with weights, biases and norms of a size that makes every one of them matter."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=generator) * 0.3
            weight.copy_(noise if weight.ndim > 1 else weight + noise)
    return Policy(model, TOKENIZER, Path())


MODELS = {"qwen2": _qwen2, "qwen2-tied": lambda: _qwen2(tied=True), "llama": _llama, "gpt2": _gpt2}


@pytest.fixture(scope="module", params=MODELS)
def policy(request) -> Policy:
    return _policy(MODELS[request.param]())


@pytest.fixture(scope="module")
def qwen2() -> Policy:
    return _policy(_qwen2())


def _rollout(policy: Policy, prompts=PROMPTS, **options) -> Rollout:
    settings = {"repeats": 3, "max_new_tokens": 20, "temperature": 1.0} | options
    shape = len(prompts) * settings["repeats"], settings["max_new_tokens"]
    uniforms = torch.rand(*shape, generator=torch.Generator().manual_seed(7))
    return policy.generate(prompts, uniforms=uniforms, **settings)


def _plain_scores(policy: Policy, row: torch.Tensor, temperature: float):
    """Log-probabilities and entropies of an unpadded row: one forward pass, textbook formulas."""
    with torch.no_grad():
        p = (policy.model(input_ids=row[None]).logits[0, :-1] / temperature).double().softmax(-1)
    return p.gather(1, row[1:, None])[:, 0].log(), torch.distributions.Categorical(p).entropy()


def test_what_generate_records_is_what_a_plain_forward_pass_gives(policy):
    rollout = _rollout(policy, temperature=0.7)
    assert len(set(rollout.attention_mask.sum(1).tolist())) > 2
    for i in range(len(rollout.texts)):
        row = rollout.input_ids[i][rollout.attention_mask[i]]
        n = int(rollout.mask[i].sum())
        log_prob, entropy = (x[-n:].float() for x in _plain_scores(policy, row, 0.7))
        torch.testing.assert_close(rollout.log_prob[i, :n], log_prob, atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(rollout.entropy[i, :n], entropy, atol=2e-5, rtol=1e-5)
        assert not rollout.log_prob[i, n:].any()
        assert not rollout.entropy[i, n:].any()


def test_scoring_again_agrees_with_generate_whatever_the_chunks(policy):
    rollout = _rollout(policy, temperature=1.3)
    width = rollout.response_ids.shape[1]
    for chunk in (5, 4096):
        log_prob, entropy = policy.log_prob_and_entropy(
            rollout.input_ids, rollout.attention_mask, width, temperature=1.3, chunk_tokens=chunk
        )
        torch.testing.assert_close(log_prob.detach(), rollout.log_prob, atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(entropy, rollout.entropy, atol=2e-5, rtol=1e-5)
        assert log_prob.requires_grad
        assert not entropy.requires_grad


def _gradient(policy: Policy, value: torch.Tensor) -> torch.Tensor:
    grads = torch.autograd.grad(value, list(policy.model.parameters()), retain_graph=True)
    return torch.cat([grad.flatten() for grad in grads])


@pytest.mark.parametrize("chunk", [5, 4096])
def test_gradients_of_the_chunked_scores_are_those_of_the_whole(qwen2, chunk):
    rollout = _rollout(qwen2)
    width, mask = rollout.response_ids.shape[1], rollout.attention_mask.long()
    weight = torch.randn(rollout.mask.shape, generator=torch.Generator().manual_seed(0))
    weight = weight * rollout.mask
    log_prob, entropy = qwen2.log_prob_and_entropy(
        rollout.input_ids, mask, width, chunk_tokens=chunk, entropy_grad=True
    )
    logits = qwen2.model(
        input_ids=rollout.input_ids,
        attention_mask=mask,
        position_ids=(mask.cumsum(1) - 1).clamp(min=0),
    ).logits[:, -width - 1 : -1]
    whole = torch.distributions.Categorical(logits=logits)
    pairs = [(log_prob, whole.log_prob(rollout.response_ids)), (entropy, whole.entropy())]
    for ours, theirs in pairs:
        expected = _gradient(qwen2, (theirs * weight).sum())
        got = _gradient(qwen2, (ours * weight).sum())
        assert expected.abs().max() > 1
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


def test_the_head_never_sees_more_than_a_chunk_and_only_responses(qwen2):
    rollout, seen = _rollout(qwen2), []
    hook = qwen2.model.lm_head.register_forward_hook(lambda *call: seen.append(len(call[2])))
    try:
        log_prob, _ = qwen2.log_prob_and_entropy(
            rollout.input_ids,
            rollout.attention_mask,
            rollout.response_ids.shape[1],
            chunk_tokens=50,
        )
        forward = sum(seen)
        log_prob.sum().backward()
    finally:
        hook.remove()
        qwen2.model.zero_grad()
    assert max(seen) == 50
    assert forward == int(rollout.mask.sum())
    assert sum(seen) == 2 * forward  # recomputed once


def test_a_model_that_changes_its_logits_after_the_head_is_refused():
    config = GraniteConfig(**SIZES, **HEADS, **IDS, logits_scaling=4.0)
    with pytest.raises(LabError, match="'granite' changes its logits"):
        _policy(GraniteForCausalLM(config))


def test_greedy_decoding_is_that_of_transformers(policy):
    rollout = _rollout(policy, prompts=["^35:", "^12:"], repeats=1, temperature=0)
    theirs = policy.model.generate(
        rollout.input_ids[:, :4], max_new_tokens=20, do_sample=False, pad_token_id=0
    )[:, 4:]
    assert rollout.response_ids.tolist() == theirs.tolist()


def test_the_fast_decoder_samples_what_the_generic_one_does(qwen2, monkeypatch):
    assert type(make_decoder(qwen2.model)) is Qwen2Decoder
    fast = _rollout(qwen2, max_new_tokens=40)
    monkeypatch.setattr(decode.Qwen2Decoder, "supports", lambda model: False)
    assert type(make_decoder(qwen2.model)) is CacheDecoder
    generic = _rollout(qwen2, max_new_tokens=40)
    assert not fast.finished.all()
    assert fast.finished.any()
    assert fast.texts == generic.texts
    torch.testing.assert_close(fast.log_prob, generic.log_prob, atol=2e-5, rtol=1e-5)


def test_samples_depend_on_the_seed_and_not_on_the_batches(policy):
    whole, parts = _rollout(policy), _rollout(policy, batch_size=3)
    assert whole.texts == parts.texts
    assert torch.equal(whole.input_ids, parts.input_ids)
    assert torch.equal(whole.attention_mask, parts.attention_mask)
    uniforms = torch.rand(len(PROMPTS) * 3, 20, generator=torch.Generator())
    other = policy.generate(
        PROMPTS, repeats=3, max_new_tokens=20, temperature=1.0, uniforms=uniforms
    )
    assert other.texts != whole.texts


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 12, 100])
def test_no_more_rows_than_asked_for_are_decoded_at_a_time(size):
    seen, rows = 0, [(prompt, sample) for prompt in range(4) for sample in range(3)]
    for prompts, copies, taken in decode.batches(4, 3, size):
        some = [prompt for prompt in range(4)[prompts] for _ in range(copies)]
        assert 0 < len(some) <= size
        assert some == [prompt for prompt, _ in rows[taken]]
        assert taken.start == seen
        seen = taken.stop
    assert seen == 12


def test_a_policy_has_a_batch_size_of_its_own(qwen2, monkeypatch):
    whole, seen = _rollout(qwen2), []
    real = CacheDecoder.prefill

    def spy(decoder, ids, mask, repeats, room):
        seen.append(len(ids) * repeats)
        return real(decoder, ids, mask, repeats, room)

    monkeypatch.setattr(CacheDecoder, "prefill", spy)
    small = Policy(qwen2.model, TOKENIZER, Path(), batch_size=2)
    assert _rollout(small).texts == whole.texts
    assert seen == [2, 1] * 4
    seen.clear()
    _rollout(small, batch_size=6)
    assert seen == [6, 6]


def test_a_prompt_is_the_users_message_in_the_chat_template(qwen2):
    tokenizer = build_tokenizer([*make_task("table_walk").vocabulary()])
    tokenizer.chat_template = (
        "{% for message in messages %}{{ '1' if message.role == 'user' else '2' }}"
        "{{ message.content }}c{% endfor %}{% if add_generation_prompt %}d{% endif %}"
    )
    options = {"repeats": 1, "max_new_tokens": 4}
    for template, text in ((True, "1^35:cd"), (False, "^35:")):
        policy = Policy(qwen2.model, tokenizer, Path(), chat_template=template)
        rollout = _rollout(policy, prompts=["^35:"], **options)
        read = rollout.input_ids[0, : rollout.prompt_length]
        assert tokenizer.decode(read) == text
        assert rollout.texts == _rollout(qwen2, prompts=[text], **options).texts


@pytest.mark.parametrize("kind", MODELS)
def test_layers_computed_again_give_the_same_gradients(kind):
    plain = _policy(MODELS[kind]())
    rollout = _rollout(plain)
    inputs = rollout.input_ids, rollout.attention_mask, rollout.response_ids.shape[1]
    weight = torch.randn(rollout.mask.shape, generator=torch.Generator().manual_seed(0))

    def gradient(policy: Policy, hooked: torch.nn.Module) -> tuple[torch.Tensor, int]:
        calls = []
        hook = hooked.register_forward_pre_hook(lambda *call: calls.append(1))
        log_prob, entropy = policy.log_prob_and_entropy(*inputs, entropy_grad=True)
        value = (log_prob * weight).sum() + entropy.sum()
        gradient = torch.autograd.grad(value, list(policy.model.parameters()))
        hook.remove()
        return torch.cat([part.flatten() for part in gradient]), len(calls)

    expected, once = gradient(plain, next(iter(_mlps(plain))))
    saving = Policy(plain.model, TOKENIZER, Path(), gradient_checkpointing=True)
    got, twice = gradient(saving, next(iter(_mlps(saving))))
    assert (once, twice) == (1, 2)
    assert expected.abs().max() > 1
    assert torch.equal(got, expected)
    assert not any(module.training for module in saving.model.modules())
    assert _rollout(saving).texts == rollout.texts  # with a cache, as ever


def _mlps(policy: Policy) -> list[torch.nn.Module]:
    return [module for name, module in policy.model.named_modules() if name.endswith("mlp")]


def test_dropout_inside_layers_is_not_turned_on_by_computing_them_again():
    sizes = {"hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "word_embed_proj_dim": 32}
    config = OPTConfig(**sizes, **IDS, num_attention_heads=4, dropout=0.5)
    Policy(OPTForCausalLM(config), TOKENIZER, Path())
    with pytest.raises(LabError, match="'opt' has dropout inside its layers; say"):
        Policy(OPTForCausalLM(config), TOKENIZER, Path(), gradient_checkpointing=True)


def test_rows_end_with_the_end_token_or_at_the_limit(qwen2):
    rollout = _rollout(qwen2, repeats=30)
    for row, mask, finished in zip(
        rollout.response_ids, rollout.mask, rollout.finished, strict=True
    ):
        tokens = row[mask].tolist()
        assert (tokens[-1] == 1) == bool(finished)
        assert 1 not in tokens[:-1]
        assert finished or len(tokens) == 20
        assert set(row[~mask].tolist()) <= {0}
    assert 0 < rollout.finished.float().mean() < 1
    assert not any("$" in text or "<pad>" in text for text in rollout.texts)


def test_selecting_and_joining_keeps_rows_together(qwen2):
    short, long = _rollout(qwen2, PROMPTS[:2]), _rollout(qwen2, PROMPTS[3:], max_new_tokens=9)
    both = Rollout.concat([short, long], qwen2.pad_id)
    assert both.texts == short.texts + long.texts
    assert len({both.prompt_length, short.prompt_length, long.prompt_length}) == 2
    log_prob, _ = qwen2.log_prob_and_entropy(both.input_ids, both.attention_mask, 20)
    torch.testing.assert_close(log_prob.detach(), both.log_prob, atol=2e-5, rtol=1e-5)
    chosen = both.select(torch.tensor([7, 0]))
    assert chosen.texts == [both.texts[7], both.texts[0]]
    assert torch.equal(chosen.log_prob, both.log_prob[[7, 0]])
    assert both.select(both.finished).texts == [
        text for text, done in zip(both.texts, both.finished, strict=True) if done
    ]


def test_sampling_frequencies_are_the_probabilities():
    logits = torch.tensor([2.0, 0.0, -40.0, 1.0, -torch.inf])
    p = logits.softmax(-1)
    uniform = torch.rand(40_000, generator=torch.Generator().manual_seed(0))
    tokens = _choose(p.expand(40_000, -1), uniform, top_p=1.0)
    assert torch.bincount(tokens, minlength=5) / 40_000 == pytest.approx(p, abs=0.01)
    nucleus = _choose(p.expand(40_000, -1), uniform, top_p=0.7)
    kept = torch.tensor([p[0], 0, 0, p[3], 0]) / (p[0] + p[3])
    assert torch.bincount(nucleus, minlength=5) / 40_000 == pytest.approx(kept, abs=0.01)


def test_the_ends_of_the_unit_interval_give_possible_tokens():
    p = torch.tensor([[0.0, 0.3, 0.7, 0.0]])
    assert _choose(p, torch.tensor([0.0]), 1.0).tolist() == [1]
    assert _choose(p, torch.nextafter(torch.ones(1), torch.zeros(1)), 1.0).tolist() == [2]
