"""Where a sweep runs, what its trials need there, and nodes that could not run them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from ray.exceptions import ActorDiedError, ActorUnavailableError

from cegppo_lab.errors import LabError
from cegppo_lab.store import RunStore
from cegppo_lab.sweep import cluster as module
from cegppo_lab.sweep import nodes as nodes_module
from cegppo_lab.sweep.cluster import Cluster, ClusterSpec, _copy_code, cluster, joining
from cegppo_lab.sweep.follow import LOST_NODES, Follower, id_of
from cegppo_lab.sweep.nodes import Node, alive_nodes, concurrency, described, needs, probe_nodes
from cegppo_lab.sweep.plan import make_plan
from cegppo_lab.sweep.worker import TuneTrial, message
from cegppo_lab.validation import validated

DOCS = Path(__file__).parents[2] / "docs/clusters"


def _spec(**values: object) -> ClusterSpec:
    return validated(ClusterSpec, values, "cluster")


def test_the_cluster_is_a_section_of_the_sweep_and_no_part_of_ids() -> None:
    plain = make_plan("quickstart", ["seeds=[1]"])
    words = ["seeds=[1]", "cluster.address=127.0.0.1:6379", "runtime.resources={h100:1}"]
    there = make_plan("quickstart", words)
    assert there.spec.cluster.resolved() == "127.0.0.1:6379"
    assert [t.trial_id for t in there.trials] == [t.trial_id for t in plain.trials]


@pytest.mark.parametrize(("variable", "address"), [(None, "local"), ("h:1", "h:1"), ("", "local")])
def test_ray_address_is_the_default(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, address: str
) -> None:
    if variable is not None:
        monkeypatch.setenv("RAY_ADDRESS", variable)
    assert _spec().resolved() == address
    assert _spec(address="auto").resolved() == "auto"


@pytest.mark.parametrize("address", ["ray://head:10001", "head", "http://head:8265", "", ":6379"])
def test_what_cannot_be_joined_is_refused(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    told = r"ray job submit --address http://head:8265" if "ray:" in address else "HOST:PORT"
    with pytest.raises(LabError, match=told):
        _spec(address=address)
    if address:
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(LabError, match="RAY_ADDRESS"):
            _spec().resolved()


def test_an_address_where_no_cluster_is() -> None:
    with pytest.raises(LabError, match=r"type ray start --head here"), joining("auto"):
        raise ConnectionError("Could not find any running Ray instance.")  # as Ray says it
    there = cluster(_spec(address="127.0.0.1:1"))
    with pytest.raises(LabError, match=r"ray start --address=127.0.0.1:1"), there:
        pass


def test_a_store_that_is_no_folder_is_refused() -> None:
    with pytest.raises(LabError, match="export and import"):
        make_plan("quickstart", ["runtime.store=s3://bucket/runs"])


def test_custom_resources_are_not_ray_s_own() -> None:
    with pytest.raises(LabError, match=r"runtime.gpus instead"):
        make_plan("quickstart", ["runtime.resources={GPU:1}"])


NODES = [Node("a", "big", {"CPU": 8, "h100": 2}), Node("b", "small", {"CPU": 3})]


def test_trials_are_counted_by_what_single_nodes_hold() -> None:
    def count(*words: str, trials: int = 12) -> int:
        plan = make_plan("quickstart", list(words))
        return concurrency([t.config.runtime for t in plan.trials][:trials], NODES)

    assert count() == 11
    assert count("runtime.cpus=2") == 5  # not 11 // 2 + something from both nodes
    assert count("runtime.cpus=3") == 3
    assert count("runtime.resources={h100:1}") == 2
    assert count("runtime.cpus=100") == 1
    assert count("runtime.nodes=2") == 1
    assert count(trials=4) == 4


def test_each_arm_has_resources_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "question: q\nbase: {task: chain, model: chain}\nseeds: [1]\narms:\n"
        "  A: {algorithm: grpo}\n"
        "  B: {algorithm: dapo, runtime.gpus: 0.5, runtime.resources: {h100: 1}}\n"
    )
    found = {t.arm: needs(t.config.runtime) for t in make_plan(str(path)).trials}
    assert found == {"A": {"CPU": 1}, "B": {"CPU": 1, "GPU": 0.5, "h100": 1}}


def test_a_trial_that_no_node_can_hold_is_refused_unless_the_user_waits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "alive_nodes", lambda: NODES)
    plan, store = make_plan("quickstart", ["runtime.cpus=9"]), RunStore(tmp_path)
    held = Cluster("local", False, waits=False)
    with pytest.raises(LabError, match=r"needs 9 CPU .*big: 8 CPU, 2 h100.*cluster.wait=true"):
        held.check(store, plan.trials)
    replace(held, waits=True).check(store, plan.trials)


def test_the_store_is_probed_from_every_node(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = described()

    def answers(*told: dict[str, object] | Exception) -> None:
        def ask(look: Callable[..., object], calls: dict[str, tuple], _: float) -> list[object]:
            assert list(calls) == [node.id for node in NODES]
            return [look(*calls["a"]), *told]

        monkeypatch.setattr(nodes_module, "ask", ask)
        monkeypatch.setattr(nodes_module, "_VISIBLE_S", 0.2)

    for told, line in [
        ({"store": "No such file", "versions": here}, "node small does not share .*No such file"),
        ({"store": "", "versions": here}, "node small does not share .*not seen here"),
        (ModuleNotFoundError("No module named 'cegppo_lab'"), "small.*cluster.ship_code=true"),
    ]:
        answers(told)
        with pytest.raises(LabError, match=line):
            probe_nodes(tmp_path, NODES)
    with pytest.raises(LabError, match="another cegppo_lab"):
        nodes_module._differences(NODES[1], here, {**here, "code": "other"})
    with pytest.raises(LabError, match="has no torch"):
        nodes_module._differences(NODES[1], here, {**here, "torch": None})
    (note,) = nodes_module._differences(NODES[1], here, {**here, "torch": "1.0"})
    assert "small has torch 1.0" in note
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_does_not_see_the_store_begins_none(tmp_path: Path) -> None:
    trial = make_plan("quickstart", ["seeds=[1]"]).trials[0]
    packed = message(RunStore(tmp_path / "runs"), trial, make_plan("quickstart").spec.stop)
    worker = TuneTrial.__new__(TuneTrial)
    worker.setup({"trial": {**packed, "entered": True}})
    told = worker.step()
    assert told["done"] is True
    assert "does not share the store" in told["reason"]
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_workers_import_the_code_that_is_sent_and_nodes_answer(tmp_path: Path) -> None:
    import ray
    from ray.cluster_utils import Cluster as Raylets

    def imported_from() -> str:  # inside, for Ray to send it by value
        from cegppo_lab import compose

        compose.resolve({})  # reads conf/
        return compose.__file__

    raylets = Raylets(initialize_head=True, head_node_args=_HEAD)
    try:
        with cluster(_spec(address=raylets.address)) as held:
            plan = make_plan("quickstart", ["seeds=[1]"])
            held.check(RunStore(tmp_path), plan.trials)
            file = ray.get(ray.remote(imported_from).remote())
            assert Path(file).resolve() != Path(module.__file__).parents[1] / "compose.py"
            assert (Path(file).parent / "_data/conf/run.yaml").is_file()
            gone = [Node("ab" * 28, "elsewhere", {}), *alive_nodes()]
            with pytest.raises(LabError, match="node elsewhere cannot run trials"):
                probe_nodes(tmp_path, gone)
    finally:
        raylets.shutdown()
    assert list(tmp_path.iterdir()) == []


_HEAD = {"num_cpus": 1, "include_dashboard": False}


def test_code_that_is_too_large_to_send(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "_MAX_SHIPPED_MB", 0.1)
    with pytest.raises(LabError, match=r"cluster.ship_code=false"):
        _copy_code(tmp_path)


def test_the_example_files_parse() -> None:
    subprocess.run(["bash", "-n", str(DOCS / "slurm.sbatch")], check=True)
    job = yaml.safe_load((DOCS / "kuberay.yaml").read_text())
    workers = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert workers[0]["template"]["spec"]["volumes"][0]["name"] == "store"
    assert "cluster.address=auto" in job["spec"]["entrypoint"]


class _Told:
    """A progress display that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def finish(self, trial_id: str, state: str, reason: str = "") -> None:
        self.lines.append((state, reason))


