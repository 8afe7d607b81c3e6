"""Algorithms from outside the package that are wrong: told in one line, or found by the check."""

from __future__ import annotations

import py_compile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cegppo_lab.algorithms import algorithm_names
from cegppo_lab.errors import LabError
from tests.unit.own_losses import PRESET, REFERENCE, TAPER, Write, lab, refused, workplace


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    yield from workplace(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("source", "reference", "wanted"),
    [
        (TAPER, "my_loses:Taper", "no module 'my_loses'; type the command in the folder where"),
        (TAPER, "my_losses.more:Taper", "no module 'my_losses.more'"),
        (TAPER, "my_losses.py:Taper", "say my_losses:Taper, without .py"),
        (TAPER, "my_losses:", "must be MODULE:CLASS"),
        (TAPER, "my losses:Taper", "must be MODULE:CLASS"),
        (TAPER, "my_losses:Tapr", "unknown class of my_losses 'Tapr'. Did you mean 'Taper'"),
        (TAPER, "my_losses:torch", "it is no Algorithm; write class torch(Algorithm)"),
        (TAPER, "my_losses:Algorithm", "it has no weight F; define weight"),
        ("x = 1\n\ndef broken(:\n", REFERENCE, "my_losses.py line 3: invalid syntax"),
        ("import nowhere_at_all\n", REFERENCE, "line 1: ModuleNotFoundError: No module named"),
        ("def f():\n    return 1 / 0\nf()\n", REFERENCE, "line 2: ZeroDivisionError: division"),
        ("import sys; sys.exit(3)\n", REFERENCE, "my_losses.py line 1: SystemExit: 3"),
        (
            TAPER.replace(
                "class Taper", "from cegppo_lab.algorithms import register\n@register\nclass Taper"
            ).replace("taper: Coef", "name = 'taper'\n    taper: Coef"),
            REFERENCE,
            "take @register off",
        ),
        (
            TAPER.replace(
                "class Taper", "from cegppo_lab.algorithms import register\n@register\nclass Taper"
            ).replace("taper: Coef", "name = 'grpo'\n    taper: Coef"),
            REFERENCE,
            "ValueError: algorithm 'grpo' is registered already",
        ),
        ("import my_pyx\nTaper = my_pyx.Taper\n", REFERENCE, "my_pyx has no source"),
        ("", "cegppo_lab.algorithms.cegppo:CEGPPO", "say algorithm=cegppo"),
    ],
)
def test_mistakes_are_one_line(write: Write, source: str, reference: str, wanted: str) -> None:
    from cegppo_lab.algorithms import registry

    before = dict(registry._REGISTRY)
    write(my_losses=source)
    if "my_pyx" in source:
        Path("my_pyx.py").write_text(TAPER)
        py_compile.compile("my_pyx.py", "my_pyx.pyc")
        Path("my_pyx.py").unlink()
    try:
        told = refused(reference)
    finally:
        registry._REGISTRY.clear()
        registry._REGISTRY.update(before)
    assert wanted in told
    assert "\n" not in told
    assert str(Path.cwd()) not in told


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("mine", "taper: 1\n", "name is missing; say name: MODULE:CLASS"),
        ("mine", f"name: {REFERENCE}\ntapir: 1\n", "mine.yaml: unknown key of algorithm 'tapir'"),
        ("mine", "- a\n", "must be a mapping with name:"),
        ("mine", "name: grop\n", "mine.yaml: unknown algorithm 'grop'"),
        ("grpo", f"name: {REFERENCE}\n", "'grpo' is a shipped preset; give yours a name"),
    ],
)
def test_mistakes_in_a_preset(write: Write, name: str, text: str, wanted: str) -> None:
    write({PRESET.format(name): text}, my_losses=TAPER)
    assert wanted in refused(name)
    if name == "mine":
        assert f"mine     error: {Path('conf/algorithm/mine.yaml')}" in lab("algorithms")


def test_a_check_holds_the_loss_to_its_formula(write: Write) -> None:
    write(my_losses=TAPER)
    told = lab("algorithms", REFERENCE, "--check")
    assert told.count("holds  ") == 3
    assert "FAILS" not in told
    wrong = TAPER.replace("batch.ratio.clamp(max=self.taper))", "batch.ratio.clamp(max=1.5))", 1)
    write(my_losses=wrong)
    told = lab("algorithms", REFERENCE, "--check", code=1)
    assert "FAILS" in told
    ratio = float(told.partition("at ratio ")[2].split()[0])
    assert ratio > 1
    write(my_losses=TAPER.replace("def objective", "def formula"))
    assert "write the formula as objective(self, batch)" in lab("algorithms", REFERENCE, "--check")


def _with_weight(weight: str) -> str:
    head, _, _ = TAPER.partition("        return torch.where")
    return f"{head}        return {weight}\n"


@pytest.mark.parametrize(
    ("weight", "wanted"),
    [
        ("batch.ratio.sum(-1)", "weight gives (8,) for (batch, tokens) = (8, 40)"),
        ("1.0", "weight gives float for"),
        ("batch.ratios", "my_losses.py line 13: AttributeError"),
    ],
)
def test_a_weight_that_cannot_be_computed_is_told_before_launch(
    write: Write, weight: str, wanted: str
) -> None:
    write(my_losses=_with_weight(weight))
    assert wanted in refused(REFERENCE)


@pytest.mark.parametrize(
    ("weight", "wanted"),
    [
        ("(batch.ratio - 2).log()", "FAILS      F is a finite number"),
        ("batch.ratio / batch.ratio.max()", "FAILS      the gradient does not depend on the size"),
    ],
)
def test_a_check_finds_a_weight_that_is_wrong(write: Write, weight: str, wanted: str) -> None:
    write(my_losses=_with_weight(weight))
    assert wanted in lab("algorithms", REFERENCE, "--check", code=1)


@pytest.mark.parametrize("name", algorithm_names())
def test_the_packages_own_pass_the_check(name: str) -> None:
    assert "FAILS" not in lab("algorithms", name, "--check")


def test_a_formula_without_grad_isrefused(write: Write) -> None:
    write(my_losses=TAPER.replace("(\n            batch.log_prob * ", "(\n            "))
    with pytest.raises(LabError, match=r"objective.* must return"):
        lab("algorithms", REFERENCE, "--check")
