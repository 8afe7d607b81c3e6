"""Pretrain the tiny policy of a task on its demonstrations, reproducibly, in about a minute.

python -m cegppo_lab pretrain table_walk
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

from cegppo_lab.errors import LabError, unknown
from cegppo_lab.models import weights_hash
from cegppo_lab.tasks import Problem, Task
from cegppo_lab.trainers.embedded.policy import Policy
from cegppo_lab.trainers.embedded.tokenizer import build_tokenizer

LEAST_LEARNING_RATE = 0.05  # at the end of the cosine, as a share of the highest
WARMUP_ITERATIONS = 50
EVALUATED_RESPONSES = 1024


@dataclass(frozen=True)
class Recipe:
    """How long and how the policy of a task is pretrained.

    The number of iterations is chosen for the accuracy it leaves to be gained by reinforcement
    learning, not for the best policy.
    """

    iterations: int
    batch: int
    learning_rate: float
    tied_head: bool


RECIPES = {
    "table_walk": Recipe(iterations=1900, batch=40, learning_rate=3e-3, tied_head=False),
    "chain": Recipe(iterations=940, batch=128, learning_rate=2e-3, tied_head=True),
}


def pretrain(
    task: Task, out: Path, *, seed: int = 0, iterations: int | None = None
) -> dict[str, str | float]:
    """Write a policy for ``task`` to the folder ``out``: weights, config, tokenizer, model card.

    The same arguments give the same bytes on the same machine. ``out`` appears whole or not at
    all; a model folder that is there already is replaced.

    Args:
        iterations: of the optimiser; by default as many as the task's recipe says.

    Returns:
        What the model card says: ``accuracy`` and ``entropy`` (nats per token) on the held-out
        problems at temperature 1, ``loss``, ``iterations``, ``seed``, ``weights_hash`` and more.

    Raises:
        LabError: a task without a recipe, or an ``out`` that holds something else.
    """
    if task.name not in RECIPES:
        raise unknown("task to pretrain a policy for", task.name, RECIPES)
    if out.exists() and not (out / "config.json").is_file():
        raise LabError(f"{out} exists and is no model folder; name another folder, or remove it.")
    recipe = RECIPES[task.name]
    recipe = replace(recipe, iterations=iterations or recipe.iterations)
    with _one_thread():
        policy = _fresh_policy(task, recipe, seed)
        loss = _train(policy, task, recipe, seed)
        card = {
            "task": task.name,
            "task_version": task.version,
            "seed": seed,
            "iterations": recipe.iterations,
            "torch": torch.__version__,
            "loss": round(loss, 4),
            **_evaluate(policy, task),
        }
    return _save(policy, card, out)


@contextmanager
def _one_thread() -> Iterator[None]:
    """The order of additions, hence the result, depends on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _fresh_policy(task: Task, recipe: Recipe, seed: int) -> Policy:
    tokenizer = build_tokenizer(task.vocabulary())
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=176,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        rms_norm_eps=1e-6,
        tie_word_embeddings=recipe.tied_head,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = Qwen2ForCausalLM(config)
    _initialise(model, torch.Generator().manual_seed(seed))
    return Policy(model, tokenizer, Path())


@torch.no_grad()
def _initialise(model: Qwen2ForCausalLM, generator: torch.Generator) -> None:
    """Matrices keep the variance of their input; what is added to the residuals starts smaller."""
    for name, weight in model.named_parameters():
        if weight.ndim == 1:
            continue
        deviation = weight.shape[1] ** -0.5
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            deviation /= math.sqrt(2 * model.config.num_hidden_layers)
        if name.endswith(("embed_tokens.weight", "lm_head.weight")):
            deviation = 0.05
        weight.normal_(0.0, deviation, generator=generator)


