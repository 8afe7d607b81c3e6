"""Checkpoints: whole or absent, exact, and plain Hugging Face folders."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from cegppo_lab.compose import resolve
from cegppo_lab.config import RunConfig
from cegppo_lab.trainers.embedded.checkpoint import load_newest, newest_policy, save_checkpoint
from cegppo_lab.trainers.embedded.optimizer import MasterAdamW
from cegppo_lab.trainers.embedded.policy import Policy
from cegppo_lab.trainers.embedded.update import make_optimizer


@pytest.fixture(scope="module")
def run(tiny: dict[str, Any]) -> RunConfig:
    return resolve({**tiny, "trainer.lr": 1e-3})


def _fresh(run: RunConfig, dtype: str = "float32") -> tuple[Policy, MasterAdamW]:
    policy = Policy.load("table_walk", head_scale=40.0, dtype=dtype)
    return policy, make_optimizer(policy, run)


def _train(policy: Policy, optimizer: MasterAdamW, steps: int = 1) -> None:
    for _ in range(steps):
        ids = torch.arange(12)[None]
        loss = policy.model(input_ids=ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _weights(policy: Policy) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in policy.model.parameters()]


def _equal(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize(("dtype", "lr"), [("float32", 1e-3), ("bfloat16", 1e-6)])
def test_training_goes_on_from_a_checkpoint_to_the_same_bits(
    tiny: dict[str, Any], tmp_path: Path, dtype: str, lr: float
) -> None:
    run = resolve({**tiny, "trainer.lr": lr})
    policy, optimizer = _fresh(run, dtype)
    _train(policy, optimizer, 2)
    save_checkpoint(tmp_path, 2, policy, optimizer, keep=2)
    assert load_file(tmp_path / "step_000002/policy/model.safetensors")[
        "lm_head.weight"
    ].dtype == getattr(torch, dtype)
    _train(policy, optimizer, 2)
    again, other = _fresh(run, dtype)
    assert load_newest(tmp_path, again, other) == 2
    _train(again, other, 2)
    assert _equal(_weights(policy), _weights(again))
    assert _equal(optimizer.masters, other.masters)
    _train(again, other)
    assert not _equal(optimizer.masters, other.masters)


def test_a_checkpoint_from_before_the_first_update(run: RunConfig, tmp_path: Path) -> None:
    policy, optimizer = _fresh(run)
    save_checkpoint(tmp_path, 2, policy, optimizer, keep=2)
    again, other = _fresh(run)
    assert load_newest(tmp_path, again, other) == 2
    for each in ((policy, optimizer), (again, other)):
        _train(*each)
    assert _equal(_weights(policy), _weights(again))


def test_a_checkpoint_is_a_plain_model_folder(run: RunConfig, tmp_path: Path) -> None:
    policy, optimizer = _fresh(run)
    _train(policy, optimizer)
    save_checkpoint(tmp_path, 1, policy, optimizer, keep=1)
    folder = newest_policy(tmp_path)
    model, tokenizer = (
        kind.from_pretrained(folder) for kind in (AutoModelForCausalLM, AutoTokenizer)
    )
    ids = tokenizer("^35:", return_tensors="pt")["input_ids"]
    assert ids.tolist() == policy.tokenizer("^35:", return_tensors="pt")["input_ids"].tolist()
    assert tokenizer.eos_token_id == policy.tokenizer.eos_token_id
    with torch.no_grad():
        assert torch.equal(model(ids).logits, policy.model(ids).logits)
    assert _equal(_weights(Policy.load(folder)), _weights(policy))
    assert not list(tmp_path.rglob("*.bin")) + list(tmp_path.rglob("*.pt"))


def test_only_the_newest_are_kept(run: RunConfig, tmp_path: Path) -> None:
    policy, optimizer = _fresh(run)
    for step in (8, 9, 10, 100):
        save_checkpoint(tmp_path, step, policy, optimizer, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_000010", "step_000100"]
    assert load_newest(tmp_path, policy, optimizer) == 100


def test_nothing_to_load(run: RunConfig, tmp_path: Path) -> None:
    policy, optimizer = _fresh(run)
    before = _weights(policy)
    assert load_newest(tmp_path / "none", policy, optimizer) == 0
    assert newest_policy(tmp_path / "none") is None
    assert _equal(before, _weights(policy))


@pytest.mark.parametrize("when", ["os.replace", "os.fsync", "shutil.rmtree"])
def test_a_kill_while_writing_leaves_the_checkpoint_before(
    run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    policy, optimizer = _fresh(run)
    _train(policy, optimizer)
    save_checkpoint(tmp_path, 2, policy, optimizer, keep=1)
    before = _weights(policy)
    _train(policy, optimizer)

    def killed(path: Path, *_: object, **__: object) -> None:
        if when != "shutil.rmtree" or Path(path).name == "step_000004":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(when, killed)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(tmp_path, 4, policy, optimizer, keep=1)
    assert list(tmp_path.glob(".step_000004*"))  # the draft is there, and is no checkpoint
    again, other = _fresh(run)
    assert load_newest(tmp_path, again, other) == 2
    assert _equal(before, _weights(again))
    save_checkpoint(tmp_path, 4, policy, optimizer, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step_000004"]


def test_a_kill_while_deleting_the_old_leaves_the_new(
    run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, optimizer = _fresh(run)
    save_checkpoint(tmp_path, 2, policy, optimizer, keep=1)
    _train(policy, optimizer)
    real = shutil.rmtree

    def killed(path: Path, *rest: object, **options: object) -> None:
        if Path(path).name == "step_000002":
            (Path(path) / "state.json").unlink()
            raise KeyboardInterrupt
        real(path, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(tmp_path, 4, policy, optimizer, keep=1)
    again, other = _fresh(run)
    assert load_newest(tmp_path, again, other) == 4
    assert _equal(_weights(policy), _weights(again))
