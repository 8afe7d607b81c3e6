"""Our configuration as verl's: composed, typed and checked by verl's own code."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.config import ActorConfig

from cegppo_lab.algorithms import algorithm_names, make_algorithm
from cegppo_lab.benchmark import load_benchmark
from cegppo_lab.compose import resolve
from cegppo_lab.config import RunConfig
from cegppo_lab.errors import LabError
from cegppo_lab.resources import shipped
from cegppo_lab.trainers.verl import version
from cegppo_lab.trainers.verl.compose import compose_job, words
from cegppo_lab.trainers.verl.cpu import CPU_OVERRIDES
from cegppo_lab.trainers.verl.loss import LOSS_MODE, TARGET, LabPolicyLoss
from cegppo_lab.trainers.verl.overrides import LOSS_MODE as NAMED_MODE
from cegppo_lab.trainers.verl.overrides import LOSS_TARGET, changed_by_cpu, verl_overrides
from cegppo_lab.trainers.verl.trainer import planned_places, resolved_job

GIVEN = [
    name
    for name in algorithm_names()
    if not make_algorithm(name).needs and not make_algorithm(name).initial_state()
]
"""The algorithms that need nothing which verl does not give to a loss."""
PLACES = planned_places(Path("/runs/t/verl"), Path("/runs/t/checkpoints"), "a/model")
GPUS = {"trainer": "verl", "runtime.device": "cuda", "runtime.gpus": 8}
STRINGS = [
    *("a b", "it's", 'say "x"', "a\\b", "a\\'b", "end\\", "\\\\", "'", "\\", "''", ""),
    *("{a:b}", "[x,y]", "a,b=c", "$HOME", "$x^2$", "x:y", "1,2", "a#b", "%(x)s", "~/x", " "),
    *("null", "true", "1e3", "007", "line\nbreak", "tab\t", "naïve 中", "\\boxed{}"),
]


def run(**values: Any) -> RunConfig:
    """A run on eight GPUs; ``a__b`` stands for ``a.b``."""
    return resolve({**GPUS, **{key.replace("__", "."): value for key, value in values.items()}})


def job(config: RunConfig) -> DictConfig:
    """verl's whole config for ``config``."""
    return compose_job(verl_overrides(config, PLACES, 0, config.trainer.steps))


def actor(config: RunConfig) -> ActorConfig:
    """The actor's config as verl's workers build it."""
    return omega_conf_to_dataclass(job(config).actor_rollout_ref.actor)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("name", GIVEN)
def test_verl_builds_each_algorithm_from_its_own_config(name: str, device: str) -> None:
    gpus = {"cpu": 0, "cuda": 8}[device]
    config = run(algorithm=name, runtime__device=device, runtime__gpus=gpus)
    built = actor(config)
    assert isinstance(built.policy_loss, LabPolicyLoss)
    wanted = config.algorithm.model_copy(update={"dynamic_sampling": False})
    assert built.policy_loss.resolved == wanted
    assert built.loss_agg_mode == config.algorithm.aggregation


def test_the_names_of_the_loss_are_the_registered_ones() -> None:
    assert (NAMED_MODE, LOSS_TARGET) == (LOSS_MODE, TARGET)


def test_each_algorithm_aggregates_as_its_paper() -> None:
    modes = {name: actor(run(algorithm=name)).loss_agg_mode for name in GIVEN}
    assert {modes.pop(name) for name in ("gspo", "gmpo", "sapo")} == {"seq-mean-token-mean"}
    assert modes.pop("dr_grpo") == "seq-mean-token-sum"
    assert set(modes.values()) == {"token-mean"}


def test_verl_does_not_divide_dr_grpos_advantages_by_the_deviation() -> None:
    divides = {name: job(run(algorithm=name)).algorithm for name in ("grpo", "dr_grpo")}
    assert divides["grpo"].norm_adv_by_std_in_grpo is True
    assert divides["dr_grpo"].norm_adv_by_std_in_grpo is False


