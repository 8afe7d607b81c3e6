"""The saved view in the MLflow UI: what it selects, and that users may change it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from mirrored import ARMS, manifest, query, tags_of, train, uri

from cegppo_lab import metrics
from cegppo_lab.store import DONE, RunStore
from cegppo_lab.tracking import mirror_sweep
from cegppo_lab.tracking.describe import mlflow_key
from cegppo_lab.tracking.experiment import VIEW_LIMIT, VIEW_NAME, VIEW_TAG, saved_view


def stored(where: str) -> list[str]:
    return [
        value
        for (value,) in query(where, f"select value from experiment_tags where key = '{VIEW_TAG}'")
    ]


def state(view: str) -> dict:
    return json.loads(json.loads(view)["state"])


def test_the_view_selects_the_trials_and_groups_them_by_a_tag_they_have(
    store: RunStore, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    train(store, "t1", range(0, 2), DONE)
    train(store, "t2", range(0, 2), DONE)
    mirror_sweep(store, "demo", uri(tmp_path))
    [view] = stored(uri(tmp_path))
    assert json.loads(view)["name"] == VIEW_NAME
    wanted = state(view)
    [group] = wanted["groupBy"]["groupByKeys"]
    assert group["mode"] == "tag"
    assert tags_of(uri(tmp_path), "GRPO seed 11")[group["groupByData"]] == "GRPO"
    assert wanted["groupsExpanded"] == {f"tag.arm.{arm}": False for arm in ARMS.values()}
    order = f"{wanted['orderByKey']} {'ASC' if wanted['orderByAsc'] else 'DESC'}"
    client = MlflowClient(uri(tmp_path))
    number = client.get_experiment_by_name("demo").experiment_id
    runs = client.search_runs([number], wanted["searchFilter"], order_by=[order])
    assert [run.info.run_name for run in runs] == ["CE-GPPO(0.5, 1) seed 11", "GRPO seed 11"]


def test_the_view_shows_the_metrics_of_the_figures_and_no_others() -> None:
    shown = re.compile(state(saved_view(manifest("demo")))["chartsSearchFilter"])
    accuracy = mlflow_key(metrics.accuracy("table_walk", 32))
    for name in (metrics.ENTROPY, metrics.PPO_KL, metrics.GRAD_NORM, accuracy):
        assert shown.search(name), name
    for name in (metrics.ENTROPY_LOSS, metrics.LOSS, metrics.TIME_STEP, "val-aux/table_walk/n"):
        assert not shown.search(name), name


def test_an_older_experiment_gets_the_view_and_a_users_own_is_left_alone(
    store: RunStore, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(uri(tmp_path))
    number = client.create_experiment("demo")
    mirror_sweep(store, "demo", uri(tmp_path))
    assert stored(uri(tmp_path)) == [saved_view(store.manifest("demo"))]
    client.set_experiment_tag(number, VIEW_TAG, "mine")
    mirror_sweep(store, "demo", uri(tmp_path))
    assert stored(uri(tmp_path)) == ["mine"]


def test_a_sweep_of_many_arms_still_fits_into_a_tag() -> None:
    trials = [{"trial_id": f"t{i}", "arm": f"CE-GPPO({i}, 1)", "seed": 1} for i in range(400)]
    view = saved_view({**manifest("demo"), "trials": trials})
    assert len(view) <= VIEW_LIMIT
    assert state(view)["groupBy"] == state(saved_view(manifest("demo")))["groupBy"]
