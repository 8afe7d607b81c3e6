"""Configuration: conf/ agrees with the schema, mistakes are told, equal runs have equal ids."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file, save_file

from cegppo_lab.algorithms import algorithm_class, algorithm_names, make_algorithm
from cegppo_lab.compose import config_groups, parse_overrides, resolve
from cegppo_lab.config import ModelConfig, RunConfig, RuntimeConfig, parse_run
from cegppo_lab.errors import LabError
from cegppo_lab.models import local_folder
from cegppo_lab.resources import shipped
from cegppo_lab.tasks import make_task, task_names
from cegppo_lab.trainer_config import TRAINERS, VerlLayout
from cegppo_lab.trial import make_trial


def _conf(name: str) -> dict[str, Any]:
    return yaml.safe_load((shipped("conf") / f"{name}.yaml").read_text())


def _id(*words: str, **changes: Any) -> str:
    return make_trial(resolve({**parse_overrides(words), **changes})).trial_id


def test_every_algorithm_and_task_has_its_file() -> None:
    groups = config_groups()
    assert groups["algorithm"] == algorithm_names()
    assert {_conf(f"task/{file}")["name"] for file in groups["task"]} == set(task_names())
    assert set(task_names()) <= set(groups["task"])


@pytest.mark.parametrize("name", algorithm_names())
def test_an_algorithm_file_lists_every_key_with_its_default(name: str) -> None:
    values = _conf(f"algorithm/{name}")
    assert set(values) == {"name", *algorithm_class(name).model_fields}
    written, default = make_algorithm(**values).model_dump(), make_algorithm(name).model_dump()
    assert {key for key in default if written[key] != default[key]} <= {"dual_clip"}
    assert written.get("dual_clip", 10.0) == 10.0  # what the released scripts set


@pytest.mark.parametrize("name", task_names())
def test_a_task_file_lists_every_key_with_its_default(name: str) -> None:
    values, task = _conf(f"task/{name}"), make_task(name)
    assert set(values) == {"name", *type(task).model_fields}
    assert make_task(**values) == task


def test_the_other_files_list_every_key() -> None:
    run = _conf("run")
    assert set(run) == {"defaults", "seed", "benchmarks", "runtime"}
    assert set(run["runtime"]) == set(RuntimeConfig.model_fields)
    chosen = {key for entry in run["defaults"] if isinstance(entry, dict) for key in entry}
    assert (
        chosen
        == set(config_groups())
        == set(RunConfig.model_fields) - {"seed", "runtime", "benchmarks"}
    )
    schemas = {("trainer", name): schema for name, schema in TRAINERS.items()}
    schemas |= {("model", name): ModelConfig for name in config_groups()["model"]}
    assert set(config_groups()["trainer"]) == set(TRAINERS)
    for (group, name), schema in schemas.items():
        values = _conf(f"{group}/{name}")
        assert values["name"] == name
        assert set(values) == set(schema.model_fields)
    assert set(_conf("trainer/verl")["layout"]) == set(VerlLayout.model_fields)


@pytest.mark.parametrize("task", config_groups()["task"])
@pytest.mark.parametrize("algorithm", algorithm_names())
def test_a_run_survives_the_way_to_another_process(algorithm: str, task: str) -> None:
    values = {"algorithm": algorithm, "task": task, "algorithm.clip_low": {0: 0.1, 5: 0.2}}
    run = resolve({**values, "model": "table_walk", "runtime.store": "elsewhere"})
    assert (run.algorithm.name, run.task.name) == (algorithm, _conf(f"task/{task}")["name"])
    again = parse_run(json.loads(json.dumps(run.tree())))
    assert again == run
    if task != "math":  # which names no data of its own
        assert make_trial(again).trial_id == make_trial(run).trial_id


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("trainer.stps=3", r"unknown key of trainer 'stps'. Did you mean 'steps'"),
        ("trainr.steps=3", r"unknown key 'trainr'. Did you mean 'trainer'"),
        ("algorithm=grop", r"unknown algorithm 'grop'. Did you mean 'grpo'"),
        ("task=chian", r"unknown task 'chian'. Did you mean 'chain'"),
        ("trainer=embeded", r"unknown trainer 'embeded'. Did you mean 'embedded'"),
        ("algorithm.clip_lo=0.1", r"unknown key of algorithm 'clip_lo'. Did you mean 'clip_low'"),
        ("runtime.stor=x", r"unknown key of runtime 'stor'. Did you mean 'store'"),
        ("task.top_probability.0=0.5", r"unknown key of task.top_probability '0'"),
        ("runtime=x", r"runtime is a group; set one of its keys"),
        ("algorithm=[grpo]", r"unknown algorithm"),
        ("algorithm.name=5", r"algorithm.name is missing"),
        ("trainer.steps=many", r"trainer.steps='many': .*integer"),
        ("trainer.steps=2.5", r"trainer.steps=2.5: .*integer"),
        ("trainer.steps=0", r"trainer.steps=0: .*1"),
        ("trainer.steps=true", r"trainer.steps=True: must be a number"),
        ("task.steps=true", r"task.steps=True: must be a number"),
        ("trainer.rollout_n=1", r"trainer.rollout_n=1: .*2"),
        ("trainer.lr=inf", r"trainer.lr=inf: .*finite"),
        ("trainer.lr=nan", r"trainer.lr=nan"),
        ("trainer.lr=null", r"trainer.lr=None"),
        ("trainer.filter_groups=maybe", r"trainer.filter_groups='maybe'"),
        ("model.dtype=float16", r"model.dtype='float16': .*'float32'"),
        ("algorithm.beta1=-1", r"algorithm.beta1=-1: must be >= 0"),
        ("algorithm.beta1={5:0.5}", r"a schedule needs its value at step 0"),
        ("algorithm.dual_clip=1", r"algorithm.dual_clip=1: must be > 1"),
        ("algorithm.aggregation=token_mean", r"algorithm.aggregation='token_mean': .*'token-mean'"),
        ("task.steps=0", r"steps=0: .*1"),
        ("seed=-1", r"seed=-1"),
        ("seed=1.5", r"seed=1.5"),
        ("+trainer.steps=3", r"only key=value is allowed"),
        ("~trainer.steps", r"only key=value is allowed"),
        ("trainer@here=embedded", r"only key=value is allowed"),
        ("trainer.steps=1,2", r"is a Hydra sweep; put the values under grid:"),
        ("trainer.steps=range(1,3)", r"is a Hydra sweep"),
        ("trainer.steps", r"'trainer.steps' is not key=value"),
        ("trainer..steps=5", r"is not key=value"),
        ("trainer.steps='5", r"is not key=value"),
        ("", r"'' is not key=value"),
    ],
)
def test_a_mistake_in_a_word_is_told_in_one_line(word: str, told: str) -> None:
    with pytest.raises(LabError, match=told) as caught:
        resolve(parse_overrides([word]))
    assert "\n" not in str(caught.value)


def test_a_word_may_be_a_schedule() -> None:
    run = resolve(parse_overrides(["algorithm.beta1={0:0.0,585:0.5}"]))
    assert run.algorithm.at(584).beta1 == 0.0
    assert run.algorithm.at(585).beta1 == 0.5


def test_words_select_files_and_set_keys_in_any_order() -> None:
    for words in (
        ["algorithm.clip_high=0.5", "algorithm=dapo", "task=chain"],
        ["task=chain", "algorithm=dapo", "algorithm.clip_high=0.3", "algorithm.clip_high=0.5"],
    ):
        run = resolve(parse_overrides(words))
        assert (run.algorithm.name, run.algorithm.clip_high) == ("dapo", 0.5)
        assert run.algorithm.clip_low == 0.2
        assert run.task == make_task("chain")


def test_one_resolved_run_does_not_leak_into_the_next() -> None:
    before = resolve({}).tree()
    resolve({"trainer.steps": 3, "task.top_probability": [0.5]})
    assert resolve({}).tree() == before


@pytest.mark.parametrize(
    "same",
    [
        ["runtime.store=elsewhere", "runtime.report=r", "runtime.mlflow='http://host:5000'"],
        ["runtime.device=auto", "runtime.threads=4", "runtime.gpus=0.5"],
        ["runtime.micro_batch_size=3", "runtime.chunk_tokens=10", "runtime.checkpoint_every=1"],
        ["model.name=another"],
        ["algorithm.beta1='0.75'"],
        ["algorithm.beta1=.75"],
        ["algorithm.beta1={0:0.75}"],
        ["algorithm.beta1={0:0.75,100:0.75}"],
        ["trainer.lr=0.00004"],
        ["model.head_scale=40"],
    ],
)
def test_what_no_number_depends_on_leaves_the_trial_id(same: list[str]) -> None:
    assert _id(*same) == _id()


def test_schedules_in_other_spellings_are_one_trial() -> None:
    words = ["{0:0.0,32:0.5}", "{32:.5,0:0}", "{0:0,32:'0.5'}", "{0:0.0,8:0.0,32:0.5}"]
    from_words = {_id(f"algorithm.beta1={word}") for word in words}
    assert from_words == {_id(**{"algorithm.beta1": {"0": "0", "32": 0.5}})}


def test_every_key_that_numbers_depend_on_enters_the_trial_id() -> None:
    changed = [
        ["seed=1"],
        ["algorithm=gppo"],
        ["algorithm.beta1=0.5"],
        ["algorithm.beta1={0:0.75,32:0.5}"],
        ["algorithm.beta1={0:0.75,33:0.5}"],
        ["algorithm.dual_clip=null"],
        ["trainer.steps=65"],
        ["trainer.mini_batches=4"],
        ["trainer.filter_groups=false"],
        ["trainer.eval_every=4"],
        ["task.table_seed=8"],
        ["task.steps=5"],
        ["task=chain"],
        ["model.head_scale=20"],
        ["model.dtype=bfloat16"],
        ["model=chain", "model.head_scale=40"],
    ]
    ids = [_id(), *(_id(*words) for words in changed)]
    assert len(set(ids)) == len(ids)


def test_the_version_of_a_task_enters_the_trial_id() -> None:
    run = resolve({})

    class Newer(type(run.task)):
        version = run.task.version + 1

    newer = run.model_copy(update={"task": Newer(**run.task.model_dump())})
    assert make_trial(newer).trial_id != make_trial(run).trial_id


def test_weights_enter_the_trial_id_by_content_not_by_path(tmp_path: Path) -> None:
    copy, other = tmp_path / "copy", tmp_path / "other"
    for folder in (copy, other):
        shutil.copytree(local_folder("table_walk"), folder)
    weights = load_file(other / "model.safetensors")
    weights["model.norm.weight"][0] += 1e-3
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    assert _id(**{"model.path": str(copy)}) == _id()
    assert _id(**{"model.path": str(other)}) != _id()


def test_a_model_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"nowhere.*table_walk"):
        _id(**{"model.path": "nowhere"})
    with pytest.raises(LabError, match=str(tmp_path)):
        _id(**{"model.path": str(tmp_path)})


def test_an_arm_name_is_not_part_of_the_trial_id() -> None:
    assert make_trial(resolve({}), "one").trial_id == make_trial(resolve({}), "two").trial_id


def test_a_trial_id_is_the_same_in_every_process() -> None:
    code = (
        "from cegppo_lab.compose import resolve; from cegppo_lab.trial import make_trial;"
        "print(make_trial(resolve({'seed': 3, 'algorithm': 'dapo'})).trial_id)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == _id("seed=3", "algorithm=dapo")
