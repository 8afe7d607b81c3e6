"""What a store holds: sweeps, trials by state, bytes by kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cegppo_lab.errors import LabError, unknown
from cegppo_lab.housekeeping.contents import files_below, require_store
from cegppo_lab.store import DONE, PENDING, RunStore, Status
from cegppo_lab.sweep.plan import state_of

UNREADABLE = "unreadable"
CHECKPOINTS, ROWS, VERL, EVALUATIONS, OTHER = "checkpoints", "rows", "verl", "evaluations", "other"
_FOLDERS = {"checkpoints": CHECKPOINTS, "verl": VERL}


@dataclass(frozen=True)
class TrialStatus:
    """One trial. ``state`` is one of the store's, ``interrupted`` or ``unreadable``.

    ``arm`` is empty and ``seed`` None for a trial that no sweep names.
    """

    trial_id: str
    arm: str
    seed: int | None
    state: str
    reason: str
    step: int
    steps: int
    changed: float | None
    """Unix seconds of the newest change of one of its files."""
    disk: dict[str, int]
    """Bytes by kind."""


@dataclass(frozen=True)
class SweepStatus:
    """One sweep's trials; ``name`` is None for the trials that no sweep names."""

    name: str | None
    trials: list[TrialStatus]

    @property
    def states(self) -> dict[str, int]:
        """How many trials are in each state."""
        return dict(sorted(Counter(trial.state for trial in self.trials).items()))

    @property
    def disk(self) -> dict[str, int]:
        """Bytes by kind; a trial that several sweeps share counts in each."""
        return dict(sum((Counter(trial.disk) for trial in self.trials), Counter()))

    @property
    def changed(self) -> float | None:
        """Unix seconds of the newest change; None when nothing was started."""
        return max((trial.changed for trial in self.trials if trial.changed), default=None)

    @property
    def unfinished(self) -> list[TrialStatus]:
        """Trials with something to tell: neither done nor merely not begun."""
        return [trial for trial in self.trials if trial.state not in (DONE, PENDING)]


def status(store: RunStore, names: Sequence[str] = ()) -> list[SweepStatus]:
    """The sweeps ``names``, or all of them and, last, the trials that none names.

    Raises ``LabError`` for a sweep that the store does not have.
    """
    require_store(store)
    known = store.manifests()
    for name in names:
        if name not in known:
            raise unknown("sweep", name, known)
    rows = {name: store.manifest(name)["trials"] for name in names or known}
    sweeps = [
        SweepStatus(name, [_trial(store, row["trial_id"], row["arm"], row["seed"]) for row in each])
        for name, each in rows.items()
    ]
    named = {row["trial_id"] for each in rows.values() for row in each}
    loose = [] if names else [each for each in store.trial_ids() if each not in named]
    if loose:
        sweeps.append(SweepStatus(None, [_trial(store, each, "", None) for each in loose]))
    return sweeps


def disk_of_store(store: RunStore) -> dict[str, int]:
    """Bytes by kind of everything in the store, each file once."""
    return dict(_disk(store.root, 1)[0])


def _trial(store: RunStore, trial_id: str, arm: str, seed: int | None) -> TrialStatus:
    run = store.run(trial_id)
    disk, changed = _disk(run.path, 0)
    try:
        state, now = state_of(store, run), run.status()
    except (LabError, TypeError) as error:
        state, now = UNREADABLE, Status(reason=str(error))
    return TrialStatus(
        trial_id, arm, seed, state, now.reason, now.step, now.steps, changed, dict(disk)
    )


def _disk(folder: Path, depth: int) -> tuple[Counter[str], float | None]:
    """Bytes by kind below ``folder``, whose trials lie ``depth`` levels deep, and newest change."""
    disk: Counter[str] = Counter()
    changed = None
    for path, stat in files_below(folder):
        parts = path.relative_to(folder).parts
        disk[_kind(parts, depth)] += stat.st_size
        if path.name != "lock":  # asking whether a trial is in training touches it
            changed = max(changed or 0.0, stat.st_mtime)
    return disk, changed


def _kind(parts: tuple[str, ...], depth: int) -> str:
    if parts[0] == "_evaluations":
        return EVALUATIONS
    inner = parts[depth:]
    if len(inner) > 1:
        return _FOLDERS.get(inner[0], OTHER)
    return ROWS if parts[-1].endswith(".jsonl") else OTHER
