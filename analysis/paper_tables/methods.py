"""Which arms of which sweeps are the rows of the paper's tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from analysis.load import Arm, SweepData
from analysis.load.checks import check_comparable
from analysis.select import by_model, find
from cegppo_lab.errors import LabError, unknown

BASE = "base"
"""The policy before training: step 0 of the same runs."""

METHODS: dict[str, dict[str, Any]] = {
    "GRPO": {"algorithm": "grpo"},
    "DAPO": {"algorithm": "dapo"},
    "CISPO": {"algorithm": "cispo"},
    "GSPO": {"algorithm": "gspo"},
    "CE-GPPO(0.5, 1)": {"algorithm": "cegppo", "beta1": 0.5, "beta2": 1.0},
    "CE-GPPO(0.75, 1)": {"algorithm": "cegppo", "beta1": 0.75, "beta2": 1.0},
}
"""What an arm must be to count as the method: see ``analysis.select.matches``."""

TABLES = {
    1: ("GRPO", "DAPO", "CE-GPPO(0.5, 1)", "CE-GPPO(0.75, 1)"),
    2: ("CISPO", "GSPO", "CE-GPPO(0.5, 1)"),
}
"""The trained methods of each of the paper's tables, in its order; ``BASE`` comes before them."""


@dataclass(frozen=True)
class Entry:
    """A method of one model: the arm that it is, its sweep, and that sweep's arms of the model."""

    method: str
    arm: Arm
    sweep: SweepData
    data: SweepData

    def trials(self) -> pd.DataFrame:
        """The arm's rows of the sweep's ``trials``."""
        return self.data.trials[self.data.trials["arm"] == self.arm.name]


@dataclass(frozen=True)
class Cast:
    """Entries by the policy's name and by method, and what a reader must be told of the choice."""

    models: dict[str, dict[str, Entry]]
    notes: list[str]

    def entries(self) -> list[Entry]:
        """All entries, model by model."""
        return [entry for entries in self.models.values() for entry in entries.values()]

    def sweeps(self) -> list[SweepData]:
        """Each sweep that is used, once, with the arms alone that are used."""
        whole = {id(entry.sweep): entry.sweep for entry in self.entries()}
        arms: dict[int, list[Arm]] = {key: [] for key in whole}
        for entry in self.entries():
            arms[id(entry.sweep)].append(entry.arm)
        return [data.only(arms[key]) for key, data in whole.items()]


def cast(number: int, sweeps: Sequence[SweepData]) -> Cast:
    """The arms that are table ``number``'s methods; the first that matches, and a note on others.

    Raises ``LabError`` for another table, for sweeps without any of the methods or without any
    evaluation, and where the arms were evaluated on versions that cannot be compared.
    """
    if number not in TABLES:
        raise unknown("table of the paper", str(number), map(str, TABLES))
    groups: dict[str, list[tuple[SweepData, SweepData]]] = {}
    for sweep in sweeps:
        for model, data in by_model(sweep).items():
            groups.setdefault(model, []).append((sweep, data))
    models, notes = {}, []
    for model, parts in groups.items():
        found = [e for method in TABLES[number] for e in _candidates(method, parts)]
        chosen = {e.method: e for e in reversed(found)}
        if chosen:
            models[model] = {m: chosen[m] for m in TABLES[number] if m in chosen}
            notes += _left_out(found, chosen) + _several_sweeps(model, models[model])
    result = Cast(models, notes)
    _check(number, sweeps, result)
    return result


def _candidates(method: str, parts: list[tuple[SweepData, SweepData]]) -> Iterator[Entry]:
    for sweep, data in parts:
        for arm in find(data, METHODS[method]):
            yield Entry(method, arm, sweep, data)


def _left_out(found: list[Entry], chosen: dict[str, Entry]) -> list[str]:
    return [
        f"Arm {entry.arm.name} of sweep {entry.sweep.name} is {entry.method} as well; the row is "
        f"arm {chosen[entry.method].arm.name} of sweep {chosen[entry.method].sweep.name}."
        for entry in found
        if entry is not chosen[entry.method] and not _same_runs(entry, chosen[entry.method])
    ]


def _same_runs(a: Entry, b: Entry) -> bool:
    """Whether two sweeps share the arm's runs: then there is nothing to choose."""
    return set(a.trials()["trial_id"]) == set(b.trials()["trial_id"])


def _several_sweeps(model: str, entries: dict[str, Entry]) -> list[str]:
    sources: dict[str, list[str]] = {}
    for entry in entries.values():
        sources.setdefault(entry.sweep.name, []).append(entry.method)
    if len(sources) < 2:
        return []
    told = "; ".join(f"{', '.join(methods)} from {name}" for name, methods in sources.items())
    return [
        f"The rows of {model or 'the model'} come from several sweeps ({told}): other settings "
        "than the algorithm may differ between them."
    ]


def _check(number: int, sweeps: Sequence[SweepData], chosen: Cast) -> None:
    names = ", ".join(repr(sweep.name) for sweep in sweeps) or "none"
    used = chosen.sweeps()
    if not used:
        raise LabError(
            f"no arm of the sweeps given ({names}) is a method of Table {number} "
            f"({', '.join(TABLES[number])}); type: python -m cegppo_lab sweep algorithms"
        )
    if all(data.evals.empty for data in used):
        raise LabError(
            f"no run of the sweeps given ({names}) has a held-out accuracy, and Table {number} is "
            "made of them; type: python -m cegppo_lab sweep algorithms"
        )
    configs = {key: value for data in used for key, value in data.configs.items()}
    arms = [arm for data in used for arm in data.arms]
    manifest = {**used[0].manifest, "name": ", ".join(data.name for data in used)}
    check_comparable(replace(used[0], manifest=manifest, arms=arms, configs=configs))