def _lost(store: RunStore, retries: int) -> tuple[_Told, Follower, SimpleNamespace]:
    """What is told, who follows, and Tune's trial whose node cannot be reached."""
    plan, told = make_plan("quickstart", [f"runtime.retries={retries}"]), _Told()
    ours, rules = plan.trials[0], plan.spec.stop
    follower = Follower(store, {ours.trial_id: ours}, plan.runtime, told, lambda: None, None, rules)
    trial = SimpleNamespace(
        config={"trial": message(store, ours, rules)},
        max_failures=retries,
        pickled_error_file=None,
        get_pickled_error=lambda: ActorUnavailableError("socket closed", None),
    )
    return told, follower, trial


def test_a_lost_node_costs_a_trial_no_retry_until_it_lost_many(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    told, follower, trial = _lost(store, retries=1)
    for lost in range(LOST_NODES):
        follower.on_trial_recover(0, [], trial)
        assert trial.max_failures == 2 + lost
    assert {state for state, _ in told.lines} == {"waiting"}
    assert store.run(id_of(trial)).status().state == "pending"
    follower.on_trial_recover(0, [], trial)
    assert trial.max_failures == 1 + LOST_NODES
    assert told.lines[-1][0] == "retrying"


def test_a_lost_node_without_retries_leaves_the_trial_to_the_next_round(tmp_path: Path) -> None:
    told, follower, trial = _lost(RunStore(tmp_path), retries=0)
    follower.on_trial_error(0, [], trial)
    assert follower.busy == {id_of(trial)}
    trial.get_pickled_error = lambda: ActorDiedError()
    follower.on_trial_error(0, [], trial)
    assert told.lines[-1][0] == "failed"