def test_the_entropy_bonus_is_verls() -> None:
    built = actor(run(algorithm="grpo", algorithm__entropy_coef=0.003))
    assert built.entropy_coeff == 0.003
    assert built.policy_loss.resolved.entropy_coef == 0
    assert actor(run(algorithm="grpo")).entropy_coeff == 0


@pytest.mark.parametrize(
    ("estimator", "verls"), [("k1", "kl"), ("k2", "mse"), ("k3", "low_var_kl")]
)
def test_the_pull_to_the_reference_is_verls(estimator: str, verls: str) -> None:
    built = actor(run(algorithm__kl_coef=0.01, algorithm__kl_estimator=estimator))
    assert (built.use_kl_loss, built.kl_loss_coef, built.kl_loss_type) == (True, 0.01, verls)
    assert built.policy_loss.resolved.kl_coef == 0
    whole = job(run())
    assert not whole.actor_rollout_ref.actor.use_kl_loss
    assert not whole.algorithm.use_kl_in_reward


@pytest.mark.parametrize(
    ("algorithm", "filter_groups", "filtered"),
    [("dapo", False, True), ("grpo", False, False), ("grpo", True, True), ("dapo", True, True)],
)
def test_groups_are_filtered_on_the_reward(
    algorithm: str, filter_groups: bool, filtered: bool
) -> None:
    config = job(run(algorithm=algorithm, trainer__filter_groups=filter_groups))
    assert config.algorithm.filter_groups.enable is filtered
    assert config.algorithm.filter_groups.metric == "reward"


def test_coefficients_are_those_in_force_at_the_step() -> None:
    config = run(algorithm__beta1={0: 0.0, 585: 0.5}, algorithm__entropy_coef={0: 0.1, 700: 0.0})
    seen = []
    for step in (0, 584, 585, 700):
        composed = compose_job(verl_overrides(config, PLACES, step, 1000))
        section = composed.actor_rollout_ref.actor
        seen.append((section.policy_loss.options.beta1, section.entropy_coeff))
    assert seen == [(0.0, 0.1), (0.0, 0.1), (0.5, 0.1), (0.5, 0.0)]


def test_the_task_reaches_the_reward_as_it_is() -> None:
    """A prompt template has braces, backslashes and line breaks."""
    config = run(task="klear_math", model="table_walk")
    kwargs = job(config).reward.custom_reward_function.reward_kwargs
    assert set(kwargs.tasks) == {"Training", "math"}
    task = OmegaConf.to_container(kwargs.tasks.math, resolve=True)
    stated = yaml.safe_load((shipped("conf") / "task/klear_math.yaml").read_text())
    assert "\\boxed{}" in stated["prompt_template"]
    assert kwargs.tasks.Training == kwargs.tasks.math
    assert task == {**task, **stated}
    assert task.keys() == {"name", *type(config.task).model_fields}


def test_each_benchmark_brings_its_own_task_and_is_not_read() -> None:
    config = run(task="klear_math", model="table_walk", benchmarks=["aime24", "math500"])
    tasks = job(config).reward.custom_reward_function.reward_kwargs.tasks
    assert {source: task.path for source, task in tasks.items()} == {
        "Training": "Kwai-Klear/KlearReasoner-MathSub-30K",
        "aime24": "HuggingFaceH4/aime_2024",
        "math500": "HuggingFaceH4/MATH-500",
    }
    assert tasks.aime24.prompt_template == load_benchmark("aime24").task.prompt_template


@pytest.mark.parametrize("text", STRINGS)
def test_words_survive_hydras_grammar(text: str) -> None:
    values = {"+text": text, "+many": [text, 1, [text]], "+deep": {"a": {"b": text, "c": None}}}
    parsed = OverridesParser.create().parse_overrides(words(values))
    assert [override.key_or_group for override in parsed] == ["text", "many", "deep"]
    composed = _composed(words(values))
    assert OmegaConf.to_container(composed, resolve=True) == {
        key.lstrip("+"): value for key, value in values.items()
    }


@pytest.mark.parametrize("value", [None, True, False, 0, -3, 1e-06, 0.28, 1e12, [], {}, [1, 0.5]])
def test_plain_values_keep_their_type(value: Any) -> None:
    found = OmegaConf.to_container(_composed(words({"+x": value})))["x"]
    assert (found, type(found)) == (value, type(value))


