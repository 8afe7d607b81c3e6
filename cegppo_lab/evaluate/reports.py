"""Named evaluations: what a report shows, so that it can be drawn again without a model."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cegppo_lab.errors import LabError
from cegppo_lab.files import read_json, write_json
from cegppo_lab.store import RunStore

if TYPE_CHECKING:
    from cegppo_lab.evaluate.plan import Plan


def write_manifest(store: RunStore, plan: Plan) -> None:
    """Record under the plan's name what its report shows, in the order of its table.

    An entry has ``policy`` (the label), ``benchmark``, ``evaluation_id``, ``samples`` (k) and
    ``problems`` (how many of the first ones; null: all).
    """
    entries = [
        {
            "policy": evaluation.policy.label,
            "benchmark": evaluation.benchmark.name,
            "evaluation_id": evaluation.evaluation_id,
            "samples": evaluation.benchmark.samples,
            "problems": evaluation.wanted,
        }
        for evaluation in plan.evaluations
    ]
    manifest = {"name": plan.name, "created": time.time(), "entries": entries}
    write_json(_path(store, plan.name), manifest)


def read_manifest(store: RunStore, name: str) -> dict[str, Any]:
    """The manifest of a named evaluation; ``LabError`` if there is none in this store."""
    found = read_json(_path(store, name))
    if found is None:
        names = sorted(path.stem for path in _path(store, name).parent.glob("*.json"))
        raise LabError(
            f"no evaluation {name!r} in {store.root} (there: {', '.join(names) or 'none yet'}); "
            "name a policy to make one, e.g. python -m cegppo_lab evaluate table_walk"
        )
    return found


def _path(store: RunStore, name: str) -> Path:
    return store.evaluations / "_reports" / f"{name}.json"
