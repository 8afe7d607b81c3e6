"""What a trial needs, and what it resolves to, as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import yaml

from cegppo_lab.errors import LabError, unknown

if TYPE_CHECKING:
    from cegppo_lab.sweep.plan import Plan
    from cegppo_lab.trial import Trial


def needs(trial: Trial) -> str:
    """The machines of one trial, e.g. ``16 nodes x 8 GPUs`` or ``1 CPU``."""
    runtime = trial.config.runtime
    if runtime.nodes > 1:
        return f"{runtime.nodes} nodes x {runtime.gpus:g} GPUs"
    return f"{runtime.gpus:g} GPUs" if runtime.gpus else f"{runtime.cpus:g} CPU"


def trial_text(trial: Trial, state: str) -> str:
    """A trial in a list of those that are left out."""
    return f"{trial.trial_id}  {trial.arm}  seed {trial.seed}  {state}"


def resolved_text(plan: Plan, start: str) -> str:
    """The configuration of the trial whose id begins with ``start``, as YAML.

    For ``trainer=verl`` verl's own, complete, of the trial's first phase. Raises ``LabError`` when
    no trial or several begin so, and for a config that verl refuses.
    """
    found = [trial for trial in plan.trials if trial.trial_id.startswith(start)]
    if not found:
        raise unknown("trial", start, [trial.trial_id for trial in plan.trials])
    if len(found) > 1:
        raise LabError(f"{len(found)} trials begin with {start!r}; give more of the id")
    (trial,) = found
    if trial.config.trainer.name != "verl":
        return yaml.safe_dump(trial.config.tree(), sort_keys=False)
    from omegaconf import OmegaConf

    from cegppo_lab.trainers.verl.trainer import resolved_job

    folder = plan.store().run(trial.trial_id).path.resolve()
    return OmegaConf.to_yaml(resolved_job(trial.config, folder))


def search_lines(search: Mapping[str, Any]) -> list[str]:
    """How a search stands, from its section of the manifest and what is still unknown."""
    tried, total = search["tried"], search["points"]
    counts = Counter(point["state"] for point in tried)
    told = "".join(f"{count} {state}, " for state, count in sorted(counts.items()))
    lines = [f"search ({search['sampler']}), {total} points: {told}"]
    lines[0] += f"{search['unsuggested']} not suggested yet"
    if search["rungs"]:
        lines.append(f"pruned points end after step {', '.join(map(str, search['rungs']))}")
    titles = [objective["title"] for objective in search["objectives"]]
    for point in tried:
        pairs = zip(titles, point["values"] or [], strict=bool(point["values"]))
        values = ", ".join(f"{title} {value:.4g}" for title, value in pairs)
        head = f"  point {point['number']}  {point['state']}  {point['arm']}"
        lines.append("  ".join(each for each in (head, values, point["reason"]) if each))
    return lines