def _composed(overrides: list[str]) -> DictConfig:
    """``overrides`` over an empty config, as Hydra applies them."""
    with initialize_config_dir(str(shipped("conf")), version_base=None):
        return compose(overrides=overrides)


def test_paths_of_any_name_arrive(tmp_path: Path) -> None:
    folder = tmp_path / "it's a=b, {c}" / "[d]"
    places = planned_places(folder, folder / "checkpoints", str(folder / "model"))
    composed = compose_job(verl_overrides(run(), places, 0, 1))
    assert composed.data.train_files == str(places.prompts.train)
    assert composed.trainer.default_local_dir == str(places.checkpoints)
    assert composed.actor_rollout_ref.model.path == places.model


MISTAKES: list[tuple[dict[str, Any], str]] = [
    (
        {"trainer.layout.overrides": {"actor_rollout_ref.rollout.max_num_seq": 4}},
        "Could not override 'actor_rollout_ref.rollout.max_num_seq'",
    ),
    ({"trainer.layout.overrides": {"trainer.nnodes": "${nowhere}"}}, "'nowhere' not found"),
    ({"trainer.layout.overrides": {"algorithm.adv_estimator": "gae"}}, "verl refuses the job"),
    (
        {"trainer.layout.sequence_parallel": 3},
        "trainer.layout.sequence_parallel=3 does not divide the 8 GPUs of a trial",
    ),
    (
        {"trainer.layout.tensor_parallel": 16},
        "trainer.layout.tensor_parallel=16 does not divide the 8 GPUs of a trial",
    ),
    (
        {"runtime.gpus": 6, "trainer.layout.sequence_parallel": 1, "trainer.rollout_n": 2},
        "a mini-batch has 32 responses (16 prompts x trainer.rollout_n=2), which 6 data-parallel",
    ),
    (
        {"runtime.nodes": 3, "trainer.layout.sequence_parallel": 1},
        "which 24 data-parallel ranks cannot share",
    ),
]


@pytest.mark.parametrize(("values", "told"), MISTAKES, ids=lambda value: str(value)[:50])
def test_mistakes_are_one_line_before_launch(values: dict[str, Any], told: str) -> None:
    with pytest.raises(LabError) as failure:
        resolved_job(resolve({**GPUS, **values}), Path("runs/t"))
    assert told in str(failure.value)
    assert "\n" not in str(failure.value)


def test_an_uneven_split_into_mini_batches_is_refused_by_the_schema() -> None:
    with pytest.raises(LabError, match="train_batch_size=128 cannot be split into mini_batches=7"):
        resolve({**GPUS, "trainer.mini_batches": 7})


def _other(_: str) -> str:
    return "0.8.0"


def _missing(name: str) -> str:
    raise PackageNotFoundError(name)


@pytest.mark.parametrize(
    ("found", "told"), [(_other, "needs verl 0.9.1, not 0.8.0"), (_missing, "needs verl 0.9.1;")]
)
def test_another_verl_or_none_is_one_line(
    found: Callable[[str], str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(version, "version", found)
    with pytest.raises(LabError) as failure:
        resolved_job(run(), Path("runs/t"))
    assert told in str(failure.value)
    assert "pip install verl==0.9.1" in str(failure.value)
    assert "\n" not in str(failure.value)


def test_the_list_of_what_a_cpu_changes_is_complete() -> None:
    """Of the same run, the config for a CPU and the one for GPUs differ in the listed keys only."""
    layout = {"sequence_parallel": 1, "tensor_parallel": 1}
    sizes = {f"trainer__layout__{key}": value for key, value in layout.items()}
    before, after = (
        verl_overrides(run(runtime__device=device, runtime__gpus=1, **sizes), PLACES, 0, 9)
        for device in ("cuda", "cpu")
    )
    assert {key for key in after if before.get(key) != after[key]} == set(changed_by_cpu(before))
    assert set(changed_by_cpu(before)) <= set(CPU_OVERRIDES)
    assert all(reason for *_, reason in changed_by_cpu(before).values())
