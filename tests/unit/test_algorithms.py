"""Algorithms by name: defaults, ranges, schedules, and how mistakes are told."""

from __future__ import annotations

from typing import ClassVar

import pytest

from cegppo_lab.algorithms import (
    algorithm_class,
    algorithm_names,
    make_algorithm,
    register,
)
from cegppo_lab.algorithms.grpo import GRPO
from cegppo_lab.errors import LabError

PPO_FAMILY = {"grpo", "dapo", "cegppo", "cegppo_decay", "gppo", "dr_grpo"}
PPO_FAMILY |= {"clip_cov", "erc", "high_entropy_tokens", "cegppo_adaptive", "adaptive_entropy"}


def test_the_papers_algorithms_are_there():
    assert {"grpo", "dapo", "cispo", "gspo", "cegppo", "gppo"} <= set(algorithm_names())
    assert algorithm_names() == sorted(algorithm_names())


@pytest.mark.parametrize("name", algorithm_names())
def test_each_algorithm_says_what_it_is(name):
    cls = algorithm_class(name)
    assert cls.name == name
    assert cls.title
    assert cls.equation
    assert cls.source
    assert "Degenerate case" in cls.__doc__


@pytest.mark.parametrize(
    ("name", "clip_low", "clip_high", "aggregation"),
    [
        ("grpo", 0.2, 0.2, "token-mean"),
        ("dapo", 0.2, 0.28, "token-mean"),
        ("cispo", 0.2, 0.2, "token-mean"),
        ("gspo", 3e-4, 4e-4, "seq-mean-token-mean"),
        ("cegppo", 0.2, 0.2, "token-mean"),
        ("cegppo_decay", 0.2, 0.2, "token-mean"),
        ("cegppo_adaptive", 0.2, 0.2, "token-mean"),
        ("adaptive_entropy", 0.2, 0.2, "token-mean"),
        ("gppo", 0.2, 0.2, "token-mean"),
        ("clip_cov", 1.0, 1.0, "token-mean"),
        ("kl_cov", 0.2, 0.2, "token-mean"),
        ("high_entropy_tokens", 0.2, 0.28, "token-mean"),
        ("erc", 0.2, 0.28, "token-mean"),
        ("dr_grpo", 0.2, 0.2, "seq-mean-token-sum"),
        ("gmpo", 0.4, 0.4, "seq-mean-token-mean"),
        ("sapo", 0.2, 0.2, "seq-mean-token-mean"),
    ],
)
def test_defaults_are_the_papers(name, clip_low, clip_high, aggregation):
    algorithm = make_algorithm(name)
    found = (algorithm.clip_low, algorithm.clip_high, algorithm.aggregation)
    assert found == (clip_low, clip_high, aggregation)
    assert algorithm.entropy_coef == algorithm.kl_coef == algorithm.positive_loss_coef == 0
    assert algorithm.dynamic_sampling == (name in ("dapo", "erc", "high_entropy_tokens"))
    assert getattr(algorithm, "dual_clip", None) is None


@pytest.mark.parametrize("name", ["cegppo", "cegppo_adaptive", "cegppo_decay"])
def test_cegppo_defaults_to_the_7b_setting(name):
    assert (make_algorithm(name).beta1, make_algorithm(name).beta2) == (0.75, 1.0)


def test_only_the_ppo_family_has_a_dual_clip():
    having = {n for n in algorithm_names() if "dual_clip" in algorithm_class(n).model_fields}
    assert having == PPO_FAMILY
    with pytest.raises(LabError, match="unknown key of algorithm 'dual_clip'"):
        make_algorithm("gspo", dual_clip=10)


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("cegpo", {}, r"unknown algorithm 'cegpo'\. Did you mean 'cegppo'"),
        ("CEGPPO", {}, "Did you mean 'cegppo'"),
        ("zzz", {}, r"unknown algorithm 'zzz'\. Allowed: adaptive_entropy, "),
        ("cegppo", {"beta_1": 1}, "unknown key of algorithm 'beta_1'. Did you mean 'beta1'"),
        ("cegppo", {"cliplow": 0.2}, "Did you mean 'clip_low'"),
        ("grpo", {"beta1": 1}, "unknown key of algorithm 'beta1'"),
    ],
    ids=str,
)
def test_unknown_names_and_keys(name, options, told):
    with pytest.raises(LabError, match=told):
        make_algorithm(name, **options)


