"""How an arm looks, everywhere the same: colour, line and marker that also read in grey.

Plain GRPO, DAPO, CISPO, GSPO and GPPO have fixed looks. CE-GPPO's variants run along one ramp from
sky blue to near-black violet by ``beta1 - beta2``, that is from the most exploring to the most
exploiting; GRPO's entropy bonuses along another, darker with the bonus. Every colour has a contrast
of at least 3 to white, and the tests hold the ones of the quickstart apart under simulated colour
blindness.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.colors import LinearSegmentedColormap, to_hex

from analysis.load import Arm

LineStyle = str | tuple[int, tuple[float, ...]]


@dataclass(frozen=True)
class Look:
    """Colour (hex), matplotlib line style and marker of an arm."""

    color: str
    line: LineStyle
    marker: str


FIXED = {
    "grpo": Look("#3A3A3A", "-", "o"),
    "dapo": Look("#D55E00", (0, (5, 1.5)), "s"),
    "cispo": Look("#CC4C9B", (0, (5, 1.5, 1, 1.5)), "v"),
    "gspo": Look("#00875F", (0, (1.2, 1.2)), "D"),
    "gppo": Look("#7F5200", (0, (8, 2)), "P"),
}
SPARE = (
    Look("#8A8F00", (0, (3, 1)), "<"),
    Look("#A50F15", (0, (6, 1, 1, 1, 1, 1)), ">"),
    Look("#E0607E", (0, (1, 2)), "p"),
    Look("#6E7F91", (0, (4, 3)), "h"),
)
RAMP = LinearSegmentedColormap.from_list(
    "cegppo",
    [
        (0.0, "#2E9FD0"),
        (0.25, "#1F6FD6"),
        (0.375, "#3B3FC0"),
        (0.5, "#4A1FA0"),
        (0.75, "#2A0F5C"),
        (1.0, "#1A0838"),
    ],
)
RAMP_LINES: tuple[LineStyle, ...] = (
    (0, (1.5, 1)),  # beta1 - beta2 = -1
    (0, (4, 1, 1, 1)),
    "-",  # -0.5, the paper's CE-GPPO(0.5, 1)
    (0, (7, 1.5)),
    (0, (2.5, 1)),
    (0, (6, 1, 1.5, 1)),
    (0, (1, 1.8)),
    (0, (9, 2, 2, 2)),
    (0, (3, 2.5)),  # +1
)
RAMP_MARKERS = "^v^d<>pXh"
BONUS = LinearSegmentedColormap.from_list("bonus", ["#A98B00", "#4A3800"])
BONUS_LOOKS: tuple[tuple[LineStyle, str], ...] = (
    ((0, (3, 1)), "<"),  # an entropy bonus of 0.001
    ((0, (6, 1, 1, 1)), ">"),
    ((0, (1, 1.4)), "p"),  # 0.01
)
SCHEDULED: LineStyle = (0, (6, 1, 1, 1, 1, 1))

_RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.6,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.color": "#333333",
    "ytick.color": "#333333",
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "legend.handlelength": 4.2,
    "lines.linewidth": 1.6,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.constrained_layout.use": True,
    "pdf.fonttype": 42,
}


@contextmanager
def paper_style() -> Iterator[None]:
    """The suite's matplotlib settings inside a ``with``; the caller's own come back after it."""
    with matplotlib.rc_context(_RC):
        yield


def looks(arms: Sequence[Arm]) -> dict[str, Look]:
    """A look for every arm by name: its own where the name or the betas give one, else a spare.

    A spare is picked by a hash of the name, and the next free one where that is taken, so that an
    arm looks the same in every figure of a sweep and, as a rule, in other sweeps.
    """
    found = {arm.name: look for arm in arms if (look := _own(arm)) is not None}
    taken: set[Look] = set()
    for name, look in list(found.items()):
        if look in taken:
            del found[name]
        taken.add(look)
    for arm in arms:
        if arm.name not in found:
            found[arm.name] = _spare(arm.name, taken)
            taken.add(found[arm.name])
    return found


def _own(arm: Arm) -> Look | None:
    plain = re.sub(r"[^a-z0-9]", "", arm.name.lower())
    if plain in FIXED:
        return FIXED[plain]
    bonus = arm.coefficient("entropy_coef")
    if arm.algorithm == "grpo" and isinstance(bonus, float) and bonus > 0:
        place = min(max(math.log10(bonus) + 3, 0.0), 1.0)
        line, marker = BONUS_LOOKS[round(place * 2)]
        return Look(to_hex(BONUS(place)), line, marker)
    beta1, beta2 = arm.coefficient("beta1"), arm.coefficient("beta2")
    if arm.algorithm != "cegppo" or beta1 is None or beta2 is None:
        return None
    lean = _last(beta1) - _last(beta2)
    place = min(max((lean + 1) / 2, 0.0), 1.0)
    index = round(place * (len(RAMP_LINES) - 1))
    scheduled = isinstance(beta1, dict) or isinstance(beta2, dict)
    line = SCHEDULED if scheduled else RAMP_LINES[index]
    return Look(to_hex(RAMP(place)), line, "*" if scheduled else RAMP_MARKERS[index])


def _last(value: float | dict[int, float]) -> float:
    """A scheduled coefficient looks like where it ends; its line and marker tell it apart."""
    return value[max(value)] if isinstance(value, dict) else value


def _spare(name: str, taken: set[Look]) -> Look:
    first = zlib.crc32(name.encode()) % len(SPARE)
    looks = [SPARE[(first + i) % len(SPARE)] for i in range(len(SPARE))]
    lines = [look.line for look in looks]
    for turn in range(len(lines)):
        for i, look in enumerate(looks):
            candidate = Look(look.color, lines[(i + turn) % len(lines)], look.marker)
            if candidate not in taken:
                return candidate
    return looks[0]
