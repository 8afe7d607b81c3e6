"""Plain verl runs, logged by verl's own MLflow backend, read with a mapping of runs to arms."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from analysis.load.assemble import RunView, assemble
from analysis.load.experiments import Logged, read_values, runs_of
from analysis.load.frames import SweepData
from analysis.load.mapping import Assigned, RunMapping
from cegppo_lab.errors import LabError, unknown
from cegppo_lab.store import DONE, FAILED, PENDING, RUNNING, STOPPED, Status
from cegppo_lab.tracking.connection import connect_to_read, redact

if TYPE_CHECKING:
    from mlflow.entities import Run

PLANNED_PARAM = "trainer/total_training_steps"
"""verl's own key for the planned steps, as its backend flattens it."""
VALIDATION = ("val-core/", "val-aux/")
_STATES = {"FINISHED": DONE, "FAILED": FAILED, "KILLED": STOPPED, "RUNNING": RUNNING}
_NAMES = 12


class ForeignSource:
    """The one MLflow experiment ``experiment`` at ``uri``, whose runs this suite did not launch.

    Metrics keep the names under which verl's backend logs them. Verdicts on single problems do not
    exist there: accuracies ``val-core/<benchmark>/acc/mean@N`` become evaluations of one "problem".
    A run's state is MLflow's, but verl's backend also ends a run that crashed as finished: one that
    has fewer steps than planned counts as stopped. Nothing is written.
    """

    def __init__(self, uri: str, experiment: str, mapping: RunMapping) -> None:
        self._uri, self._experiment, self._mapping = uri, experiment, mapping
        self.where = redact(uri)

    def names(self) -> list[str]:
        """The experiment alone."""
        return [self._experiment]

    def sweep(self, name: str) -> SweepData:
        """The runs that the mapping names.

        Raises ``LabError`` for another name, when MLflow cannot be read, for an unknown or empty
        experiment, and when no run is left that has a metric.
        """
        if name != self._experiment:
            raise unknown(f"experiment at {self.where}:", name, self.names())
        with connect_to_read(self._uri) as client:
            runs = runs_of(client, name, self._uri)
            assigned, notes = self._mapping.assign(runs)
            logged = read_values(client, self._uri, [one.run for one in assigned])
        self._check(runs, assigned, logged)
        assigned = _furthest_first(assigned, logged)
        longest = _longest(assigned, logged)
        views = [_view(one, logged[one.run.info.run_id], longest[one.rule.arm]) for one in assigned]
        if any(view.evals for view in views):
            notes.append(
                "Accuracies are means over problems as verl logged them: single problems are not "
                "known, so intervals are over seeds alone."
            )
        views[0] = replace(views[0], notes=[*notes, *views[0].notes])
        manifest = self._manifest(assigned)
        return assemble(manifest, views, self.where, scale=self._mapping.scale)

    def _check(
        self, runs: Sequence[Run], assigned: Sequence[Assigned], logged: dict[str, Logged]
    ) -> None:
        """``LabError`` when no run is left to read."""
        place = f"experiment {self._experiment!r} at {self.where}"
        if not assigned:
            names = [run.info.run_name or run.info.run_id for run in runs]
            more = ", ..." if len(names) > _NAMES else ""
            raise LabError(
                f"the mapping leaves no run of the {place}; its runs: "
                f"{', '.join(names[:_NAMES])}{more}"
            )
        if not any(each.step_records() or each.mean_evaluations() for each in logged.values()):
            raise LabError(f"no run of the {place} has a metric at a training step (1 or later)")

    def _manifest(self, assigned: Sequence[Assigned]) -> dict[str, Any]:
        rules = {one.rule.arm: one.rule for one in reversed(assigned)}
        order = list(dict.fromkeys(one.rule.arm for one in assigned))
        keys = sorted({key for rule in rules.values() for key in rule.settings})
        differing = [k for k in keys if len({repr(r.settings.get(k)) for r in rules.values()}) > 1]
        ids = sorted(one.run.info.run_id for one in assigned)
        return {
            "name": self._experiment,
            "question": self._mapping.question,
            "notes": ["Runs that this suite did not launch, read from MLflow with a mapping file."],
            "overrides": [],
            "rerun": f"python -m analysis all --mlflow {self.where} --experiment "
            f"{shlex.quote(self._experiment)} --mapping FILE",
            "arms": [
                {
                    "name": arm,
                    "algorithm": rules[arm].algorithm,
                    "differs": {
                        f"algorithm.{key}": _plain(rules[arm].settings[key])
                        for key in differing
                        if key in rules[arm].settings
                    },
                }
                for arm in order
            ],
            "trials": [
                {"trial_id": one.run.info.run_id, "arm": one.rule.arm, "seed": one.seed}
                for one in assigned
            ],
            "plan_id": hashlib.sha256("".join(ids).encode()).hexdigest()[:12],
            "created": min(one.run.info.start_time for one in assigned) / 1000,
        }


