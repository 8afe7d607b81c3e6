"""An MLflow experiment and all its runs, found or made."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cegppo_lab import metrics
from cegppo_lab.tracking.connection import database_file
from cegppo_lab.tracking.describe import note

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

NOTE_TAG = "mlflow.note.content"
VIEW_NAME = "Curves by arm"
VIEW_TAG = "mlflow.sharedViewState.curves-by-arm"
"""Where MLflow 3.17 keeps a saved view; the view's address ends in what follows the last dot."""
VIEW_LIMIT = 5000
"""The longest value of an experiment's tag in any MLflow 3 (characters)."""
_SHOWN = (metrics.ENTROPY, metrics.GRAD_NORM, metrics.PPO_KL)


def find_experiment(client: MlflowClient, uri: str, manifest: dict[str, Any]) -> str:
    """The id of the sweep's experiment, made or restored where needed."""
    found = open_experiment(client, uri, manifest["name"], note(manifest))
    if VIEW_TAG not in found.tags:  # one that is there may have been changed in the UI
        client.set_experiment_tag(found.experiment_id, VIEW_TAG, saved_view(manifest))
    return found.experiment_id


def open_experiment(client: MlflowClient, uri: str, name: str, text: str) -> Experiment:
    """The experiment ``name`` with ``text`` as its description, made or restored where needed."""
    found = client.get_experiment_by_name(name)
    if found is None:
        file = database_file(uri)  # artifacts lie next to the database, whatever folder we are in
        place = (file.parent / "mlartifacts" / name).as_uri() if file else None
        # The kind spares the UI asking, and opening on the page for agent traces.
        tags = {"mlflow.experimentKind": "custom_model_development", NOTE_TAG: text}
        made = client.create_experiment(name, artifact_location=place, tags=tags)
        return client.get_experiment(made)
    if found.lifecycle_stage != "active":
        client.restore_experiment(found.experiment_id)
    if found.tags.get(NOTE_TAG) != text:
        client.set_experiment_tag(found.experiment_id, NOTE_TAG, text)
    return found


def saved_view(manifest: dict[str, Any]) -> str:
    """The saved view ``VIEW_NAME`` of the MLflow UI: charts with one curve an arm, as JSON.

    The curve is the mean over the arm's seeds; MLflow shades from their smallest to their largest.
    Of some thirty metrics it shows entropy, gradient norm, KL and held-out accuracy.
    """
    state: dict[str, Any] = {
        "searchFilter": 'tags.arm != ""',  # the parent run has no metrics
        "orderByKey": "tags.`mlflow.runName`",  # by date, the parent comes along in any case
        "orderByAsc": True,
        "groupBy": {
            "aggregateFunction": "average",
            "groupByKeys": [{"mode": "tag", "groupByData": "arm"}],
        },
        "runsHiddenMode": "SHOW_ALL",  # MLflow's default draws ten
        "chartsSearchFilter": f"^({'|'.join(_SHOWN)})$|^val-core/",
    }
    arms = dict.fromkeys(entry["arm"] for entry in manifest["trials"])
    folded = {"groupsExpanded": {f"tag.arm.{arm}": False for arm in arms}}
    view = _view(manifest, state | folded)  # folded, the list of runs is the charts' legend
    return view if len(view) <= VIEW_LIMIT else _view(manifest, state)


def _view(manifest: dict[str, Any], state: dict[str, Any]) -> str:
    made = round(manifest["created"] * 1000)
    times = {"createdAt": made, "updatedAt": made}
    return json.dumps({"name": VIEW_NAME, **times, "state": json.dumps(state)})


def all_runs(client: MlflowClient, experiment_id: str) -> list[Run]:
    """Every run of the experiment, deleted ones too, those that are active first."""
    from mlflow.entities import ViewType

    runs: list[Run] = []
    token = None
    while page := client.search_runs(
        [experiment_id], run_view_type=ViewType.ALL, max_results=1000, page_token=token
    ):
        runs.extend(page)
        token = page.token
        if not token:
            break
    return sorted(runs, key=lambda run: run.info.lifecycle_stage != "active")
