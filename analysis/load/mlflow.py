"""Sweeps read from MLflow alone: the mirror of a run store, at any tracking URI."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.load.assemble import RunView, assemble, token_frame
from analysis.load.experiments import Logged, active_runs, experiments, read_values, runs_of
from analysis.load.frames import SweepData
from analysis.load.mapping import SHAPE
from analysis.load.mirrored import Lack, download, rebuilt_manifest, run_view
from cegppo_lab.errors import LabError
from cegppo_lab.files import read_json
from cegppo_lab.store import RunDir, Status
from cegppo_lab.tracking.connection import connect_to_read, redact
from cegppo_lab.tracking.describe import SWEEP_TAG, TRIAL_TAG
from cegppo_lab.tracking.files import MANIFEST_FILE, TRIAL_FILES

if TYPE_CHECKING:
    from mlflow.entities import Run

TOKENS_FILE = "tokens.jsonl"
_LABELS = 4


class MlflowSource:
    """The sweeps that this suite mirrored to the MLflow at ``uri``: a database or a server.

    The frames are those of the run store that was mirrored, to the last bit. Nothing is written.
    Every method raises ``LabError`` when ``uri`` is malformed, unreachable or no MLflow.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self.where = redact(uri)

    def names(self) -> list[str]:
        """The experiments that hold a sweep, sorted."""
        with connect_to_read(self._uri) as client:
            names = {each.experiment_id: each.name for each in experiments(client)}
            parents = active_runs(client, list(names), f"tags.{SWEEP_TAG} LIKE '%'")
            return sorted({names[run.info.experiment_id] for run in parents})

    def sweep(self, name: str) -> SweepData:
        """Every trial of a sweep.

        Raises ``LabError`` for an unknown or empty experiment, for one that this suite did not
        make, and when no trial has a step.
        """
        with connect_to_read(self._uri) as client, TemporaryDirectory() as folder:
            runs = runs_of(client, name, self._uri)
            parents = [run for run in runs if SWEEP_TAG in run.data.tags]
            children = [run for run in runs if TRIAL_TAG in run.data.tags]
            if not parents and not children:
                raise LabError(
                    f"the experiment {name!r} at {self.where} is no sweep of this suite; say in "
                    f"a file which run is which arm, and give --mapping FILE; {SHAPE}"
                )
            logged = read_values(client, self._uri, children)
            chosen, twins = _chosen(children, logged)
            manifest, notes = self._manifest(name, parents, list(chosen.values()), Path(folder))
            views = self._views(manifest, chosen, logged, Path(folder))
        if views:
            views[0] = replace(views[0], notes=[*notes, *twins, *views[0].notes])
        return assemble(
            manifest, views, self.where, load_tokens=partial(self._tokens, manifest, chosen)
        )

    def _manifest(
        self, name: str, parents: Sequence[Run], children: list[Run], folder: Path
    ) -> tuple[dict[str, Any], list[str]]:
        """The sweep's manifest, from the newest parent that has it; and sentences about it."""
        for parent in reversed(parents):
            place = folder / "parent" / parent.info.run_id
            download(parent, [MANIFEST_FILE], place, self._uri)
            if manifest := read_json(place / MANIFEST_FILE):
                return manifest, []
        return rebuilt_manifest(name, parents[-1] if parents else None, children), [
            "The sweep's manifest is not in MLflow: trials that were never started are not known, "
            "and what the arms differ in comes from params; type: python -m cegppo_lab sync."
        ]

    def _views(
        self, manifest: dict[str, Any], chosen: dict[str, Run], logged: dict[str, Logged],
        folder: Path,
    ) -> list[RunView]:  # fmt: skip
        views, lacks = [], []
        for planned in manifest["trials"]:
            trial_id = planned["trial_id"]
            run = chosen.get(trial_id)
            if run is None:
                views.append(_pending(planned))
                continue
            names = [name for name in TRIAL_FILES if name != TOKENS_FILE]
            reason = download(run, names, folder / trial_id, self._uri)
            files = RunDir(folder / trial_id)
            view, lack = run_view(planned, run, files, logged[run.info.run_id])
            views.append(view)
            if lack is not None:
                lacks.append(replace(lack, cause=reason or lack.cause))
        if views:
            views[0] = replace(views[0], notes=list(_told(lacks)))
        return views

    def _tokens(self, manifest: dict[str, Any], chosen: dict[str, Run]) -> pd.DataFrame:
        with connect_to_read(self._uri), TemporaryDirectory() as folder:
            for trial_id, run in chosen.items():
                download(run, [TOKENS_FILE], Path(folder) / trial_id, self._uri)
            trials = manifest["trials"]
            return token_frame(
                (row, RunDir(Path(folder) / row["trial_id"]).tokens()) for row in trials
            )


def _chosen(runs: Sequence[Run], logged: dict[str, Logged]) -> tuple[dict[str, Run], list[str]]:
    """One run of each trial, that which is furthest; and a sentence for each trial with several.

    The longest runs come first.
    """
    chosen: dict[str, Run] = {}
    several = set()
    for run in sorted(runs, key=lambda run: -logged[run.info.run_id].last_step):
        trial_id = run.data.tags[TRIAL_TAG]
        if chosen.setdefault(trial_id, run) is not run:
            several.add(trial_id)
    return chosen, [
        f"Trial {trial_id} has several runs in MLflow; the numbers use the one that is furthest, "
        f"{chosen[trial_id].info.run_id}."
        for trial_id in sorted(several)
    ]


def _pending(planned: dict[str, Any]) -> RunView:
    key = {name: planned[name] for name in ("trial_id", "arm", "seed")}
    return RunView(**key, config={}, provenance=[], status=Status(), steps=[], evals=[])


def _told(lacks: Sequence[Lack]) -> Iterator[str]:
    """One sentence for all runs that lack the same for the same cause."""
    groups: dict[tuple[bool, str], list[str]] = {}
    for lack in lacks:
        groups.setdefault((lack.files, lack.cause), []).append(lack.label)
    for (files, cause), labels in groups.items():
        more = f" and {len(labels) - _LABELS} more" if len(labels) > _LABELS else ""
        who = "; ".join(labels[:_LABELS]) + more
        if files:
            yield (
                f"{who}: MLflow has no files of the run store ({cause}); the configuration comes "
                "from params, accuracy is a mean over problems; type: python -m cegppo_lab sync."
            )
        else:
            yield (
                f"{who}: the newest evaluations are in MLflow as means over problems only "
                f"({cause}); type: python -m cegppo_lab sync."
            )
