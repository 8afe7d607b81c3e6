"""Sweeps read from the run store."""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis.load.assemble import RunView, assemble, token_frame
from analysis.load.frames import SweepData
from cegppo_lab.store import RunStore


class StoreSource:
    """The sweeps of a run store."""

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self.where = str(store.root)

    def names(self) -> list[str]:
        """The sweeps that were started in the store, sorted."""
        return self._store.manifests()

    def sweep(self, name: str) -> SweepData:
        """Every trial of a sweep. ``LabError`` if it was never started or no trial has a step."""
        manifest = self._store.manifest(name)
        return assemble(
            manifest,
            [self._view(planned) for planned in manifest["trials"]],
            self.where,
            load_tokens=lambda: self._tokens(manifest),
        )

    def _view(self, planned: dict[str, Any]) -> RunView:
        run = self._store.run(planned["trial_id"])
        return RunView(
            trial_id=planned["trial_id"],
            arm=planned["arm"],
            seed=planned["seed"],
            config=run.config(),
            provenance=run.provenance(),
            status=run.status(),
            steps=run.steps(),
            evals=run.evals(),
            finals=run.evaluations(),
            locked=run.locked(),
        )

    def _tokens(self, manifest: dict[str, Any]) -> pd.DataFrame:
        trials = manifest["trials"]
        return token_frame((row, self._store.run(row["trial_id"]).tokens()) for row in trials)


def load_sweep(store: RunStore, name: str) -> SweepData:
    """``StoreSource(store).sweep(name)``."""
    return StoreSource(store).sweep(name)
