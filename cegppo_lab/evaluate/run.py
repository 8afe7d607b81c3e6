"""Computing what an evaluation lacks, batch by batch, and passing its verdicts on to the trial."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from cegppo_lab import provenance
from cegppo_lab.benchmark import Benchmark
from cegppo_lab.evaluate.batches import Row, missing_batches
from cegppo_lab.evaluate.plan import Evaluation, Plan
from cegppo_lab.evaluate.samples import Batch, EvaluationDir, EvaluationWriter
from cegppo_lab.store import FinalRecord, RunStore

if TYPE_CHECKING:
    from cegppo_lab.evaluate.engines import Engine, Response


class Engines:
    """Loads a policy when samples of it are missing, and keeps it until another one is needed."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._label, self._engine = "", None

    def of(self, evaluation: Evaluation) -> Engine:
        """The engine of the plan with the policy of ``evaluation``; see ``make_engine``."""
        from cegppo_lab.evaluate.engines import make_engine

        if self._engine is None or evaluation.policy.label != self._label:
            self._engine = None  # the weights of the last one go before others come
            self._engine = make_engine(evaluation.engine, evaluation.policy, self._plan.runtime)
            self._label = evaluation.policy.label
        return self._engine


def complete(
    evaluation: Evaluation,
    store: RunStore,
    engine: Callable[[], Engine],
    batch_size: int,
    *,
    say: Callable[[str], None],
    advance: Callable[[int, int], None],
) -> None:
    """Draw and judge the samples that the store lacks, then enter the verdicts where they belong.

    Waits while another process is at the same evaluation. ``engine`` is asked for only if samples
    are missing; ``advance(done, wanted)`` is told the responses there are, at first and after each
    batch.
    """
    benchmark, problems = evaluation.benchmark, evaluation.problems
    wanted = len(problems) * benchmark.samples
    with EvaluationWriter(store.evaluations / evaluation.evaluation_id, say) as folder:
        done = {pair for batch in folder.batches() for pair in batch.pairs}
        batches = missing_batches(problems, benchmark.samples, done, batch_size)
        left = sum(map(len, batches))
        advance(wanted - left, wanted)
        if batches:
            folder.enter(_config(evaluation), provenance.attempt(len(done)))
        for rows in batches:
            requests = [_request(evaluation, row) for row in rows]
            folder.append(judge(benchmark, rows, engine().answer(requests, benchmark)))
            left -= len(rows)
            advance(wanted - left, wanted)
        folder.finish([problem.id for problem in benchmark.problems])
        _tell_trial(evaluation, store, folder)


def _request(evaluation: Evaluation, row: Row) -> Any:
    from cegppo_lab.evaluate.engines import Request

    name = evaluation.benchmark.name
    return Request(row.problem.prompt, (evaluation.seed, name, row.problem.id, row.sample))


def judge(benchmark: Benchmark, rows: Sequence[Row], responses: Sequence[Response]) -> Batch:
    """The verdict and the answer of each response to the row beside it."""
    task, problems = benchmark.task, [row.problem for row in rows]
    texts = [response.text for response in responses]
    return Batch(
        problem=[problem.id for problem in problems],
        sample=[row.sample for row in rows],
        answer=[task.answer(*pair) for pair in zip(problems, texts, strict=True)],
        correct=task.rewards(problems, texts),
        length=[response.length for response in responses],
        truncated=[not response.finished for response in responses],
        response=texts,
    )


def _config(evaluation: Evaluation) -> dict[str, Any]:
    policy = evaluation.policy
    return {
        "evaluation_id": evaluation.evaluation_id,
        "identity": evaluation.identity,
        "policy": {
            "name": policy.label,
            "given": policy.given,
            "weights_hash": evaluation.identity["policy"]["weights_hash"],
            "head_scale": policy.head_scale,
            "dtype": policy.dtype,
            "chat_template": policy.chat_template,
            "trial_id": policy.trial_id,
            "step": policy.step,
        },
        "benchmark": evaluation.benchmark.model_dump(mode="json"),
        "engine": evaluation.engine,
        "seed": evaluation.seed,
    }


def _tell_trial(evaluation: Evaluation, store: RunStore, folder: EvaluationDir) -> None:
    """Append what was asked for to the trial that the checkpoint belongs to, if to any."""
    policy = evaluation.policy
    if policy.trial_id is None or policy.step is None:
        return
    verdicts = {
        pair: correct
        for batch in folder.batches()
        for pair, correct in zip(batch.pairs, batch.correct, strict=True)
    }
    samples = range(evaluation.benchmark.samples)
    pairs = [(problem.id, sample) for problem in evaluation.problems for sample in samples]
    record = FinalRecord(
        step=policy.step,
        benchmark=evaluation.shown_name,
        problem=[problem for problem, _ in pairs],
        sample=[sample for _, sample in pairs],
        correct=[verdicts[pair] for pair in pairs],
        evaluation=evaluation.evaluation_id,
    )
    store.add_evaluation(policy.trial_id, record)
