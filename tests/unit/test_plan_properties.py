"""Whatever a sweep file or a word says: a plan, or one line that says what is wrong with it.

Between them the default properties try more than 5,000 inputs; the slow ones, ten times as many.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cegppo_lab.errors import LabError
from cegppo_lab.evaluate.settings import read_settings
from cegppo_lab.sweep.budget import Budget, parse_budget
from cegppo_lab.sweep.confounds import refuse_confounds
from cegppo_lab.sweep.plan import Plan, make_plan, state_of
from cegppo_lab.sweep.price import price
from cegppo_lab.sweep.spec import sweep_files
from tests.unit import plan_inputs as inputs
from tests.unit import word_inputs

_FILE = Path("sweep.yaml")


def _thorough(count: int) -> settings:
    """``count`` inputs, the same ones at each run."""
    return settings(
        max_examples=count,
        derandomize=True,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


@pytest.fixture(scope="module", autouse=True)
def _empty_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Plans are made where whatever they write is seen."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("plans"))
    yield
    os.chdir(before)


def _told(act: Callable[[], Any]) -> Any:
    """What ``act`` returns; None where it refused, which it must do in one line."""
    try:
        return act()
    except LabError as error:
        told = str(error)
    assert told.strip()
    assert told.isprintable()
    return None


def _plan(name: str, words: list[str] | None = None) -> Plan:
    """All that the commands plan and sweep ask of a plan before anything starts."""
    plan = make_plan(name, words or [])
    manifest = plan.manifest()
    assert json.loads(json.dumps(manifest)) == manifest
    assert [row["trial_id"] for row in manifest["trials"]] == [t.trial_id for t in plan.trials]
    for trial in plan.trials:
        assert state_of(plan.store(), trial) == "pending"
    cost = price(plan.store(), plan.trials, plan.runtime)
    assert cost.text().isprintable()
    assert set(cost.unknown) == {trial.trial_id for trial in plan.trials}
    _told(lambda: refuse_confounds(plan.confounds()))
    assert set(os.listdir()) <= {str(_FILE)}, "planning wrote something"
    return plan


def _plan_of(text: str, words: list[str] | None = None) -> Plan | None:
    _FILE.write_text(text, encoding="utf-8", errors="surrogatepass")
    return _told(lambda: _plan(str(_FILE), words))


def _plan_of_tree(tree: dict[Any, Any]) -> None:
    plan = _plan_of(inputs.as_yaml(tree))
    if plan is not None and not plan.spec.search:
        assert len({trial.arm for trial in plan.trials}) == len(plan.spec.points())


def _settings_of(words: list[str], name: str) -> None:
    _told(lambda: read_settings(words).benchmark(name))
    assert set(os.listdir()) <= {str(_FILE)}


_TREE = given(inputs.sweep_trees())
_TEXT = given(inputs.sweep_texts())
_WORDS = given(st.lists(word_inputs.sweep_words, max_size=3))
_SETTINGS = given(
    st.lists(word_inputs.benchmark_words | word_inputs.sweep_words, max_size=3),
    st.sampled_from(["aime24", "chain", "table_walk", "sweep.yaml", "", "\x00.yaml"]),
)


@_thorough(800)
@_TREE
@example({"question": "?", "seeds": [1], "zip": {"a\nb": [1], "c": [1, 2]}})
@example({"question": "?", "seeds": [1], "arms": {"\ud800": {}}})
@example({"question": "?", "seeds": [1], "base": {"model.path": "~nobody/x"}})
@example({"question": "?", "seeds": [1], "base": {"model.path": "x" * 300}})
@example({"question": "?", "seeds": [1], "base": {"runtime.store": "\0"}})
@example({"question": "?", "seeds": [1], "base": {"task": "math", "task.path": "x" * 300}})
@example({"question": "?", "seeds": list(range(200)), "grid": {k: [1] * 99 for k in "abcdef"}})
@example({"question": "?", "seeds": [1], "arms": {"": {"algorithm.beta2": 0.5}, " ": {}}})
def test_a_tree_is_a_plan_or_one_line(tree: dict[Any, Any]) -> None:
    _plan_of_tree(tree)


@_thorough(800)
@_TEXT
@example("!!int x: 1")
@example("question: !!timestamp x")
@example("question: 2001-99-99")
@example("question: !!bool x")
@example("seeds: [0x" + "f" * 5000 + "]\nquestion: q\n")
@example("arms: {<<: {? [1] : 2}}")
@example("[" * 5000)
@example('question: q\nseeds: [1]\narms: {"\\ud800": {}}')
@example("question: !!python/object/apply:os.mkdir [made]\nseeds: [1]")
def test_a_text_is_a_plan_or_one_line(text: str) -> None:
    _plan_of(text)


@_thorough(1400)
@_WORDS
@example(["model.path=" + "x" * 300])
@example(["runtime.store=" + "x" * 300])
@example(["name=" + "x" * 300])
def test_words_are_a_plan_or_one_line(words: list[str]) -> None:
    _told(lambda: _plan("quickstart", words))


@_thorough(1600)
@_SETTINGS
@example(["chain.task={1:2,name:math}"], "chain")
def test_settings_of_evaluate_are_settings_or_one_line(words: list[str], name: str) -> None:
    _settings_of(words, name)


@_thorough(700)
@given(word_inputs.budgets)
@example("\x0c1h\x00")
def test_a_budget_is_hours_or_one_line(text: str) -> None:
    runtime = make_plan("quickstart").runtime
    found = _told(lambda: parse_budget(text, runtime))
    assert found is None or (isinstance(found, Budget) and found.amount > 0)


@pytest.mark.slow
@_thorough(15_000)
@_TREE
def test_many_more_trees(tree: dict[Any, Any]) -> None:
    _plan_of_tree(tree)


@pytest.mark.slow
@_thorough(15_000)
@_TEXT
def test_many_more_texts(text: str) -> None:
    _plan_of(text)


@pytest.mark.slow
@_thorough(15_000)
@_WORDS
def test_many_more_words(words: list[str]) -> None:
    _told(lambda: _plan("quickstart", words))


@pytest.mark.slow
@_thorough(5_000)
@_SETTINGS
def test_many_more_settings(words: list[str], name: str) -> None:
    _settings_of(words, name)


def _ids(plan: Plan | None) -> list[str]:
    assert plan is not None
    return [trial.trial_id for trial in plan.trials]


@_thorough(100)
@given(inputs.valid_overrides, inputs.valid_overrides, st.randoms(use_true_random=False))
def test_ids_depend_on_no_order_name_or_path(
    base: dict[str, Any], arm: dict[str, Any], shuffler: Any
) -> None:
    def shuffled(tree: dict[str, Any]) -> dict[str, Any]:
        keys = list(tree)
        shuffler.shuffle(keys)
        return {key: tree[key] for key in keys}

    base = {"algorithm": "cegppo", **base}
    tree = {"question": "Why?", "base": base, "arms": {"A": arm}, "seeds": [1, 2]}
    plan = _plan_of(inputs.as_yaml(tree))
    elsewhere = {**base, "runtime.store": "other", "runtime.cpus": 2}
    renamed = shuffled({**tree, "base": shuffled(elsewhere), "arms": {"B": shuffled(arm)}})
    other = _plan_of(inputs.as_yaml(renamed), ["name=other"])
    assert _ids(plan) == _ids(other)
    again = _plan_of(inputs.as_yaml(tree))
    assert plan == again
    assert plan.manifest() | {"created": 0} == again.manifest() | {"created": 0}


def test_an_arm_leaves_the_base_as_it_is() -> None:
    layout = {"rollout_engine": "vllm", "tensor_parallel": 1, "sequence_parallel": 1}
    layout |= {"gpu_memory_utilization": 0.5, "offload": False, "gradient_checkpointing": True}
    tree = {
        "question": "Does the first arm change what the second starts from?",
        "base": {"trainer": "verl", "trainer.layout": layout},
        "arms": {"two": {"trainer.layout.tensor_parallel": 2}, "one": {"trainer.steps": 3}},
        "seeds": [1],
    }
    plan = _plan_of(inputs.as_yaml(tree))
    assert plan is not None
    assert [t.config.trainer.layout.tensor_parallel for t in plan.trials] == [2, 1]


@_thorough(60)
@given(st.sampled_from(sorted(sweep_files())), word_inputs.overrides_for_all)
def test_every_shipped_sweep_takes_right_overrides(name: str, values: dict[str, Any]) -> None:
    plan = _plan(name, [f"{key}={word_inputs.as_word(value)}" for key, value in values.items()])
    assert len(plan.trials) == len(plan.spec.points()) * len(plan.spec.seeds)
    for key, value in values.items():
        section, _, option = key.partition(".")
        assert {getattr(getattr(t.config, section), option) for t in plan.trials} == {value}
