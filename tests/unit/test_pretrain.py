"""Pretraining: reproducible to the byte, atomic, and it teaches the task."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from cegppo_lab.errors import LabError
from cegppo_lab.models import local_folder
from cegppo_lab.pretrain import RECIPES, pretrain
from cegppo_lab.tasks import make_task, task_names
from cegppo_lab.trainers.embedded.policy import Policy
from cegppo_lab.trainers.embedded.tokenizer import build_tokenizer


def _bytes(folder) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("policies") / "table_walk"
    return out, pretrain(make_task("table_walk"), out, iterations=30)


def test_the_same_arguments_give_the_same_bytes(trained, tmp_path):
    out, card = trained
    torch.manual_seed(99)
    again = pretrain(make_task("table_walk"), tmp_path / "new" / "again", iterations=30)
    assert again == card
    assert _bytes(tmp_path / "new" / "again") == _bytes(out)
    other = pretrain(make_task("table_walk"), tmp_path / "other", iterations=30, seed=1)
    assert other["weights_hash"] != card["weights_hash"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "other"]


def test_thirty_iterations_teach_more_than_the_frequencies_of_tokens(trained):
    untrained = torch.log(torch.tensor(134.0))
    assert trained[1]["loss"] < untrained - 1
    assert trained[1]["entropy"] > 0


def test_the_folder_loads_with_transformers_alone(trained):
    model = AutoModelForCausalLM.from_pretrained(trained[0], use_safetensors=True)
    tokenizer = AutoTokenizer.from_pretrained(trained[0])
    assert model.config.model_type == "qwen2"
    assert model.config.vocab_size == len(tokenizer)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == 1
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id == 0
    assert not model.config.tie_word_embeddings
    assert Policy.load(trained[0]).weights_hash() == trained[1]["weights_hash"]


def test_a_model_folder_is_replaced_and_anything_else_is_left_alone(trained, tmp_path):
    out = tmp_path / "chain"
    first = pretrain(make_task("chain"), out, iterations=1)
    second = pretrain(make_task("chain"), out, iterations=2)
    assert first["weights_hash"] != second["weights_hash"] == Policy.load(out).weights_hash()
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(LabError, match="no model folder"):
        pretrain(make_task("chain"), tmp_path, iterations=1)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", RECIPES)
def test_the_shipped_tokenizer_is_that_of_the_task(name, tmp_path):
    build_tokenizer(make_task(name).vocabulary()).save_pretrained(tmp_path)
    shipped = _bytes(local_folder(name))
    for file, content in _bytes(tmp_path).items():
        assert shipped[file] == content


@pytest.mark.parametrize("name", RECIPES)
def test_the_shipped_policy_was_made_by_the_recipe(name):
    assert name in task_names()
    policy, recipe = Policy.load(name), RECIPES[name]
    assert policy.model.config.tie_word_embeddings == recipe.tied_head
    card = (local_folder(name) / "MODEL_CARD.md").read_text()
    assert f"| iterations | {recipe.iterations} |" in card
    assert f"| task_version | {make_task(name).version} |" in card
    assert policy.weights_hash() in card
    assert sum(file.stat().st_size for file in local_folder(name).iterdir()) < 1_000_000
