"""Held-out evaluation: each verdict belongs to its problem and sample."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from cegppo_lab import evaluation
from cegppo_lab.compose import resolve
from cegppo_lab.errors import LabError
from cegppo_lab.evaluation import BenchmarkSet, ProblemSet, evaluate, evaluated
from cegppo_lab.streams import uniforms
from cegppo_lab.tasks import Problem, Task
from cegppo_lab.trainers.embedded.trainer import EmbeddedTrainer
from cegppo_lab.trainers.verl.overrides import verl_overrides
from cegppo_lab.trainers.verl.trainer import planned_places

VERL = {"trainer": "verl", "task": "chain", "model": "chain", "task.terms": 5}
PLACES = planned_places(Path("/runs/t/verl"), Path("/runs/t/checkpoints"), "a/model")
TASKS = "+reward.custom_reward_function.reward_kwargs.tasks"


class Echo(Task):
    """A response is right when it repeats the prompt."""

    name = "echo"
    version = 1

    @property
    def max_response_tokens(self) -> int:
        return 3

    def sample(self, count: int, rng: np.random.Generator) -> list[Problem]:
        raise AssertionError("an evaluation uses held-out problems only")

    def heldout(self) -> list[Problem]:
        return [Problem(f"echo/{text}", text, text) for text in "abc"]

    def reward(self, problem: Problem, response: str) -> float:
        return float(response == problem.answer)


class Parrot:
    """Repeats the prompt in the samples that ``right`` names, by prompt."""

    def __init__(self, right: dict[str, set[int]]) -> None:
        self.right, self.calls = right, []

    def generate(self, prompts: list[str], **options: Any) -> SimpleNamespace:
        self.calls.append(options)
        return SimpleNamespace(
            texts=[
                prompt if sample in self.right[prompt] else "?"
                for prompt in prompts
                for sample in range(options["repeats"])
            ]
        )


OWN = ProblemSet("echo", Echo(), Echo().heldout(), 3)
BENCHMARK = BenchmarkSet("said", Echo(), [Problem(f"said/{c}", c, c) for c in "abc"], 5)


def _evaluate(policy: Parrot, problems: ProblemSet = OWN, **changes: int) -> Any:
    options = {"step": 8, "seed": 1, "samples": 2, "temperature": 0.6} | changes
    return evaluate(policy, problems, **options)


def _nothing() -> Parrot:
    return Parrot({"a": set(), "b": set(), "c": set()})


def test_each_verdict_is_kept_with_its_problem_and_sample() -> None:
    policy = Parrot({"a": {0}, "b": set(), "c": {0, 1}})
    record = _evaluate(policy)
    rows = list(zip(record.problem, record.sample, record.correct, strict=True))
    assert rows == [
        ("echo/a", 0, 1.0),
        ("echo/a", 1, 0.0),
        ("echo/b", 0, 0.0),
        ("echo/b", 1, 0.0),
        ("echo/c", 0, 1.0),
        ("echo/c", 1, 1.0),
    ]
    assert (record.step, record.benchmark) == (8, "echo")
    assert policy.calls[0]["temperature"] == 0.6
    assert policy.calls[0]["max_new_tokens"] == 3


def test_the_randomness_depends_on_seed_and_step_only() -> None:
    policy = _nothing()
    for changes in ({}, {}, {"seed": 2}, {"step": 16}):
        _evaluate(policy, **changes)
    first, again, seed, step = (call["uniforms"].tolist() for call in policy.calls)
    assert first == again
    assert first != seed != step != first


def test_the_numbers_of_the_tasks_own_evaluation_are_as_ever() -> None:
    policy = _nothing()
    _evaluate(policy)
    assert torch.equal(policy.calls[0]["uniforms"], uniforms(6, 3, 1, "eval", "echo", 8))


@pytest.mark.parametrize("numbers", [1, 10, 20, 1000])
def test_a_benchmarks_numbers_do_not_depend_on_how_many_are_held(
    numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each problem has a stream of its own."""
    monkeypatch.setattr(evaluation, "RANDOM_NUMBERS", numbers)
    policy = Parrot({"a": {1}, "b": set(), "c": {0, 1}})
    record = _evaluate(policy, BENCHMARK)
    assert len(policy.calls) == {1: 3, 10: 3, 20: 2, 1000: 1}[numbers]
    assert {call["max_new_tokens"] for call in policy.calls} == {5}
    noise = torch.cat([call["uniforms"] for call in policy.calls])
    wanted = [uniforms(2, 5, 1, "eval", f"said/{c}", 8) for c in "abc"]
    assert torch.equal(noise, torch.cat(wanted))
    assert len(set(noise.flatten().tolist())) == 30
    assert record.benchmark == "said"
    assert record.problem == [f"said/{c}" for c in "aabbcc"]
    assert record.sample == [0, 1] * 3
    assert record.correct == [0.0, 1.0, 0.0, 0.0, 1.0, 1.0]


