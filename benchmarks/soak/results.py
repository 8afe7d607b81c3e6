"""What a soak measured, as rows of CSV files and as a page."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from statistics import median

from benchmarks.soak.kills import Kill
from benchmarks.table import Row, write
from cegppo_lab.store import RunStore

COLUMNS = (
    *("kills", "phase", "count", "aimed", "steps_recomputed", "steps_recomputed_most"),
    *("back_s_median", "back_s_most", "orphans_s_median", "orphans_s_most"),
)
_KILL_COLUMNS = (
    *("soak", "kind", "phase", "aim", "into_call_s", "interrupted"),
    *("steps_recomputed", "back_s", "orphans_s"),
)
_PACKAGES = ("torch", "ray", "mlflow", "numpy", "filelock")


def kill_rows(soak: str, folder: Path, kills: Sequence[Kill]) -> list[Row]:
    """A row a kill; what was trained anew is known from the attempts that came after it."""
    store = RunStore(folder / "runs")
    attempts = {key: store.run(key).provenance() for key in store.trial_ids()}
    return [_kill_row(soak, kill, attempts) for kill in kills]


def _kill_row(soak: str, kill: Kill, attempts: dict[str, list[dict]]) -> Row:
    after = {
        key: next((each for each in entries if each["started"] > kill.time), None)
        for key, entries in attempts.items()
    }
    again = {key: after[key] for key in kill.steps if after[key]}
    starts = [each["started"] for each in (again or after).values() if each]
    return {
        "soak": soak,
        "kind": kill.kind,
        "phase": kill.phase,
        "aim": kill.aim,
        "into_call_s": f"{kill.into_call_s:.1f}",
        "interrupted": len(kill.steps),
        "steps_recomputed": sum(kill.steps[k] - each["resumed_from"] for k, each in again.items()),
        "back_s": f"{min(starts) - kill.time:.1f}" if starts else "",
        "orphans_s": "" if kill.orphans_s is None else f"{kill.orphans_s:.1f}",
    }


def by_phase(rows: Sequence[Row]) -> Iterator[Row]:
    """The kills by kind and by phase, and all of a kind."""
    for kind in dict.fromkeys(row["kind"] for row in rows):
        of_kind = [row for row in rows if row["kind"] == kind]
        for phase in sorted({row["phase"] for row in of_kind}):
            yield _summary(kind, phase, [row for row in of_kind if row["phase"] == phase])
        yield _summary(kind, "all", of_kind)


def _summary(kind: str, phase: str, rows: Sequence[Row]) -> Row:
    recomputed = [row["steps_recomputed"] for row in rows]
    return {
        "kills": kind,
        "phase": phase,
        "count": len(rows),
        "aimed": sum(bool(row["aim"]) and row["aim"] in row["phase"] for row in rows),
        "steps_recomputed": sum(recomputed),
        "steps_recomputed_most": max(recomputed),
        **_seconds("back_s", rows),
        **_seconds("orphans_s", rows),
    }


def _seconds(column: str, rows: Sequence[Row]) -> dict[str, str]:
    values = [float(row[column]) for row in rows if row[column]]
    if not values:
        return {}
    return {f"{column}_median": f"{median(values):.1f}", f"{column}_most": f"{max(values):.1f}"}


def save(out: Path, rows: Sequence[Row], notes: Sequence[str], told: Sequence[str]) -> list[Row]:
    """Write ``soak.csv``, ``kills.csv`` and ``README.md`` into ``out``; the rows of the first."""
    summary = list(by_phase(rows))
    write(out / "soak.csv", COLUMNS, summary, notes)
    write(out / "kills.csv", _KILL_COLUMNS, rows, notes)
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in _PACKAGES)
    lines = [
        "# Soak: a sweep whose processes are killed",
        "",
        *(f"- {note}" for note in (*notes, f"versions: {versions}, {platform.platform()}")),
        "",
        *_table(summary),
        "",
        *(f"- {line}" for line in told),
        "",
        "A kill is SIGKILL to one process alone. `steps_recomputed`: stored before the kill, and",
        "trained again after it, from the last checkpoint. `back_s`: from the kill to the next row",
        "of an interrupted trial. `orphans_s`: from a driver's kill until none of the call's",
        "processes was left. Phases are as seen from outside just before the kill; `aimed` kills",
        "waited for theirs.",
        "",
    ]
    (out / "README.md").write_text("\n".join(lines), encoding="utf-8")
    return summary


def _table(rows: Sequence[Row]) -> Iterator[str]:
    yield f"| {' | '.join(COLUMNS)} |"
    yield f"|{' --- |' * len(COLUMNS)}"
    for row in rows:
        yield f"| {' | '.join(str(row.get(column, '')) for column in COLUMNS)} |"