def _train(policy: Policy, task: Task, recipe: Recipe, seed: int) -> float:
    """Supervised training on fresh demonstrations; returns the mean loss of the last tenth."""
    rng = np.random.default_rng(seed)
    tokens = policy.tokenizer.convert_ids_to_tokens(list(range(len(policy.tokenizer))))
    weights = torch.tensor([task.token_weight(token) for token in tokens])
    optimizer = torch.optim.AdamW(
        policy.model.parameters(),
        lr=recipe.learning_rate,
        betas=(0.9, 0.95),
        weight_decay=0.1,
        fused=True,
    )
    losses = []
    for i in range(recipe.iterations):
        cosine = (1 + math.cos(math.pi * i / recipe.iterations)) / 2
        share = cosine * (1 - LEAST_LEARNING_RATE) + LEAST_LEARNING_RATE
        share *= min(1.0, (i + 1) / WARMUP_ITERATIONS)
        optimizer.param_groups[0]["lr"] = recipe.learning_rate * share
        ids, mask, length = _encode(policy.tokenizer, task.demonstrations(recipe.batch, rng))
        log_prob, _ = policy.log_prob_and_entropy(ids, mask, length)
        weight = weights[ids[:, -length:]] * mask[:, -length:]
        loss = -(log_prob * weight).sum() / weight.sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return float(np.mean(losses[-math.ceil(len(losses) / 10) :]))


def _encode(
    tokenizer: PreTrainedTokenizerBase, demonstrations: list[tuple[Problem, str]]
) -> tuple[Tensor, Tensor, int]:
    """(B, P + T) ids, their mask, and T, the longest response with its end token."""
    prompts = tokenizer(
        [problem.prompt for problem, _ in demonstrations],
        padding=True,
        padding_side="left",
        return_tensors="pt",
    )
    responses = tokenizer(
        [response + tokenizer.eos_token for _, response in demonstrations],
        padding=True,
        padding_side="right",
        return_tensors="pt",
    )
    ids = torch.cat([prompts["input_ids"], responses["input_ids"]], 1)
    mask = torch.cat([prompts["attention_mask"], responses["attention_mask"]], 1)
    return ids, mask, responses["input_ids"].shape[1]


def _evaluate(policy: Policy, task: Task) -> dict[str, float]:
    problems = task.heldout()
    repeats = math.ceil(EVALUATED_RESPONSES / len(problems))
    rollout = policy.generate(
        [problem.prompt for problem in problems],
        repeats=repeats,
        max_new_tokens=task.max_response_tokens,
        temperature=1.0,
        uniforms=torch.rand(
            len(problems) * repeats,
            task.max_response_tokens,
            generator=torch.Generator().manual_seed(0),
        ),
    )
    asked = [problem for problem in problems for _ in range(repeats)]
    rewards = [task.reward(*pair) for pair in zip(asked, rollout.texts, strict=True)]
    entropy = rollout.entropy.sum() / rollout.mask.sum()
    return {"accuracy": round(float(np.mean(rewards)), 4), "entropy": round(float(entropy), 4)}


def _save(policy: Policy, card: dict[str, str | float], out: Path) -> dict[str, str | float]:
    """Write everything beside ``out`` first, then rename it into place."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        new = Path(scratch) / "new"
        policy.model.save_pretrained(new)
        policy.tokenizer.backend_tokenizer.no_padding()  # or the last call's would be saved
        policy.tokenizer.save_pretrained(new)
        card = {**card, "weights_hash": weights_hash(new)}
        rows = "\n".join(f"| {key} | {value} |" for key, value in card.items())
        (new / "MODEL_CARD.md").write_text(_CARD.format(rows=rows, **card), encoding="utf-8")
        for file in new.iterdir():
            file.chmod(0o644)  # safetensors writes files that only their owner may read
        if out.exists():
            out.rename(Path(scratch) / "old")
        new.rename(out)
    return card


_CARD = """# Starting policy of the task {task}

A Qwen2 model of about 0.1 M parameters, trained on demonstrations of the task and left
imperfect on purpose, so that reinforcement learning has something to gain. Made by

    python -m cegppo_lab pretrain {task} --seed {seed}

| | |
| --- | --- |
{rows}

Accuracy and entropy (nats per token): held-out problems, temperature 1.
"""
