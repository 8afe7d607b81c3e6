"""How a search stands: what is known of it, and what it has yet to run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import cycle, islice

from cegppo_lab.execute import is_finished
from cegppo_lab.sweep.plan import Plan
from cegppo_lab.sweep.search.definition import Search
from cegppo_lab.sweep.search.study import Study
from cegppo_lab.trial import Trial


@dataclass(frozen=True)
class Outlook:
    """``plan``: the fixed arms and the points so far; ``left``: their runs that are still to do.

    ``unsuggested``: points that no one knows yet, at most; a small space may have fewer.
    """

    plan: Plan
    left: list[Trial]
    unsuggested: int


def outlook(search: Search, study: Study | None) -> Outlook:
    """How ``search`` stands by its study and the store; None: it has not begun.

    A point that has its result is left as it is, whatever became of its runs.
    """
    plan = search.plan(study.run_points() if study else [])
    open_points = study.open() if study else []
    wanted = [
        *search.fixed.trials,
        *(trial for point in open_points for trial in search.trials(point.params)),
    ]
    store, rules = plan.store(), plan.spec.stop
    left = [trial for trial in wanted if not is_finished(store, trial.trial_id, rules)]
    tried = len(study.points()) if study else 0
    distinct = list({trial.trial_id: trial for trial in left}.values())
    return Outlook(plan, distinct, max(search.settings.points - tried, 0))


def stand_ins(search: Search, count: int) -> list[Trial]:
    """The runs of the last ``count`` points, before they are suggested, for what they may cost.

    They are runs at the ends of the space, in turn, under ids that no run has.
    """
    first = search.settings.points - count + 1
    numbers = range(first, search.settings.points + 1)
    return [
        replace(trial, trial_id=f"point-{number}-seed-{trial.seed}")
        for number, end in zip(numbers, islice(cycle(search.ends()), count), strict=True)
        for trial in search.trials(end)
    ]
