"""``claims.yaml``: the paper's claims, for the sweeps that ship; a mistake is one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from analysis.claims import evaluate_sweeps, load_claims, sweeps_asked
from analysis.claims.arms import NoArmError, parts_of
from analysis.load import Arm, SweepData
from cegppo_lab import metrics
from cegppo_lab.algorithms import algorithm_names
from cegppo_lab.errors import LabError
from tests.unit.claim_cases import CASES, MEMORY
from tests.unit.claim_runs import arm, sweep

SWEEPS = Path(__file__).parents[2] / "sweeps"
CLAIMS = load_claims()
CLAIM = {
    "id": "C1",
    "statement": "s",
    "source": "Figure 2",
    "sweeps": ["algorithms"],
    "parts": [
        {"label": "l", "measure": "change", "arm": {"algorithm": "grpo"},
         "metric": "actor/entropy", "below": 0.5}
    ],
}  # fmt: skip


def test_the_file_has_the_papers_claims_and_no_other():
    assert [claim.id for claim in CLAIMS] == [f"C{number}" for number in range(1, 14)]
    assert [*CASES] == [claim.id for claim in CLAIMS]


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_every_claim_finds_its_arms_in_the_sweeps_that_ship(claim):
    shipped = [name for name in claim.sweeps if (SWEEPS / f"{name}.yaml").exists()]
    assert shipped == claim.sweeps
    answered = [name for name in shipped if has_arms(claim, name)]
    assert answered[:1] == claim.sweeps[:1]
    assert any(name.startswith("paper/") for name in answered)


def has_arms(claim, name):
    """Whether the arms of a sweep's file, of some model, are those of the claim."""
    file = yaml.safe_load((SWEEPS / f"{name}.yaml").read_text())
    arms = [
        Arm(key, settings["algorithm"], {k: v for k, v in settings.items() if "." in k}, {},
            settings.get("model", file["base"].get("model", "")))
        for key, settings in file["arms"].items()
    ]  # fmt: skip
    for model in {each.model for each in arms}:
        frames = [each for each in arms if each.model == model]
        try:
            parts_of(claim, SweepData({"name": name}, frames, *[None] * 3, {}, {}, []), model)
        except NoArmError:
            continue
        return True
    return False


def test_metrics_and_algorithms_of_the_file_exist():
    named = {name for claim in CLAIMS for part in claim.parts for key, name in
             part.options().items() if key in ("metric", "whole")}  # fmt: skip
    assert named - {value for value in vars(metrics).values() if isinstance(value, str)} == {MEMORY}
    used = {s.algorithm for claim in CLAIMS for part in claim.parts
            for s in part.selectors().values()}  # fmt: skip
    assert used <= set(algorithm_names())


def load(tmp_path, *claims):
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump(list(claims)))
    return load_claims(path)


def test_a_file_of_ones_own_is_read(tmp_path):
    (claim,) = load(tmp_path, CLAIM)
    data = sweep("algorithms", [arm("grpo", (1, 0.2))])
    assert evaluate_sweeps([data], [claim])[0].verdict == "holds"
    assert sweeps_asked([claim]) == ["algorithms"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"measure": "chnage"}, r"unknown measure of .*C1.parts.1 'chnage'.*'change'"),
        ({"metrc": 1}, r"unknown key of .*C1.parts.1 'metrc'.*'metric'"),
        ({"reference": {"algorithm": "dapo"}}, "unknown key .*'reference'"),
        ({"metric": None}, r"C1.parts.1.metric"),
        ({"arm": {"algorithm": "grpo", "beta3": 1}}, r"'beta3'.*'beta1'"),
        ({"above": 1.0}, "either above or below"),
        ({"below": None}, "either above or below"),
        ({"to": "ende"}, r"parts.1.to='ende'"),
        ({"below": "low"}, r"parts.1.below='low'"),
    ],
)
def test_a_wrong_part_is_one_line(tmp_path, changes, message):
    part = {**CLAIM["parts"][0], **changes}
    with pytest.raises(LabError, match=message) as caught:
        load(tmp_path, {**CLAIM, "parts": [part]})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sweep": ["x"]}, "'sweep'.*'sweeps'"),
        ({"sweeps": []}, "sweeps"),
        ({"parts": []}, "parts"),
        ({"parts": ["x"]}, "must be a group of keys"),
        ({"id": "7"}, "id='7'"),
    ],
)
def test_a_wrong_claim_is_one_line(tmp_path, changes, message):
    with pytest.raises(LabError, match=message):
        load(tmp_path, {**CLAIM, **changes})


def test_an_id_comes_once(tmp_path):
    with pytest.raises(LabError, match="C1 comes 2 times"):
        load(tmp_path, CLAIM, CLAIM)


@pytest.mark.parametrize("text", ["[", "a: 1", "[1]"])
def test_what_is_no_list_of_claims_is_one_line(tmp_path, text):
    path = tmp_path / "claims.yaml"
    path.write_text(text)
    with pytest.raises(LabError, match=r"claims\.yaml"):
        load_claims(path)
