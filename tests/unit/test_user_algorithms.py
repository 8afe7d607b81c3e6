"""Algorithms from outside the package: how they are found and named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from cegppo_lab.algorithms import algorithm_names, make_algorithm, outside
from cegppo_lab.compose import resolve
from cegppo_lab.errors import LabError
from cegppo_lab.explain.weights import curves
from cegppo_lab.resources import shipped
from cegppo_lab.store import RunStore
from cegppo_lab.sweep.cluster import _copy_code
from cegppo_lab.sweep.plan import make_plan
from cegppo_lab.sweep.worker import message
from cegppo_lab.trial import make_trial
from tests.unit import housekeeping_store
from tests.unit.own_losses import PRESET, REFERENCE, TAPER, Write, lab, refused, workplace


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    yield from workplace(tmp_path, monkeypatch)


def test_a_class_is_found_by_its_place_and_takes_options(write: Write) -> None:
    write(my_losses=TAPER)
    run = resolve({"algorithm": REFERENCE, "algorithm.taper": {0: 0.5, 3: 1.0}})
    assert run.algorithm.at(0).taper == 0.5
    assert run.algorithm.title == "Taper"
    assert run.algorithm.equation == "1 where A > 0, min(ratio, taper) elsewhere."
    curve = curves({"t": run.algorithm}, [0.1, 2.0])["t"]
    assert (curve.positive, curve.negative) == ([1, 1], [pytest.approx(0.1), 0.5])
    assert "key of algorithm 'tapir'. Did you mean 'taper'" in _refused_key("algorithm.tapir")


def _refused_key(key: str) -> str:
    with pytest.raises(LabError) as error:
        resolve({"algorithm": REFERENCE, key: 1})
    return str(error.value)


def test_a_subclass_of_an_algorithm_is_not_taken_for_it(write: Write) -> None:
    write(my_losses="from cegppo_lab.algorithms.cegppo import CEGPPO\nclass Mine(CEGPPO): ...\n")
    mine = resolve({"algorithm": "my_losses:Mine"})
    assert mine.algorithm.name.startswith("my_losses:Mine@")
    assert make_trial(mine).trial_id != make_trial(resolve({"algorithm": "cegppo"})).trial_id
    assert resolve({"algorithm": "cegppo"}).algorithm.name == "cegppo"


def test_a_preset_of_ones_own_gives_a_short_name_and_values(write: Write) -> None:
    write({PRESET.format("taper"): f"name: {REFERENCE}\ntaper: 0.7\n"}, my_losses=TAPER)
    run = resolve({"algorithm": "taper", "algorithm.clip_low": 0.1})
    assert (run.algorithm.taper, run.algorithm.clip_low) == (0.7, 0.1)
    listed = lab("algorithms").splitlines()
    assert [line.split()[0] for line in listed[: len(algorithm_names())]] == algorithm_names()
    assert any(line.startswith("taper") and "min(ratio, taper)" in line for line in listed)
    assert "algorithm.taper=0.7" in lab("algorithms", "taper")
    assert "taper(taper=0.2)" in lab("explain", "taper", "taper.taper=0.2", "grpo")


def test_a_preset_may_be_of_a_shipped_algorithm(write: Write) -> None:
    write({PRESET.format("narrow"): "name: dapo\nclip_high: 0.25\n"})
    run = resolve({"algorithm": "narrow"})
    assert (run.algorithm.name, run.algorithm.clip_high) == ("dapo", 0.25)


def test_trial_ids_follow_the_source(write: Write) -> None:
    def trial_id(**contents: str) -> str:
        write(**contents)
        return make_trial(resolve({"algorithm": REFERENCE})).trial_id

    using = "from my_helpers import LIMIT\n" + TAPER
    first = trial_id(my_losses=using, my_helpers="LIMIT = 1\n", other="x = 1\n")
    assert trial_id(other="x = 2\n") == first  # not imported: not its own
    edited = trial_id(my_losses=using.replace("max=", " max="))
    assert edited != first
    assert trial_id(my_losses=using) == first
    assert trial_id(my_helpers="LIMIT = 2\n") not in (first, edited)


def test_a_package_is_followed_through_relative_imports(write: Write) -> None:
    write(
        {
            "pack/__init__.py": "",
            "pack/sub/__init__.py": "from .losses import Taper\n",
            "pack/sub/losses.py": "from ..base import LIMIT\n" + TAPER,
            "pack/base.py": "import json, cegppo_lab.metrics\nLIMIT = 1\n",
            "pack/unused.py": "",
            "cegppo_lab/metrics.py": "",  # as beside a checkout of ours
        }
    )
    algorithm = make_algorithm("pack.sub:Taper")
    assert algorithm.name.startswith("pack.sub.losses:Taper@")  # where it is defined
    (found,) = outside.loaded()
    inits = {"pack/__init__.py", "pack/sub/__init__.py"}
    assert set(found.files) == {*inits, "pack/sub/losses.py", "pack/base.py"}


def test_what_a_run_was_planned_with_is_what_it_trains_with(write: Write) -> None:
    write(my_losses=TAPER)
    planned = resolve({"algorithm": REFERENCE}).tree()["algorithm"]
    assert make_algorithm(**planned).name == planned["name"]
    write(my_losses=TAPER + "\n")
    with pytest.raises(LabError, match="source has changed since the run was planned"):
        make_algorithm(**planned)


def test_other_processes_find_it(write: Write, tmp_path: Path) -> None:
    write(my_losses=TAPER)
    trial = make_trial(resolve({"algorithm": REFERENCE}))
    packed = message(RunStore(tmp_path / "runs"), trial, make_plan("quickstart").spec.stop)
    assert packed["modules"] == [str(tmp_path)]
    name = json.dumps(packed["tree"]["algorithm"]["name"])
    shipped_to = tmp_path / "shipped"
    shipped_to.mkdir()
    _copy_code(shipped_to)
    (tmp_path / "elsewhere").mkdir()
    script = f"from cegppo_lab.algorithms import make_algorithm as m; print(m({name}).title)"
    inherited = os.environ["PYTHONPATH"].split(os.pathsep)  # what verl's processes inherit
    assert str(tmp_path) in inherited
    for paths in (inherited, [str(shipped_to)]):
        told = subprocess.run(
            [sys.executable, "-c", script],
            cwd=tmp_path / "elsewhere",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
        )
        assert told.stdout == "Taper\n", told.stderr


def test_verls_config_carries_the_name_and_makes_the_class(write: Write) -> None:
    from cegppo_lab.trainers.verl.compose import words
    from cegppo_lab.trainers.verl.loss import LabPolicyLoss
    from cegppo_lab.trainers.verl.overrides import verl_overrides
    from cegppo_lab.trainers.verl.trainer import planned_places

    write(my_losses=TAPER)
    values = {"trainer": "verl", "runtime.device": "cuda", "runtime.gpus": 8}
    config = resolve({**values, "algorithm": REFERENCE, "algorithm.taper": 0.5})
    places = planned_places(Path("/runs/t/verl"), Path("/runs/t/checkpoints"), "a/model")
    told = words(verl_overrides(config, places, 0, 1))
    parsed = {o.key_or_group: o.value() for o in OverridesParser.create().parse_overrides(told)}
    section = {key.rpartition(".")[2]: value for key, value in parsed.items() if "policy_" in key}
    loss = LabPolicyLoss(algorithm=str(section["algorithm"]), options=section["options"])
    assert loss.resolved.name == config.algorithm.name
    assert loss.resolved.taper == 0.5


def test_two_own_algorithms_are_no_confound(write: Write) -> None:
    sweep = (
        "question: q\nbase: {task: table_walk, model: table_walk}\nseeds: [1]\n"
        "arms:\n  A: {algorithm: 'my_losses:Taper'}\n  B: {algorithm: 'others:Taper'}\n"
        "  GRPO: {algorithm: grpo}\n"
    )
    write(my_losses=TAPER, others=TAPER + "\n")
    Path("mine.yaml").write_text(sweep)
    plan = make_plan("mine.yaml")
    assert plan.confounds() == []
    assert len({trial.trial_id for trial in plan.trials}) == 3


def test_in_a_checkout_the_shipped_presets_are_the_shipped_ones(write: Write) -> None:
    write({PRESET.format("dapo"): (shipped("conf") / "algorithm" / "dapo.yaml").read_text()})
    assert resolve({"algorithm": "dapo"}).algorithm.name == "dapo"
    assert "your own" not in lab("algorithms")


def _points(monkeypatch: pytest.MonkeyPatch, *points: tuple[str, str]) -> None:
    found = [EntryPoint(name, value, outside.GROUP) for name, value in points]
    asked = lambda group: found if group == outside.GROUP else []  # noqa: E731
    monkeypatch.setattr(outside.metadata, "entry_points", asked)
    outside.entry_points.cache_clear()


def test_an_installed_package_brings_an_algorithm(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(my_losses=TAPER)
    _points(monkeypatch, ("tapered", REFERENCE), ("broken", "nowhere_at_all:Loss"))
    by_name, by_place = (resolve({"algorithm": a}) for a in ("tapered", REFERENCE))
    assert by_name == by_place
    listed = lab("algorithms")
    assert "tapered  Taper" in listed
    assert "broken   error: algorithm nowhere_at_all:Loss: no module 'nowhere_at_all'" in listed
    assert "Did you mean 'tapered'" in refused("taperd")


def test_a_name_that_several_have_isrefused(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write(my_losses=TAPER)
    _points(monkeypatch, ("grpo", REFERENCE), ("twice", REFERENCE), ("twice", "others:Taper"))
    assert "'grpo' is the name of several: this package, my_losses:Taper" in refused("grpo")
    assert "'twice' is the name of several: my_losses:Taper, others:Taper" in refused("twice")
    assert resolve({"algorithm": "dapo"}).algorithm.name == "dapo"


def test_a_store_is_read_without_the_module(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write()
    named = {"name": "gone_losses:Taper@0123456789ab", "taper": 1.0, "clip_low": 0.2}
    plain = housekeeping_store.config
    monkeypatch.setattr(
        housekeeping_store, "config", lambda seed: {**plain(seed), "algorithm": named}
    )
    store = RunStore("runs")
    housekeeping_store.add_sweep(store, "s", [1])
    housekeeping_store.add_trial(store, 1, saved=[6])
    arm = {"name": "Taper", "algorithm": named["name"], "differs": {}}
    told = {"overrides": [], "arms": [arm], "notes": [], "created": 1.0, "question": "q"}
    rows = [{**row, "arm": "Taper"} for row in store.manifest("s")["trials"]]
    store.write_manifest({**store.manifest("s"), **told, "trials": rows})
    monkeypatch.setattr(outside, "_import", lambda *told: pytest.fail(f"imported: {told}"))
    assert "1 done" in lab("status")
    assert "whole" in lab("verify")
    lab("report", "s")
    assert named["name"] in Path("report/s/index.html").read_text()
