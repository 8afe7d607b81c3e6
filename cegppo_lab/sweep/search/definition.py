"""A search: its points as runs and plans, what it depends on, and its checks before it starts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cegppo_lab.errors import LabError
from cegppo_lab.sentinel import StopRules, search_rules
from cegppo_lab.sweep.plan import Plan, arm_trials
from cegppo_lab.sweep.search import space
from cegppo_lab.sweep.search.objectives import ACCURACY, check_objectives
from cegppo_lab.sweep.search.settings import SearchSpec
from cegppo_lab.sweep.search.study import Study, is_stored
from cegppo_lab.trial import Trial, content_id, hashed_content

_CORNERS = 64
"""Corners of the space that are looked at before the launch."""


@dataclass(frozen=True)
class Search:
    """A sweep with a search: ``fixed`` is the plan of the arms that the file lists beside it."""

    fixed: Plan
    settings: SearchSpec
    _known: dict[str, list[Trial]] = field(default_factory=dict, compare=False)

    def trials(self, point: space.Point) -> list[Trial]:
        """The runs of a point, one a seed; ``LabError`` for values that a run refuses."""
        name = self.arm(point)
        if name not in self._known:
            values = space.overrides(self.settings.space, point)
            self._known[name] = arm_trials(self.fixed.spec, self.fixed.shared, name, values)
        return self._known[name]

    def arm(self, point: space.Point) -> str:
        """The name of the point's arm."""
        return space.arm_name(self.settings.space, point)

    @property
    def rules(self) -> StopRules:
        """When a run is ended early: what the file says, and what a search has without a word."""
        spec = self.fixed.spec
        rules = search_rules(spec.stop if "stop" in spec.model_fields_set else None)
        mark = {"pruned": {"search": spec.name}} if self.settings.pruner else {}
        return StopRules(**{**rules.tree(), **mark})

    @property
    def first_rung(self) -> int:
        """Training steps after which a pruner is first asked."""
        settings = self._corner().config.trainer
        return (self.settings.pruner and self.settings.pruner.min_steps) or settings.eval_every

    def rungs(self) -> list[int | None]:
        """Where a point is looked at, training steps; the last, None, is its end."""
        pruner, steps = self.settings.pruner, self._corner().config.trainer.steps
        return [*(pruner.rungs(self.first_rung, steps) if pruner else []), None]

    def _corner(self) -> Trial:
        return self.trials(next(space.corners(self.settings.space)))[0]

    def plan(self, points: list[space.Point]) -> Plan:
        """An ordinary plan: the fixed arms and an arm for each point, its values declared.

        A point whose runs are those of an arm before it has no arm of its own.
        """
        arms = dict(self.fixed.spec.points())
        trials, seen = list(self.fixed.trials), {trial.trial_id for trial in self.fixed.trials}
        for point in points:
            new = self.trials(point)
            if seen.isdisjoint(trial.trial_id for trial in new):
                trials += new
                seen |= {trial.trial_id for trial in new}
                arms[new[0].arm] = space.overrides(self.settings.space, point)
        changed = {"arms": arms, "grid": {}, "zip": {}, "stop": self.rules}
        spec = self.fixed.spec.model_copy(update=changed)
        return Plan(spec, trials, self.fixed.runtime, self.fixed.overrides, self.fixed.shared)

    def ends(self) -> list[space.Point]:
        """Points at the ends of the space, the first ones if there are many."""
        return list(islice(space.corners(self.settings.space), _CORNERS))

    def checked(self) -> Plan:
        """The plan of points at the ends of the space, for checks before anything starts.

        Raises ``LabError`` for keys, values and metrics that the runs do not have.
        """
        plan = self.plan(self.ends())
        check_objectives(self.settings.objectives, plan.trials[-1].config)
        self._check_pruner()
        return plan

    def _check_pruner(self) -> None:
        if not self.settings.pruner:
            return
        where = f"search.pruner={self.settings.pruner.name}"
        for key in ("trainer", "trainer.steps", "trainer.eval_every"):
            if key in self.settings.space:
                raise LabError(
                    f"{where}: points that differ in {key} cannot be compared at a rung; "
                    "drop the pruner, or the key from search.space"
                )
        trainer = self._corner().config.trainer
        if self.rungs() == [None]:
            raise LabError(
                f"{where}: its first rung, step {self.first_rung}, is not before the last step, "
                f"{trainer.steps}; say search.pruner.min_steps=N with a smaller N"
            )
        late = self.first_rung < trainer.eval_every
        if late and self.settings.objectives[0].metric == ACCURACY:
            raise LabError(
                f"{where}: min_steps={self.first_rung} is before the first evaluation, at step "
                f"{trainer.eval_every}; say {trainer.eval_every} or more, or trainer.eval_every=N"
            )

    def identity(self) -> dict[str, Any]:
        """All that suggestions and their values depend on, as plain JSON values by name."""
        content = self.settings.model_dump(
            mode="json", include={"sampler", "seed", "objectives"}
        ) | {
            "space": {k: e.model_dump(mode="json") for k, e in self.settings.space.items()},
            "seeds": self.fixed.spec.seeds,
            "settings of every trial": content_id(hashed_content(self._corner().config)),
        }
        if self.settings.pruner:
            content["pruner"] = self.settings.pruner.content() | {"min_steps": self.first_rung}
        return json.loads(json.dumps(content))

    @contextmanager
    def study(self) -> Iterator[Study]:
        """The search's study, for this process alone; ``LabError`` when another one has it."""
        path = self._file()
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(path.with_suffix(".lock"), timeout=0):
                yield self._study()
        except Timeout:
            raise LabError(
                f"search {self.fixed.spec.name!r} is being run by another process; "
                "wait for it or stop it"
            ) from None

    def stored(self) -> Study | None:
        """The study to look at, whoever is at it; None before the search's first start."""
        return self._study() if is_stored(self._url(), self.fixed.spec.name) else None

    def _study(self) -> Study:
        return Study(self.settings, self.fixed.spec.name, self._url(), self.identity())

    def _url(self) -> str:
        return self.settings.storage or f"sqlite:///{self._file()}"

    def _file(self) -> Path:
        root = self.fixed.store().root.resolve()
        return root / "_searches" / f"{self.fixed.spec.name}.db"
