"""What a run learns from: its problems, the prompts it draws, what they share with benchmarks."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from cegppo_lab.errors import LabError

if TYPE_CHECKING:
    from cegppo_lab.config import RunConfig
    from cegppo_lab.tasks import Problem

DRAWN = 256
"""Drawn problems that are compared with benchmarks where a task's are too many to list."""
_SHOWN = 8
_EXAMPLES = 3


@click.command()
@click.argument("words", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def data(words: tuple[str, ...], as_json: bool) -> None:
    """Show the problems and prompts of a run, and their overlap with benchmarks; starts nothing.

    The benchmarks are those of benchmarks=[...], by default all whose problems are on this machine:
    for benchmarks nothing is downloaded.

    \b
    python -m cegppo_lab data task=chain
    python -m cegppo_lab data task=reasoning_gym task.dataset=countdown model=smollm2-135m
    python -m cegppo_lab data task=math task.path=train.jsonl model=table_walk benchmarks=[aime24]
    """
    from cegppo_lab.compose import parse_overrides, resolve

    if words and "=" not in words[0]:
        raise LabError(f"data takes key=value words, not {words[0]!r}, e.g. data task=chain")
    facts = describe(resolve(parse_overrides(words)))
    click.echo(json.dumps(asdict(facts), indent=1) if as_json else "\n".join(_lines(facts)))


@dataclass(frozen=True)
class Facts:
    """What the command tells, in plain values."""

    task: dict[str, Any]
    data_hash: str | None
    training: int | None
    """Training problems; None: only making them all would tell."""
    contaminated: int
    """Problems left out of training for what they share with ``task.decontaminate``."""
    heldout: int
    seed: int
    first_prompts: list[str]
    """Ids of the first step's problems, in the order in which both trainers draw them."""
    example: dict[str, str]
    """``id``, ``prompt``, ``read`` (the prompt as the model reads it) and ``note``."""
    compared: str
    """What the benchmarks were compared with."""
    overlap: list[dict[str, Any]]
    not_at_hand: dict[str, str]
    """Benchmark -> why it was not compared."""


def describe(config: RunConfig) -> Facts:
    """The facts about the data of a run.

    Raises:
        LabError: the task's data, or those of a benchmark that ``config`` names and that is on this
            machine, cannot be read.
    """
    from cegppo_lab.streams import numpy_stream

    task, size = config.task, config.trainer.train_batch_size
    data_hash = task.data_hash()
    first = task.sample(size, numpy_stream(config.seed, "prompts", 0, 0))
    compared, training = _training(config)
    overlap, not_at_hand = _overlap(config, training)
    return Facts(
        task={"name": task.name, **task.model_dump(mode="json")},
        data_hash=data_hash,
        training=task.training_count(),
        contaminated=task.contaminated(),
        heldout=len(task.heldout()),
        seed=config.seed,
        first_prompts=[problem.id for problem in first],
        example=_example(config, first[0]),
        compared=compared,
        overlap=overlap,
        not_at_hand=not_at_hand,
    )


def _training(config: RunConfig) -> tuple[str, Iterable[Problem]]:
    """The problems that benchmarks are compared with, and what they are."""
    from cegppo_lab.streams import numpy_stream

    if (listed := config.task.training()) is not None:
        return f"all {len(listed)} training problems", listed
    size = config.trainer.train_batch_size
    steps = min(config.trainer.steps, -(-DRAWN // size))
    drawn = [
        problem
        for step in range(steps)
        for problem in config.task.sample(size, numpy_stream(config.seed, "prompts", step, 0))
    ]
    return f"the first {len(drawn)} problems that seed {config.seed} draws", drawn


def _overlap(
    config: RunConfig, training: Iterable[Problem]
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The overlaps with the run's benchmarks, or with all; and those that cannot be had."""
    from cegppo_lab.benchmark import benchmark_files, load_benchmark
    from cegppo_lab.tasks.overlap import overlaps

    problems, missing = {}, {}
    for name in config.benchmarks or benchmark_files():
        try:
            benchmark = load_benchmark(name)
            if benchmark.task.at_hand():
                problems[benchmark.name] = benchmark.problems
            else:
                missing[benchmark.name] = "its data are not on this machine"
        except LabError as error:
            if config.benchmarks:
                raise
            missing[name] = str(error)
    found = [
        {
            "benchmark": overlap.benchmark,
            "problems": overlap.problems,
            "shared": [
                {"problem": problem, "training": other, "gram": gram}
                for problem, (other, gram) in overlap.shared.items()
            ],
        }
        for overlap in overlaps(training, problems)
    ]
    return found, missing


def _example(config: RunConfig, problem: Problem) -> dict[str, str]:
    """A prompt as it is, and as the chat template of the run's model makes it."""
    read, note = problem.prompt, ""
    if config.model.chat_template:
        try:
            read = _through_template(config.model.path, problem.prompt)
        except LabError as error:
            note = f"without a chat template: {error}"
    return {"id": problem.id, "prompt": problem.prompt, "read": read, "note": note}


def _through_template(path: str, prompt: str) -> str:
    from cegppo_lab.models import check_chat_template, local_folder

    check_chat_template(path)
    folder = local_folder(path)
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True).apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )


def _lines(facts: Facts) -> Iterable[str]:
    """The facts as text."""
    yield f"task: {facts.task['name']}"
    yield f"data hash: {facts.data_hash or 'none, its options say it all'}"
    count = "made on demand" if facts.training is None else f"{facts.training}"
    dropped = f", {facts.contaminated} more left out as contaminated" if facts.contaminated else ""
    yield f"training problems: {count}{dropped}; held out: {facts.heldout}"
    more = len(facts.first_prompts) - _SHOWN
    listed = " ".join(facts.first_prompts[:_SHOWN])
    yield f"first prompts of seed {facts.seed}: {listed}" + (
        f" and {more} more" if more > 0 else ""
    )
    yield f"prompt of {facts.example['id']} as the model reads it:"
    yield from (f"  {line}" for line in facts.example["read"].splitlines())
    if facts.example["note"]:
        yield f"note: {facts.example['note']}"
    yield f"benchmark problems that share a 9-gram of words with {facts.compared}:"
    for overlap in facts.overlap:
        shared = overlap["shared"]
        yield f"  {overlap['benchmark']:18} {len(shared)} of {overlap['problems']}"
        for hit in shared[:_EXAMPLES]:
            yield f"    {hit['problem']} and {hit['training']}: {hit['gram']}"
        if len(shared) > _EXAMPLES:
            yield f"    and {len(shared) - _EXAMPLES} more; --json lists all"
    for name, reason in facts.not_at_hand.items():
        yield f"  {name:18} not compared: {reason}"
