"""What a search found: its points, the best of them, and what mattered."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from cegppo_lab.files import replaced, write_json
from cegppo_lab.sweep.search.driver import Search
from cegppo_lab.sweep.search.study import REASON, Study

FEW = 10
"""Finished points a parameter below which an importance says little."""
_LEAST = 4
"""Finished points below which there are no importances."""


@dataclass(frozen=True)
class Summary:
    """A search's points and what they say; ``rows`` in the order of suggestion."""

    rows: list[dict[str, Any]]
    """number, state, arm, reason, then the parameters and the objectives by name (None: none)."""
    goals: dict[str, str]
    """Objective -> maximize or minimize."""
    best: list[int]
    """Numbers of the best points: the Pareto front where there are several objectives."""
    importances: dict[str, dict[str, float]]
    """Objective -> parameter -> share of the importance, 1 in all (PED-ANOVA, by Optuna)."""
    caveat: str

    def text(self) -> str:
        """For the terminal: the best points and the importances."""
        counts = [row["state"] for row in self.rows]
        title = "best point" if len(self.goals) == 1 else "Pareto front"
        told = f"{counts.count('complete')} points with a value, {counts.count('fail')} failed"
        lines = [f"search: {told}", f"{title}:"]
        for number in self.best:
            row = self.rows[number]
            values = ", ".join(f"{title} {row[title]:.4g}" for title in self.goals)
            lines.append(f"  point {number + 1}  {row['arm']}  {values}")
        for title, shares in self.importances.items():
            shown = ", ".join(f"{name} {share:.2f}" for name, share in shares.items())
            lines.append(f"importances for {title}: {shown}")
        return "\n".join([*lines, *([f"note: {self.caveat}"] if self.caveat else [])])

    def write(self, folder: Path) -> list[Path]:
        """Write ``search.csv`` (a row a point) and ``search.json`` (all else) into ``folder``."""
        table = io.StringIO()
        writer = csv.DictWriter(table, list(self.rows[0]) if self.rows else ["number"])
        writer.writeheader()
        writer.writerows(self.rows)
        paths = [folder / "search.csv", folder / "search.json"]
        with replaced(paths[0]) as draft:
            draft.write_text(table.getvalue(), encoding="utf-8")
        found = {"goals": self.goals, "best": [self.rows[number] for number in self.best]}
        shares = {"importances": self.importances, "caveat": self.caveat}
        write_json(paths[1], {**found, **shares, "points": len(self.rows)})
        return paths


def summarize(search: Search, study: Study) -> Summary:
    """What the points so far say."""
    points = study.points()
    goals = {objective.title: objective.goal for objective in search.settings.objectives}
    names = sorted({name for point in points for name in point.params})
    done = [point for point in points if point.state is TrialState.COMPLETE]
    importances = _importances(done, goals) if len(done) >= _LEAST else {}
    few = importances and len(done) < FEW * len(names)
    caveat = f"{len(done)} points say little of {len(names)} parameters' importance" if few else ""
    best = [point.number for point in study.optuna.best_trials] if done else []
    rows = [_row(search, point, names, list(goals)) for point in points]
    return Summary(rows, goals, best, importances, caveat)


def _row(search: Search, point: FrozenTrial, names: list[str], titles: list[str]) -> dict[str, Any]:
    values = point.values or [None] * len(titles)
    state = "open" if point.state is TrialState.RUNNING else point.state.name.lower()
    return {
        "number": point.number + 1,
        "state": state,
        "arm": search.arm(point.params),
        "reason": point.user_attrs.get(REASON, "") if state == "fail" else "",
        **{name: point.params.get(name) for name in names},
        **dict(zip(titles, values, strict=True)),
    }


def _importances(done: list[FrozenTrial], goals: dict[str, str]) -> dict[str, dict[str, float]]:
    """Each objective as a study of its own, so that its direction counts."""
    found = {}
    for index, (title, goal) in enumerate(goals.items()):
        study = optuna.create_study(direction=goal)
        for point in done:
            study.add_trial(
                optuna.trial.create_trial(
                    value=point.values[index],
                    params=point.params,
                    distributions=point.distributions,
                )
            )
        found[title] = optuna.importance.get_param_importances(study)
    return found
