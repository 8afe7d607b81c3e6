"""Looks: readable on white, apart under colour blindness, the same wherever the arm appears."""

from __future__ import annotations

from itertools import combinations, pairwise

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from analysis.load import Arm
from analysis.style import FIXED, RAMP, SPARE, looks, paper_style

# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
BLINDNESS = {
    "none": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
               [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
               [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
               [0.004733, 0.691367, 0.303900]],
}  # fmt: skip
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
     [0.0193339, 0.1191920, 0.9503041]]
)  # fmt: skip


def xyz(color, kind="none"):
    rgb = np.array(to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return TO_XYZ @ np.clip(np.asarray(BLINDNESS[kind]) @ linear, 0, 1)


def lab(color, kind):
    x, y, z = (np.cbrt(v) for v in xyz(color, kind) / [0.95047, 1, 1.08883])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def arms(*betas):
    return [
        Arm(f"CE-GPPO({b1:g}, {b2:g})", "cegppo", {"algorithm.beta1": b1, "algorithm.beta2": b2})
        for b1, b2 in betas
    ]


PLAIN = [Arm(name.upper(), name) for name in FIXED]
GRID = arms((0, 1), (0.25, 1), (0.5, 1), (0.75, 1), (1, 1), (1, 0.75), (1, 0.5))


def test_every_colour_has_the_contrast_that_graphics_need_on_white():
    ramp = [RAMP(place) for place in np.linspace(0, 1, 21)]
    for color in [*ramp, *(look.color for look in (*FIXED.values(), *SPARE))]:
        assert 1.05 / (xyz(color)[1] + 0.05) >= 3


@pytest.mark.parametrize("kind", BLINDNESS)
def test_the_headline_arms_stay_apart_for_colour_blind_readers(kind):
    chosen = looks([*PLAIN, *arms((0.5, 1), (0.75, 1))]).values()
    for one, other in combinations(chosen, 2):
        assert np.linalg.norm(lab(one.color, kind) - lab(other.color, kind)) > 12


def test_the_grid_darkens_from_exploring_to_exploiting_and_no_two_look_alike():
    chosen = looks(GRID)
    lightness = [lab(chosen[arm.name].color, "none")[0] for arm in GRID]
    assert all(a > b for a, b in pairwise(lightness))
    everything = looks([*PLAIN, *GRID]).values()
    assert len({(str(look.line), look.marker) for look in everything}) == len(everything)


def test_a_larger_entropy_bonus_is_darker_and_has_a_line_of_its_own():
    coefficients = (0.001, 0.003, 0.01)
    ladder = [Arm(f"GRPO + {c} H", "grpo", {"algorithm.entropy_coef": c}) for c in coefficients]
    chosen = [looks(ladder)[arm.name] for arm in ladder]
    lightness = [lab(look.color, "none")[0] for look in chosen]
    assert all(a > b + 8 for a, b in pairwise(lightness))
    assert len({str(look.line) for look in chosen}) == len({look.marker for look in chosen}) == 3
    assert all(1.05 / (xyz(look.color)[1] + 0.05) >= 3 for look in chosen)


def test_an_arm_looks_the_same_whatever_else_is_in_the_sweep():
    entropy = Arm("GRPO + 0.001 H", "grpo", {"algorithm.entropy_coef": 0.001})
    alone = looks([entropy])[entropy.name]
    together = looks([*PLAIN, *GRID, entropy])
    assert together[entropy.name] == alone
    assert alone.color not in {look.color for look in FIXED.values()}
    assert together["GRPO"] == looks(PLAIN[:1])["GRPO"]


def test_unknown_arms_all_get_different_looks():
    strangers = [Arm(f"arm {i}", "somebody") for i in range(len(SPARE) ** 2)]
    assert len(set(looks(strangers).values())) == len(strangers)


def test_a_scheduled_arm_differs_from_the_constant_one():
    switched = Arm("switch", "cegppo", {"algorithm.beta1": {"0": 0, "585": 0.5}}, {"beta2": 1.0})
    assert looks([switched, *GRID])["switch"] not in looks(GRID).values()


def test_the_style_leaves_the_callers_settings_alone():
    before = dict(matplotlib.rcParams)
    with paper_style():
        assert matplotlib.rcParams["axes.spines.top"] is False
    assert dict(matplotlib.rcParams) == before
