"""Which algorithms to look at: presets and classes of one's own, or the arms of a sweep."""

from __future__ import annotations

from collections.abc import Sequence

from cegppo_lab.algorithms import Algorithm
from cegppo_lab.compose import parse_overrides, resolve
from cegppo_lab.errors import LabError

DEFAULTS = ("cegppo", "grpo", "dapo", "cispo")


def split_words(words: Sequence[str]) -> tuple[list[str], dict[str, object]]:
    """``(NAME | NAME.key=value)...`` as names and values; ``LabError`` for what is neither."""
    names = [word for word in words if "=" not in word]
    return names, parse_overrides(word for word in words if "=" in word)


def presets(names: Sequence[str], values: dict[str, object]) -> dict[str, Algorithm]:
    """The presets ``names`` by title, with ``{"cegppo.beta1": 0.5}`` over them.

    A preset that only a value names is chosen as well; none at all are ``DEFAULTS``. Raises
    ``LabError`` for an unknown preset or key and for a value that the algorithm refuses.
    """
    for key, value in values.items():
        if "." not in key:
            raise LabError(f"{key}={value}: say of which algorithm, e.g. cegppo.{key}={value}")
    own = [key.partition(".")[0] for key in values]
    chosen = list(dict.fromkeys([*names, *own])) or list(DEFAULTS)
    found = {}
    for name in chosen:
        mine = {k: v for k, v in values.items() if k.partition(".")[0] == name}
        over = {f"algorithm.{key.partition('.')[2]}": value for key, value in mine.items()}
        found[_label(name, over)] = resolve({"algorithm": name, **over}).algorithm
    return found


def arms(sweep: str, values: dict[str, object]) -> dict[str, Algorithm]:
    """The algorithms of a sweep's arms by the arms' names; ``values`` reach every arm.

    Raises ``LabError`` for what :func:`cegppo_lab.sweep.plan.make_plan` refuses.
    """
    from cegppo_lab.sweep.plan import make_plan

    words = [f"{key}={value}" for key, value in values.items()]
    return {trial.arm: trial.config.algorithm for trial in make_plan(sweep, words).trials}


def _label(name: str, over: dict[str, object]) -> str:
    told = ", ".join(f"{key.partition('.')[2]}={value}" for key, value in over.items())
    return f"{name}({told})" if told else name
