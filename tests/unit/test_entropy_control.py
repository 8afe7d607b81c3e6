"""Controllers that hold an entropy: their laws and their mistakes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cegppo_lab.algorithms import Algorithm, make_algorithm
from cegppo_lab.algorithms.controller import PI, between
from cegppo_lab.compose import resolve
from cegppo_lab.errors import LabError
from cegppo_lab.trainers.verl.overrides import verl_overrides
from cegppo_lab.trainers.verl.trainer import planned_places
from tests.conformance.cases import gradient, random_inputs


def closed_loop(
    algorithm: Algorithm, change: Callable[[Algorithm], float], start: float, steps: int
) -> tuple[list[float], list[Algorithm]]:
    """Entropy, and the algorithm in force, step by step; ``change``: of entropy in a step."""
    state, entropies, forces = algorithm.initial_state(), [start], []
    for step in range(steps):
        forces.append(algorithm.controlled(state, step))
        state = algorithm.observe(state, entropies[-1], step)
        entropies.append(entropies[-1] + change(forces[-1]))
    return entropies, forces


def test_the_closed_loop_is_the_linear_systems_solution() -> None:
    """A plant that integrates the effort less a drift: three coupled linear recursions."""
    gain, integral_gain, reach, drift, target = 4.0, 0.05, 0.02, 0.004, 0.8
    algorithm = make_algorithm(
        *("cegppo_adaptive",),
        **{"entropy_target": target, "gain": gain, "integral_gain": integral_gain},
        **{"beta1": 0.5, "beta2": 0.5},
    )
    found, forces = closed_loop(algorithm, lambda a: reach * (a.beta2 - a.beta1) - drift, 0.7, 300)
    # x = (error now, error seen, integral), errors relative to the target; effort g e' + i.
    scale = reach / target
    matrix = np.array([[1, -scale * gain, -scale], [1, 0, 0], [integral_gain, 0, 1]])
    state = np.array([(target - 0.7) / target, 0.0, 0.0])
    for entropy, force in zip(found[:-1], forces, strict=True):
        effort = gain * state[1] + state[2]
        assert abs(effort) < 1
        assert force.beta1 == pytest.approx(0.5 - effort / 2, abs=1e-12)
        assert force.beta2 == pytest.approx(0.5 + effort / 2, abs=1e-12)
        assert entropy == pytest.approx(target * (1 - state[0]), abs=1e-12)
        state = matrix @ state + np.array([drift / target, 0, 0])
    assert found[-1] == pytest.approx(target, rel=1e-3)
    assert forces[-1].beta2 - forces[-1].beta1 == pytest.approx(drift / reach, rel=1e-2)


@pytest.mark.parametrize("start", [0.1, 2.0])
def test_it_comes_off_its_bounds_without_an_overshoot_that_lasts(start: float) -> None:
    algorithm = make_algorithm("cegppo_adaptive", entropy_target={0: 0.5, 200: 1.0})
    drift = 0.005
    found, forces = closed_loop(algorithm, lambda a: 0.02 * (a.beta2 - a.beta1) - drift, start, 400)
    assert all(0 <= each.beta1 <= 1 and 0 <= each.beta2 <= 1 for each in forces)
    at_bounds = [each for each in forces if (each.beta1, each.beta2) in [(0, 1), (1, 0)]]
    assert len(at_bounds) > 10
    assert found[199] == pytest.approx(0.5, rel=0.02)
    assert found[-1] == pytest.approx(1.0, rel=0.02)
    assert max(found[200:]) < 1.05


def test_a_target_out_of_reach_leaves_the_betas_at_their_bounds() -> None:
    algorithm = make_algorithm("cegppo_adaptive", entropy_target=1.0, beta1_min=0.25)
    found, forces = closed_loop(algorithm, lambda a: -0.001, 0.9, 200)
    assert found[-1] == pytest.approx(0.7)
    assert {(each.beta1, each.beta2) for each in forces[2:]} == {(0.25, 1.0)}


def test_the_integral_does_not_grow_while_the_effort_is_cut() -> None:
    controller, state = PI(gain=2.0, integral_gain=0.1), PI.initial()
    for _ in range(50):
        state = controller.observe(state, 0.9)
    assert state["integral"] == 0
    assert controller.effort(state) == 1
    assert controller.effort(controller.observe(state, -0.1)) < 0
    assert controller.observe({"error": 0.0, "integral": 0.9}, -2.0)["integral"] < 0.9


@pytest.mark.parametrize(
    ("effort", "value"), [(-1, 0.25), (-0.5, 0.375), (0, 0.5), (0.5, 0.75), (1, 1.0)]
)
def test_the_effort_moves_a_coefficient_between_its_bounds(effort: float, value: float) -> None:
    assert between(effort, 0.25, 0.5, 1.0) == value


@pytest.mark.parametrize("entropy", [0.15, 0.19, 0.2, 0.21, 0.4])
def test_f_is_cegppos_at_the_betas_in_force(entropy: float) -> None:
    algorithm = make_algorithm("cegppo_adaptive", dual_clip=3.0, clip_high=0.28)
    state = algorithm.observe(algorithm.initial_state(), entropy, 0)
    force = algorithm.controlled(state, 1)
    fixed = make_algorithm(
        "cegppo", dual_clip=3.0, clip_high=0.28, beta1=force.beta1, beta2=force.beta2
    )
    assert (force.beta1 < 0.75) == (entropy < 0.2)
    inputs = random_inputs(0)
    ours, theirs = force.loss(*inputs), fixed.loss(*inputs)
    assert torch.equal(ours.weight, theirs.weight)
    assert torch.equal(*(gradient(out.loss, inputs.log_prob) for out in (ours, theirs)))


def test_bounds_that_equal_the_betas_are_cegppo() -> None:
    fixed = {"beta1_min": 0.5, "beta1": 0.5, "beta1_max": 0.5, "beta2": 1.0, "beta2_min": 1.0}
    algorithm = make_algorithm("cegppo_adaptive", **fixed)
    _, forces = closed_loop(algorithm, lambda a: -0.01, 0.5, 60)
    assert {(each.beta1, each.beta2) for each in forces} == {(0.5, 1.0)}


def test_a_schedule_moves_what_the_effort_starts_from() -> None:
    algorithm = make_algorithm("cegppo_adaptive", beta1={0: 0.0, 5: 0.5}, gain={0: 1.0, 5: 2.0})
    state = algorithm.initial_state()
    assert [algorithm.controlled(state, step).beta1 for step in (0, 4, 5)] == [0.0, 0.0, 0.5]
    assert algorithm.controlled({"error": 0.1, "integral": 0.0}, 5).beta1 == 0.5 * (1 - 0.2)


def test_the_bonus_moves_as_the_authors_controller_does() -> None:
    algorithm = make_algorithm("adaptive_entropy", entropy_coef_step=0.25, entropy_coef_max=0.5)
    state, coefficients = algorithm.initial_state(), []
    for step, entropy in enumerate([0.1, 0.1, 0.1, 0.3, 0.1, 0.3, 0.3, 0.3, 0.2, 0.1]):
        coefficients.append(algorithm.controlled(state, step).entropy_coef)
        state = algorithm.observe(state, entropy, step)
    # up to the maximum; off above the target, where it falls; at the target it is off as well
    assert coefficients == [0, 0.25, 0.5, 0.5, 0, 0.5, 0, 0, 0, 0]
    assert state == {"entropy_coef": 0.25, "applies": 1.0}
    assert make_algorithm("adaptive_entropy", entropy_coef=0.1).controlled(
        {"entropy_coef": 0.1, "applies": 1.0}, 0
    ) == make_algorithm("adaptive_entropy", entropy_coef=0.1)


@pytest.mark.parametrize("name", ["cegppo", "grpo"])
def test_without_a_controller_a_state_changes_nothing(name: str) -> None:
    algorithm = make_algorithm(name, clip_low={0: 0.2, 5: 0.1})
    assert algorithm.initial_state() == {}
    assert algorithm.observe({}, 0.5, 3) == {}
    assert [algorithm.controlled({}, step) for step in (0, 5)] == [
        algorithm.at(step) for step in (0, 5)
    ]


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("cegppo_adaptive", {"beta1_min": 0.9, "beta1_max": 0.2}, "beta1_min=0.9, beta1=0.75, b"),
        ("cegppo_adaptive", {"beta2": 1.5}, "beta2=1.5, beta2_max=1 at step 0: must be in asc"),
        ("cegppo_adaptive", {"beta1": {0: 0.5, 7: 2}}, "beta1=2, beta1_max=1 at step 7"),
        ("cegppo_adaptive", {"entropy_target": 0}, r"entropy_target=0: must be > 0"),
        ("cegppo_adaptive", {"entropy_target": {0: 0.5, 9: -1}}, "must be > 0, not -1"),
        ("cegppo_adaptive", {"entropy_target": None}, "entropy_target=None"),
        ("cegppo_adaptive", {"gain": 0}, "gain=0: must be > 0"),
        ("cegppo_adaptive", {"gain": -1.5}, "gain=-1.5: must be > 0"),
        ("cegppo_adaptive", {"integral_gain": -0.1}, "integral_gain=-0.1: must be >= 0"),
        ("cegppo_adaptive", {"beta_min": 0.1}, "unknown key of algorithm 'beta_min'"),
        ("adaptive_entropy", {"entropy_target": -0.2}, "entropy_target=-0.2: must be > 0"),
        ("adaptive_entropy", {"entropy_coef_step": 0}, "entropy_coef_step=0: must be > 0"),
        ("adaptive_entropy", {"entropy_coef_max": 0}, "entropy_coef_max=0: must be > 0"),
        ("adaptive_entropy", {"entropy_coef": {0: 0, 4: 0.1}}, "give its value at the start"),
    ],
)
def test_mistakes_are_one_line(name: str, options: dict[str, Any], told: str) -> None:
    with pytest.raises(LabError, match=told) as failure:
        make_algorithm(name, **options)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("name", ["cegppo_adaptive", "adaptive_entropy"])
def test_verl_is_refused_a_controller_in_one_line(name: str, tmp_path: Path) -> None:
    config = resolve({"trainer": "verl", "algorithm": name})
    places = planned_places(tmp_path / "verl", tmp_path / "checkpoints", "a/model")
    with pytest.raises(LabError, match=f"^algorithm={name} has a controller.*=embedded") as failure:
        verl_overrides(config, places, 0, 5)
    assert "\n" not in str(failure.value)