def _definition(path: Path, **keys: Any) -> str:
    """A benchmark of eight sums; keys are those of its file."""
    told = {"title": "Sums", "source": "here", "count": 64, "max_tokens": 9} | keys
    lines = [f"{key}: {value}" for key, value in told.items()]
    path.write_text("\n".join([*lines, "task: {name: chain}"]))
    return str(path)


def test_without_benchmarks_it_is_the_tasks_own_problems() -> None:
    config = resolve({})
    (own,) = evaluated(config)
    assert (own.name, own.max_tokens) == ("table_walk", config.task.max_response_tokens)
    assert list(own.problems) == config.task.heldout()


def test_a_run_is_evaluated_on_its_benchmarks(tmp_path: Path, tiny: dict[str, Any]) -> None:
    """By the embedded trainer: a record each, and training is as without them."""
    files = [_definition(tmp_path / f"{name}.yaml") for name in ("sums", "more")]
    settings = {**tiny, "trainer.steps": 1, "task": "chain", "model": "chain"}
    config = resolve({**settings, "benchmarks": files})
    EmbeddedTrainer().check(config)
    records = list(EmbeddedTrainer().run(config, tmp_path / "a"))
    for record in records:
        assert [each.benchmark for each in record.evals] == ["sums", "more"]
        for each in record.evals:
            assert len(each.problem) == 64 * 2
            assert all(problem.startswith(f"{each.benchmark}/") for problem in each.problem)
    own = list(EmbeddedTrainer().run(resolve(settings), tmp_path / "b"))
    assert [each.benchmark for each in own[-1].evals] == ["chain"]
    assert own[-1].metrics["actor/entropy"] == records[-1].metrics["actor/entropy"]


def test_two_sets_of_problems_have_two_names(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    same = [_definition(tmp_path / "sums.yaml"), _definition(tmp_path / "other/sums.yaml")]
    with pytest.raises(LabError, match="two of them are named 'sums'"):
        evaluated(resolve({"benchmarks": same}))


def test_a_benchmark_may_be_named_as_the_task() -> None:
    """As those of the embedded tasks are."""
    config = resolve({"task": "chain", "model": "chain", "task.terms": 5, "benchmarks": ["chain"]})
    (found,) = evaluated(config)
    assert (found.name, found.task.terms) == ("chain", 6)
    tasks = verl_overrides(resolve({**VERL, "benchmarks": ["chain"]}), PLACES, 0, 1)[TASKS]
    assert {source: task["terms"] for source, task in tasks.items()} == {"Training": 5, "chain": 6}


def test_missing_problems_are_told_before_training_starts(tmp_path: Path) -> None:
    config = resolve({"benchmarks": [_definition(tmp_path / "sums.yaml", count=3)]})
    with pytest.raises(LabError, match="'sums' must have 3 problems, not 64"):
        EmbeddedTrainer().check(config)
