"""An MLflow experiment and all its runs, found or made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cegppo_lab.tracking.connection import database_file
from cegppo_lab.tracking.describe import note

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


def find_experiment(client: MlflowClient, uri: str, manifest: dict[str, Any]) -> str:
    """The id of the sweep's experiment, made or restored where needed."""
    name, text = manifest["name"], note(manifest)
    found = client.get_experiment_by_name(name)
    if found is None:
        file = database_file(uri)  # artifacts lie next to the database, whatever folder we are in
        place = (file.parent / "mlartifacts" / name).as_uri() if file else None
        # The kind spares the UI asking, and opening on the page for agent traces.
        tags = {"mlflow.experimentKind": "custom_model_development", "mlflow.note.content": text}
        return client.create_experiment(name, artifact_location=place, tags=tags)
    if found.lifecycle_stage != "active":
        client.restore_experiment(found.experiment_id)
    if found.tags.get("mlflow.note.content") != text:
        client.set_experiment_tag(found.experiment_id, "mlflow.note.content", text)
    return found.experiment_id


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