def _furthest_first(assigned: Sequence[Assigned], logged: dict[str, Logged]) -> list[Assigned]:
    """By arm in the mapping's order, by seed, and of two runs of one seed the longer one first."""
    arms = list(dict.fromkeys(one.rule.arm for one in assigned))

    def key(one: Assigned) -> tuple[int, int, int]:
        return arms.index(one.rule.arm), one.seed, -logged[one.run.info.run_id].last_step

    return sorted(assigned, key=key)


def _planned(one: Assigned) -> int:
    """The planned steps of a run: the rule's, else verl's param, else 0."""
    given = one.run.data.params.get(PLANNED_PARAM, "")
    return one.rule.steps or (int(given) if given.isdecimal() else 0)


def _longest(assigned: Sequence[Assigned], logged: dict[str, Logged]) -> dict[str, int]:
    """The steps of each arm's longest run: what was planned, where nothing else tells."""
    longest: dict[str, int] = {}
    for run, rule, _ in assigned:
        reached = logged[run.info.run_id].last_step
        longest[rule.arm] = max(reached, longest.get(rule.arm, 0))
    return longest


def _view(one: Assigned, logged: Logged, longest: int) -> RunView:
    run, rule, seed = one
    without = {key for row in logged.values.values() for key in row if key.startswith(VALIDATION)}
    steps, evals = logged.step_records(without), logged.mean_evaluations()
    status = _status(run, logged.last_step, _planned(one), longest)
    config = {
        "seed": seed,
        "model": {"name": rule.model},
        "trainer": {"name": "verl", "steps": status.steps},
    }
    if rule.algorithm:
        settings = {key: _plain(value) for key, value in rule.settings.items()}
        config["algorithm"] = {"name": rule.algorithm, **settings}
    return RunView(
        trial_id=run.info.run_id,
        arm=rule.arm,
        seed=seed,
        config=config,
        provenance=[_provenance(run)],
        status=status,
        steps=steps,
        evals=evals,
        locked=status.state == RUNNING,
        notes=_notes(one, logged, status),
    )


def _notes(one: Assigned, logged: Logged, status: Status) -> list[str]:
    label, notes = f"{one.rule.arm}, seed {one.seed}", []
    if repeated := sorted(step for step in logged.repeated if step > 0):
        notes.append(
            f"{label}: {len(repeated)} steps were logged twice, from step {repeated[0]} on, as "
            "after a checkpoint; the numbers use the later values."
        )
    if status.state == RUNNING and logged.times:
        last = datetime.fromtimestamp(max(logged.times.values()), UTC)
        notes.append(
            f"{label}: MLflow has it as running; its last value is from {last:%Y-%m-%d %H:%M} UTC."
        )
    return notes


def _status(run: Run, reached: int, planned: int, longest: int) -> Status:
    """MLflow's status as ours, with what it does not say itself.

    ``planned`` steps are 0 where nobody said; ``longest``: those of the arm's longest run.
    """
    state = _STATES.get(run.info.status, PENDING)
    reason = "" if state in (DONE, RUNNING, PENDING) else f"{run.info.status} in MLflow"
    if state == DONE and not reached:
        state, reason = STOPPED, "FINISHED in MLflow without a training step"
    elif state == DONE and reached < planned:
        state = STOPPED
        reason = "FINISHED in MLflow before its planned steps, as verl's backend ends a crashed run"
    steps = planned or (reached if state == DONE else longest)
    return Status(state, reason, reached, steps, (run.info.end_time or 0) / 1000)


def _provenance(run: Run) -> dict[str, Any]:
    """What MLflow knows of a run's making."""
    sha = run.data.tags.get("mlflow.source.git.commit")
    return {"started": run.info.start_time / 1000, "git_sha": sha, "mlflow_run": run.info.run_name}


def _plain(value: Any) -> Any:
    """A setting as JSON has it: the steps of a schedule are strings."""
    return {str(key): part for key, part in value.items()} if isinstance(value, dict) else value
