"""The benchmarks of the embedded tasks: pinned, held out, and within reach of the tiny policies."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cegppo_lab.benchmark import Benchmark, load_benchmark
from cegppo_lab.tasks import make_task
from cegppo_lab.trainers.embedded.policy import Policy

FAMILIES = ["table_walk", "chain"]
NAMES = [family + kind for family in FAMILIES for kind in ("", "_ood", "_longer")]


@pytest.fixture(params=NAMES)
def benchmark(request: pytest.FixtureRequest) -> Benchmark:
    return load_benchmark(request.param)


def test_the_problems_are_the_pinned_ones(benchmark: Benchmark) -> None:
    assert benchmark.content_sha256
    assert len(benchmark.problems) == benchmark.count  # checks count and hash
    assert len({problem.id for problem in benchmark.problems}) == benchmark.count
    assert benchmark.max_tokens == benchmark.task.max_response_tokens
    assert (benchmark.samples, benchmark.temperature, benchmark.top_p) == (32, 1.0, 1.0)
    assert "ours" in benchmark.source


def test_no_problem_is_trained_on(benchmark: Benchmark) -> None:
    task = make_task(benchmark.task.name)  # what training draws from
    rng = np.random.default_rng(0)
    trained = {problem.question for problem in task.sample(50_000, rng)}
    assert trained.isdisjoint(problem.question for problem in benchmark.problems)
    if task.name == "table_walk":  # nor is any walk between the same two states
        pairs = {question[1:3] for question in trained}
        assert pairs.isdisjoint(problem.question[1:3] for problem in benchmark.problems)


def test_a_right_response_is_right(benchmark: Benchmark) -> None:
    task = benchmark.task
    certain = {"slip_rate": 0.0, "skip_rate": 0.0} if task.name == "chain" else {}
    solver = make_task(task.name, **{**task.model_dump(), **certain})
    pairs = solver.demonstrations(300, np.random.default_rng(0))
    right = [task.reward(problem, response) for problem, response in pairs]
    assert np.mean(right) == 1.0 if certain else 0.1 < np.mean(right) < 0.9
    assert all(len(response) <= 2 * task.max_response_tokens for _, response in pairs)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_shipped_policy_finds_them_ever_harder(family: str) -> None:
    policy, accuracy = Policy.load(family), {}
    for kind in ("", "_ood", "_longer"):
        benchmark = load_benchmark(family + kind)
        rows = [problem for problem in benchmark.problems for _ in range(8)]
        shape = (len(rows), benchmark.max_tokens)
        texts = policy.generate(
            [problem.prompt for problem in benchmark.problems],
            repeats=8,
            max_new_tokens=benchmark.max_tokens,
            temperature=benchmark.temperature,
            uniforms=torch.rand(shape, generator=torch.Generator().manual_seed(0)),
        ).texts
        accuracy[kind] = float(np.mean(benchmark.task.rewards(rows, texts)))
    assert 0.1 < accuracy[""] < 0.5
    assert 0.05 < accuracy["_ood"] < 0.5
    assert accuracy["_longer"] < 0.15  # a guess is right in 0.1 of the chains
