"""Our CPU rollout engine for verl, without Ray: what it samples, and what that depends on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from transformers import AutoTokenizer
from verl.workers.config import RolloutConfig
from verl.workers.rollout.replica import TokenOutput

from cegppo_lab.models import local_folder
from cegppo_lab.trainers.embedded.policy import Policy
from cegppo_lab.trainers.verl.cpu.rollout import SamplingServer
from cegppo_lab.trainers.verl.policy import verl_folder

HEAD_SCALE = 40.0
SAMPLING = {"temperature": 0.9, "top_p": 1.0}


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy.load("table_walk", head_scale=HEAD_SCALE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("policy")
    assert verl_folder("table_walk", HEAD_SCALE, copy) == copy
    return copy


def _server(folder: Path, policy: Policy, *, rank: int = 0, step: int = 1) -> SamplingServer:
    config = RolloutConfig(name="test", response_length=20, seed=3)
    override = {"attn_implementation": "sdpa"}
    model = OmegaConf.create({"path": str(folder), "override_config": override})
    server = SamplingServer(config, model, rank)
    asyncio.run(server.load_weights(policy.model.state_dict(), step))
    return server


def _ask(server: SamplingServer, texts: list[str], **sampling: Any) -> list[TokenOutput]:
    """The server's answers to all ``texts`` at once."""
    encode = AutoTokenizer.from_pretrained(local_folder("table_walk"))
    prompts = [encode(text, add_special_tokens=False)["input_ids"] for text in texts]

    async def ask() -> list[TokenOutput]:
        options = SAMPLING | sampling
        return await asyncio.gather(*(server.generate("id", ids, options) for ids in prompts))

    return asyncio.run(ask())


def test_log_probabilities_are_the_policys(policy: Policy, folder: Path) -> None:
    texts = ["^35:", "^1", "^07:aaba"]  # unequal lengths: one batch, padded on the left
    for text, output in zip(texts, _ask(_server(folder, policy), texts), strict=True):
        prompt = policy.tokenizer(text, add_special_tokens=False)["input_ids"]
        ids = torch.tensor([prompt + output.token_ids])
        expected, _ = policy.log_prob_and_entropy(
            ids, torch.ones_like(ids), len(output.token_ids), temperature=0.9
        )
        torch.testing.assert_close(
            torch.tensor([output.log_probs]), expected.detach(), rtol=1e-4, atol=1e-5
        )
        ends = [token == policy.tokenizer.eos_token_id for token in output.token_ids]
        assert not any(ends[:-1])
        assert ends[-1] or len(ends) == 20


def test_a_response_depends_on_its_own_request_only(policy: Policy, folder: Path) -> None:
    together = _ask(_server(folder, policy), ["^35:", "^35:", "^12:", "^1"])
    server = _server(folder, policy)
    alone = [_ask(server, [text])[0] for text in ("^12:", "^35:", "^35:")]
    assert [row.token_ids for row in alone] == [together[i].token_ids for i in (2, 0, 1)]
    assert together[0].token_ids != together[1].token_ids


def test_steps_and_replicas_sample_anew(policy: Policy, folder: Path) -> None:
    servers = [_server(folder, policy), _server(folder, policy, step=2)]
    servers.append(_server(folder, policy, rank=1))
    drawn = [tuple(_ask(server, ["^35:"])[0].token_ids) for server in servers]
    assert len(set(drawn)) == 3
    assert _ask(servers[1], ["^35:"])[0].extra_fields == {"global_steps": 2}


def test_temperature_zero_is_greedy(policy: Policy, folder: Path) -> None:
    first, second = _ask(_server(folder, policy), ["^35:", "^35:"], temperature=0)
    greedy = policy.generate(
        ["^35:"], repeats=1, max_new_tokens=20, temperature=0, uniforms=torch.rand(1, 20)
    )
    assert first.token_ids == second.token_ids == greedy.response_ids[0].tolist()


def test_new_weights_replace_the_old_and_must_fit(policy: Policy, folder: Path) -> None:
    server = _server(folder, policy)
    before = _ask(server, ["^35:"], temperature=0)[0]
    weights = {name: torch.zeros_like(value) for name, value in policy.model.state_dict().items()}
    asyncio.run(server.load_weights(weights, 2))
    after = _ask(server, ["^35:"], temperature=0)[0]
    assert after.token_ids != before.token_ids
    uniform = -torch.tensor(float(policy.model.config.vocab_size)).log()
    assert after.log_probs == pytest.approx([float(uniform)] * len(after.token_ids), rel=1e-5)
    weights.popitem()
    with pytest.raises(RuntimeError, match="do not fit"):
        asyncio.run(server.load_weights(weights, 3))


def test_the_shipped_policy_gets_what_verl_asks_of_a_qwen_tokenizer(
    policy: Policy, folder: Path
) -> None:
    copy = Policy.load(folder)
    ids = torch.arange(1, 30)[None]
    torch.testing.assert_close(copy.model(ids).logits, policy.model(ids).logits)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") >= policy.model.config.vocab_size
    assert verl_folder(folder, 1.0, folder / "unused") == folder