@pytest.mark.parametrize("name", algorithm_names())
@pytest.mark.parametrize("value", [-1e-6, {0: 0.1, 5: -0.1}, float("nan"), True, None, "x", [1]])
def test_every_coefficient_is_checked(name, value):
    fields = algorithm_class(name).model_fields
    ours = {"clip_low", "clip_high", "entropy_coef", "kl_coef", "positive_loss_coef"}
    for key in sorted(ours | ({"beta1", "beta2"} & set(fields))):
        with pytest.raises(LabError, match=rf"^algorithm\.{key}="):
            make_algorithm(name, **{key: value})


@pytest.mark.parametrize("value", [1, 1.0, 0.5, -3, {0: 10, 5: 1}, True, "none", float("inf")])
@pytest.mark.parametrize("name", sorted(PPO_FAMILY))
def test_a_dual_clip_lies_above_one(name, value):
    with pytest.raises(LabError, match=r"^algorithm\.dual_clip="):
        make_algorithm(name, dual_clip=value)
    assert make_algorithm(name, dual_clip=1.5).dual_clip == 1.5
    assert make_algorithm(name, dual_clip=None).dual_clip is None


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        (
            "aggregation",
            "token_mean",
            "'token-mean', 'seq-mean-token-mean' or 'seq-mean-token-sum'",
        ),
        ("kl_estimator", "k4", "'k1', 'k2' or 'k3'"),
        ("dynamic_sampling", 3, "valid boolean"),
    ],
)
def test_choices_name_what_is_allowed(key, value, allowed):
    with pytest.raises(LabError, match=rf"algorithm\.{key}={value!r}: .*{allowed}"):
        make_algorithm("grpo", **{key: value})


def test_an_instance_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        make_algorithm("grpo").clip_low = 0.3


def test_a_name_is_registered_once():
    class Other(GRPO):
        name: ClassVar[str] = "grpo"

    with pytest.raises(ValueError, match="'grpo' is registered already"):
        register(Other)
    assert algorithm_class("grpo") is GRPO


def test_schedules_resolve_at_a_step():
    algorithm = make_algorithm(
        "cegppo", beta1={"0": 0.0, "585": 0.5}, dual_clip={0: 10, 3: 5}, kl_coef={0: 0, 9: 0}
    )
    assert algorithm.scheduled_fields() == {"beta1": [585], "dual_clip": [3]}
    found = [(algorithm.at(step).beta1, algorithm.at(step).dual_clip) for step in (0, 3, 584, 585)]
    assert found == [(0.0, 10.0), (0.0, 5.0), (0.0, 5.0), (0.5, 5.0)]
    assert algorithm.at(585) == make_algorithm("cegppo", beta1=0.5, dual_clip=5)
    assert algorithm.at(585).scheduled_fields() == {}
    fixed = make_algorithm("cegppo")
    assert fixed.at(7) == fixed


def test_a_schedule_says_the_same_however_it_is_spelled():
    spelled = [{0: 0, 585: 0.5}, {"585": "0.5", "0": 0.0}, {0: 0.0, 100: 0.0, 585: 0.5}]
    dumps = {make_algorithm("cegppo", beta1=beta).model_dump_json() for beta in spelled}
    assert len(dumps) == 1


@pytest.mark.parametrize("name", algorithm_names())
def test_a_dump_makes_the_same_algorithm(name):
    algorithm = make_algorithm(name, clip_low={0: 0.1, 5: 0.2}, entropy_coef=0.003)
    assert make_algorithm(name, **algorithm.model_dump(mode="json")) == algorithm
    assert make_algorithm(name, **algorithm.model_dump()) == algorithm


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"clamp": "cap"}, "clamp=cap with cap=null: .*cap=5"),
        ({"cap": 2}, "clamp=two-sided with cap=2"),
        ({"clamp": "cap", "cap": 0}, r"algorithm\.cap=0: must be > 0"),
        ({"clamp": "lower"}, r"algorithm\.clamp='lower': .*'two-sided', 'upper' or 'cap'"),
    ],
    ids=str,
)
def test_cispos_cap_belongs_to_its_clamp(options, told):
    with pytest.raises(LabError, match=told) as error:
        make_algorithm("cispo", **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["tau_pos", "tau_neg"])
def test_sapos_temperatures_are_positive(key):
    with pytest.raises(LabError, match=rf"algorithm\.{key}=0: must be > 0"):
        make_algorithm("sapo", **{key: 0})
