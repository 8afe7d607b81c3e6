"""The confound guard: what a sweep does not declare may not differ between its arms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cegppo_lab.errors import LabError
from cegppo_lab.sweep.confounds import refuse_confounds
from cegppo_lab.sweep.plan import make_plan
from cegppo_lab.sweep.spec import sweep_files

GRPO, CE = {"algorithm": "grpo"}, {"algorithm": "cegppo", "algorithm.beta1": 0.5}


def _found(tmp_path: Path, arms: dict[str, dict[str, Any]], **keys: Any) -> dict[str, set[str]]:
    """Key -> the arms that are told, for a sweep of these arms."""
    tree = {"question": "?", "base": {"task": "table_walk", "model": "table_walk"}, "seeds": [1]}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(tree | {"arms": arms} | keys))
    return {item.key: set(item.values) for item in make_plan(str(path)).confounds()}


@pytest.mark.parametrize("name", sorted(sweep_files()))
def test_no_shipped_sweep_is_confounded(name: str) -> None:
    refuse_confounds(make_plan(name).confounds())


def test_what_an_arm_sets_it_declares(tmp_path: Path) -> None:
    assert _found(tmp_path, {"a": GRPO, "b": CE}) == {}
    assert _found(tmp_path, {"a": GRPO, "b": GRPO | {"trainer.lr": 1e-5}}) == {}
    assert _found(tmp_path, {"a": GRPO}, grid={"trainer.rollout_n": [4, 8]}) == {}


def test_what_a_preset_brings_along_must_be_said_by_that_very_arm(tmp_path: Path) -> None:
    gspo, dapo = {"algorithm": "gspo"}, {"algorithm": "dapo", "algorithm.dynamic_sampling": False}
    found = _found(tmp_path, {"G": GRPO, "D": dapo | {"algorithm.clip_high": 0.28}, "S": gspo})
    assert found == {
        "algorithm.aggregation": {"G", "D", "S"},
        "algorithm.clip_high": {"G", "S"},  # D has said it, which does not speak for S
        "algorithm.clip_low": {"G", "D", "S"},
    }


def test_a_group_that_is_chosen_is_declared_whole_but_not_what_follows_it(tmp_path: Path) -> None:
    chain = GRPO | {"task": "chain", "model": "chain"}
    assert _found(tmp_path, {"a": GRPO, "b": chain}) == {}
    # model follows task where nothing sets it: the weights differ and no arm says so.
    tree = {"base": {"algorithm": "grpo"}}
    found = _found(tmp_path, {"a": {"task": "table_walk"}, "b": {"task": "chain"}}, **tree)
    assert "model.path" in found
    assert not any(key.startswith("task") for key in found)


def test_a_difference_is_waived_by_its_name_or_its_group(tmp_path: Path) -> None:
    arms = {"G": GRPO, "S": {"algorithm": "gspo"}}
    keys = ["algorithm.clip_low", "algorithm.clip_high"]
    assert set(_found(tmp_path, arms, allow_differences=keys)) == {"algorithm.aggregation"}
    assert _found(tmp_path, arms, allow_differences=["algorithm"]) == {}
    with pytest.raises(LabError, match=r"'algorithm.clip_hihg'. Did you mean 'algorithm.clip_hi"):
        _found(tmp_path, arms, allow_differences=["algorithm.clip_hihg"])


def test_the_error_names_keys_values_and_what_to_type(tmp_path: Path) -> None:
    _found(tmp_path, {"G": GRPO, "S": {"algorithm": "gspo"}})
    found = make_plan(str(tmp_path / "mine.yaml")).confounds()
    with pytest.raises(LabError, match=r"clip_low \(G 0.2, S 0.0003\).*allow_differences=\[algor"):
        refuse_confounds(found)
