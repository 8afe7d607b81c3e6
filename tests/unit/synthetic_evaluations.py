"""Final evaluations in a store, as the evaluate command leaves them: known scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from analysis.evaluations import Entry
from cegppo_lab.evaluate.samples import Batch, EvaluationWriter

Score = Callable[[int, int], float]
"""(problem, sample) -> score."""


def chances(seed: int, mean: float) -> Score:
    """Verdicts drawn once, with a difficulty that is the same for every policy."""

    def score(problem: int, sample: int) -> float:
        level = np.clip(mean + 0.3 * np.sin(1.7 * problem), 0, 1)
        return float(np.random.default_rng([seed, problem, sample]).random() < level)

    return score


def evaluate(
    root: Path,
    policy: str,
    score: Score,
    *,
    benchmark: str = "easy",
    title: str = "",
    count: int = 12,
    samples: int = 4,
    done: int | None = None,
    finish: bool = True,
    text: str = "The answer is {answer}.",
    **sampling: Any,
) -> Entry:
    """Write an evaluation; of its responses the first ``done``, all by default. Returns its entry.

    A response answers "1" where it is right, else a number of its own; a negative score is none.
    """
    pairs = [(problem, sample) for problem in range(count) for sample in range(samples)][:done]
    evaluation_id = f"{policy}-{benchmark}".replace(" ", "_").replace("/", "_")
    with EvaluationWriter(root / evaluation_id, print) as folder:
        folder.enter(
            config(policy, benchmark, title or benchmark, count, samples, sampling), ATTEMPT
        )
        there = {pair for batch in folder.batches() for pair in batch.pairs}
        pairs = [(p, s) for p, s in pairs if (f"{benchmark}/{p}", s) not in there]
        for start in range(0, len(pairs), 5):
            folder.append(_batch(benchmark, score, pairs[start : start + 5], text))
        if finish and done is None:
            folder.finish([f"{benchmark}/{place}" for place in range(count)])
    return Entry(policy, benchmark, evaluation_id, samples, None)


ATTEMPT = {
    "started": 1_760_000_000.0, "resumed_from": 0, "cegppo_lab": "0.1.0", "git_sha": "0123abcd",
    "git_dirty": False, "python": "3.11.7", "packages": {"torch": "2.13.0"},
    "machine": {"platform": "Linux", "cpus": 2, "cuda": None},
}  # fmt: skip


def config(
    policy: str, benchmark: str, title: str, count: int, samples: int, sampling: dict[str, Any]
) -> dict[str, Any]:
    """``config.json`` of an evaluation."""
    budget = {"temperature": 0.6, "top_p": 0.95, "max_tokens": 64, "content_hash": "c0ffee" * 10,
              **sampling}  # fmt: skip
    task = {"name": "math", "prompt_template": "{problem} <think>"}
    return {
        "identity": {
            "policy": {"weights_hash": f"w-{policy}"},
            "benchmark": {"name": benchmark, "prompts_hash": "beef", "task": task, **budget},
            "engine": "embedded",
            "seed": 0,
            "semantics": 1,
        },
        "policy": {
            "name": policy, "weights_hash": f"w-{policy}", "head_scale": 40.0, "dtype": "float32",
            "chat_template": True, "trial_id": None, "step": None,
        },
        "benchmark": {
            "name": benchmark, "title": title, "source": "hand-made", "task": task, "count": count,
            "samples": samples, **{k: v for k, v in budget.items() if k != "content_hash"},
        },
        "engine": "embedded",
        "seed": 0,
    }  # fmt: skip


def _batch(benchmark: str, score: Score, pairs: Sequence[tuple[int, int]], text: str) -> Batch:
    scores = [score(problem, sample) for problem, sample in pairs]
    answers = [
        None if value < 0 else "1" if value == 1 else f"{sample % 2 + 2}"
        for (_, sample), value in zip(pairs, scores, strict=True)
    ]
    return Batch(
        problem=[f"{benchmark}/{problem}" for problem, _ in pairs],
        sample=[sample for _, sample in pairs],
        answer=answers,
        correct=[max(value, 0.0) for value in scores],
        length=[10 + problem + sample for problem, sample in pairs],
        truncated=[sample == 1 for _, sample in pairs],
        response=[text.format(answer=answer) for answer in answers],
    )
