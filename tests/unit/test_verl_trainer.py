"""The verl trainer around a job: what it checks, starts, resumes and records; nothing launches."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from huggingface_hub import constants
from hydra.core.override_parser.overrides_parser import OverridesParser

from cegppo_lab.compose import resolve
from cegppo_lab.errors import LabError
from cegppo_lab.store import StepRecord
from cegppo_lab.trainers.base import TrainerError
from cegppo_lab.trainers.verl import trainer as verl
from cegppo_lab.trainers.verl.job import Attempt
from cegppo_lab.trainers.verl.trainer import VerlTrainer, phases

SMALL = {
    "trainer": "verl",
    "trainer.steps": 4,
    "trainer.train_batch_size": 4,
    "trainer.mini_batches": 2,
    "trainer.eval_samples": 2,
    "trainer.eval_every": 3,
}


class _KilledError(Exception):
    """The driver was killed."""


class Verl:
    """Stands in for :func:`run_job`: does what verl does to files, and yields its rows.

    ``dies_after``: the step whose checkpoint is saved, and whose row is not written any more.
    """

    def __init__(self, folder: Path) -> None:
        self.jobs: list[dict[str, Any]] = []
        self.limits: list[float | None] = []
        self.environments: list[dict[str, str]] = []
        self.dies_after = -1
        self._checkpoints = folder / "checkpoints"
        self._pointer = self._checkpoints / "latest_checkpointed_iteration.txt"

    def __call__(
        self,
        words: Sequence[str],
        attempt: Attempt,
        environment: dict[str, str],
        limit_s: float | None,
    ) -> Iterator[dict[str, Any]]:
        parsed = OverridesParser.create().parse_overrides(list(words))
        job = {override.key_or_group: override.value() for override in parsed}
        self.jobs.append(job)
        self.limits.append(limit_s)
        self.environments.append(environment)
        attempt.log.touch()
        start = int(self._pointer.read_text()) if self._pointer.exists() else 0
        if not start and job["trainer.val_before_train"]:
            yield self._row(attempt, 0, self._validate(job, 0))
        last = job["trainer.total_training_steps"]
        for step in range(start + 1, last + 1):
            data = {"actor/entropy": step / 8, "perf/mfu/actor": 0, "note": "text"}
            if step % job["trainer.test_freq"] == 0 or step == last:
                data |= self._validate(job, step)
            self._save(step)
            if step == self.dies_after:
                raise _KilledError
            yield self._row(attempt, step, data)

    def _save(self, step: int) -> None:
        (self._checkpoints / f"global_step_{step}/actor").mkdir(parents=True, exist_ok=True)
        self._pointer.write_text(str(step))

    @staticmethod
    def _validate(job: dict[str, Any], step: int) -> dict[str, float]:
        folder = Path(str(job["trainer.validation_data_dir"]))
        folder.mkdir(parents=True, exist_ok=True)
        held = pd.read_parquet(job["data.val_files"])["extra_info"]
        problems = [row["problem"] for row in held for _ in range(2)]
        said = "a line\u2028and\u0085another"  # verl writes these as they are
        rows = [
            {"problem": problem, "acc": float(number == step), "output": said}
            for number, problem in enumerate(problems)
        ]
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        (folder / f"{step}.jsonl").write_text("".join(lines), encoding="utf-8")
        return {"val-core/table_walk/acc/mean@2": 0.25, "val-aux/num_turns/mean": 2.0}

    @staticmethod
    def _row(attempt: Attempt, step: int, data: dict[str, Any]) -> dict[str, Any]:
        row = {"step": step, "data": data}
        with attempt.metrics.open("a") as metrics:
            metrics.write(json.dumps(row) + "\n")
        return row


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Verl:
    """verl's place is taken, for runs with their checkpoints in ``tmp_path/checkpoints``."""
    stand_in = Verl(tmp_path)
    monkeypatch.setattr(verl, "run_job", stand_in)
    return stand_in


def _run(folder: Path, **values: Any) -> list[StepRecord]:
    config = resolve({**SMALL, **{key.replace("__", "."): v for key, v in values.items()}})
    return list(VerlTrainer().run(config, folder / "checkpoints"))


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({}, [(0, 9)]),
        ({"algorithm.beta1": {0: 0.0, 5: 0.5}}, [(0, 5), (5, 9)]),
        ({"algorithm.beta1": {0: 0.0, 1: 0.5}}, [(0, 1), (1, 9)]),
        ({"algorithm.beta1": {0: 0.0, 8: 0.5}}, [(0, 8), (8, 9)]),
        ({"algorithm.beta1": {0: 0.0, 9: 0.5, 20: 1.0}}, [(0, 9)]),
        (
            {"algorithm.beta1": {0: 0, 3: 1, 6: 0}, "algorithm.entropy_coef": {0: 0, 3: 1, 4: 0}},
            [(0, 3), (3, 4), (4, 6), (6, 9)],
        ),
    ],
)
def test_a_phase_ends_where_a_coefficient_changes(
    values: dict[str, Any], wanted: list[tuple[int, int]]
) -> None:
    assert phases(resolve({"trainer": "verl", "trainer.steps": 9, **values})) == wanted


def test_rows_become_records(job: Verl, tmp_path: Path) -> None:
    records = _run(tmp_path)
    assert [record.step for record in records] == [0, 1, 2, 3, 4]
    assert records[1].metrics == {"actor/entropy": 0.125, "perf/mfu/actor": 0.0}
    assert [record.step for record in records if record.evals] == [0, 3, 4]
    (evaluation,) = records[3].evals
    assert (evaluation.step, evaluation.benchmark) == (3, "table_walk")
    problems = [problem.id for problem in resolve({}).task.heldout()]
    assert evaluation.problem == [problem for problem in problems for _ in range(2)]
    assert evaluation.sample == [0, 1] * len(problems)
    assert evaluation.correct == [float(n == 3) for n in range(2 * len(problems))]


def _sums(folder: Path) -> list[str]:
    """Two benchmarks of 64 problems each."""
    files = [folder / "sums.yaml", folder / "more.yaml"]
    for file in files:
        file.write_text("title: S\nsource: here\ncount: 64\nmax_tokens: 9\ntask: {name: chain}\n")
    return [str(file) for file in files]


def test_verdicts_become_a_record_for_each_benchmark(job: Verl, tmp_path: Path) -> None:
    records = _run(tmp_path, benchmarks=_sums(tmp_path))
    for record in records:
        if not record.evals:
            continue
        sums, more = record.evals
        assert (sums.benchmark, more.benchmark) == ("sums", "more")
        assert (sums.step, more.step) == (record.step, record.step)
        assert more.problem == [name.replace("sums/", "more/") for name in sums.problem]
        assert sums.sample == more.sample == [0, 1] * 64
        right = [i for i, verdict in enumerate(sums.correct + more.correct) if verdict]
        assert right == [record.step]
    assert [record.step for record in records if record.evals] == [0, 3, 4]
    told = list(job.jobs[0]["reward.custom_reward_function.reward_kwargs.tasks"])
    assert told == ["Training", "sums", "more"]


def test_verdicts_on_one_of_two_benchmarks_are_not_all(
    job: Verl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verl, "VALIDATION_PATIENCE_S", 0.1)
    validate = Verl._validate

    def half(told: dict[str, Any], step: int) -> dict[str, float]:
        metrics = validate(told, step)
        file = Path(str(told["trainer.validation_data_dir"])) / f"{step}.jsonl"
        file.write_text("\n".join([*file.read_text().split("\n")[:128], ""]))
        return metrics

    monkeypatch.setattr(Verl, "_validate", staticmethod(half))
    with pytest.raises(TrainerError, match="did not write all verdicts of step 0"):
        _run(tmp_path, benchmarks=_sums(tmp_path))


def test_a_schedule_is_run_in_phases_with_one_history(job: Verl, tmp_path: Path) -> None:
    records = _run(tmp_path, algorithm__beta1={0: 0.25, 2: 1.0}, algorithm__kl_coef={0: 0.0, 2: 1})
    assert [record.step for record in records] == [0, 1, 2, 3, 4]
    assert [row.metrics["algorithm/beta1"] for row in records[1:]] == [0.25, 0.25, 1.0, 1.0]
    # verl evaluates at the end of its job, which here is no step of eval_every.
    assert [record.step for record in records if record.evals] == [0, 3, 4]
    told = [
        (each["trainer.total_training_steps"], each["trainer.val_before_train"])
        for each in job.jobs
    ]
    assert told == [(2, True), (4, False)]
    key = "actor_rollout_ref.actor"
    assert [each[f"{key}.policy_loss.options"]["beta1"] for each in job.jobs] == [0.25, 1.0]
    assert [each[f"{key}.use_kl_loss"] for each in job.jobs] == [False, True]


@pytest.mark.parametrize("dies_after", [1, 2, 3, 4])
def test_a_run_killed_between_checkpoint_and_row_goes_on_without_a_gap(
    dies_after: int, job: Verl, tmp_path: Path
) -> None:
    schedule = {0: 0.0, 2: 1.0}
    job.dies_after = dies_after
    with pytest.raises(_KilledError):
        _run(tmp_path, algorithm__beta1=schedule)
    killed, job.dies_after = len(job.jobs), -1
    records = _run(tmp_path, algorithm__beta1=schedule)
    again = [0] if dies_after == 1 else []  # verl starts from nothing, and evaluates that
    assert [record.step for record in records] == [
        *range(dies_after),
        *again,
        *range(dies_after, 5),
    ]
    assert [record.step for record in records if record.evals][-2:] == [3, 4]
    weights = [each["actor_rollout_ref.actor.policy_loss.options"]["beta1"] for each in job.jobs]
    assert weights[killed:] == ([0.0, 1.0] if dies_after <= 2 else [1.0])


@pytest.mark.parametrize("left", ["", '{"problem": "table_walk/0-3", "acc": 0.0}\n{"prob'])
def test_verdicts_that_a_kill_cut_off_are_made_again(left: str, job: Verl, tmp_path: Path) -> None:
    """verl writes them in a thread of its own, maybe after the row of their step."""
    job.dies_after = 4
    with pytest.raises(_KilledError):
        _run(tmp_path)
    job.dies_after = -1
    verdicts = tmp_path / "verl/validation/3.jsonl"
    whole = verdicts.read_text()
    verdicts.write_text(left)
    records = _run(tmp_path)
    assert verdicts.read_text() == whole
    assert [record.step for record in records] == [0, 1, 2, 3, 4]
    assert [record.step for record in records if record.evals] == [0, 3, 4]
    assert len(job.jobs) == 2


def test_verdicts_that_never_come_are_told(
    job: Verl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verl, "VALIDATION_PATIENCE_S", 0.1)
    with pytest.raises(TrainerError, match="did not write all verdicts of step 0"):
        _run(tmp_path, trainer__eval_samples=3)


def test_a_finished_run_is_told_again_from_its_rows_alone(job: Verl, tmp_path: Path) -> None:
    first = _run(tmp_path)
    again = _run(tmp_path)
    assert len(job.jobs) == 1
    assert [(row.step, row.metrics) for row in again] == [(row.step, row.metrics) for row in first]


def test_a_job_has_a_time_limit_a_ray_of_its_own_and_the_cpu_plugin(
    job: Verl, tmp_path: Path
) -> None:
    _run(tmp_path, runtime__time_limit_h=0.5, runtime__threads=3)
    assert job.limits == [1800.0]
    assert job.jobs[0]["ray_kwargs.ray_init.address"] == "local"
    (environment,) = job.environments
    assert environment["OMP_NUM_THREADS"] == "3"
    assert environment["VERL_USE_EXTERNAL_MODULES"] == "cegppo_lab.trainers.verl.cpu.plugin"


def test_the_prompts_suffice_for_filtering(job: Verl, tmp_path: Path) -> None:
    """DAPO filters by itself: verl then uses up more than a batch of prompts a step."""
    sizes = {}
    for name, filtering in [("grpo", False), ("grpo", True), ("dapo", False)]:
        folder = tmp_path / f"{name}-{filtering}"
        config = resolve({**SMALL, "algorithm": name, "trainer.filter_groups": filtering})
        places = verl.prepare(config, folder / "checkpoints")
        sizes[name, filtering] = len(pd.read_parquet(places.prompts.train))
    assert sizes["grpo", False] == 16
    assert sizes["grpo", True] == sizes["dapo", False] > 16


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"trainer.rollout_n": 3, "runtime.gpus": 4, "trainer.mini_batches": 4}, "3 responses"),
    ({"trainer.layout.overrides": {"trainer.nope": 1}}, "trainer.nope"),
    ({"model.path": "/no/such/model"}, "/no/such/model"),
    ({"model.path": "some-lab/some-model"}, "some-lab/some-model"),
    ({"task": "math", "model": "table_walk", "task.path": "/no/such.jsonl"}, "/no/such.jsonl"),
    ({"benchmarks": ["hmmt25"]}, "benchmark 'hmmt25': dataset 'MathArena/hmmt_feb_2025' is not on"),
    ({"model.chat_template": False}, "say model.chat_template=true or trainer=embedded"),
]


@pytest.mark.parametrize(("values", "told"), MISTAKES, ids=[told for _, told in MISTAKES])
def test_what_would_fail_later_is_told_by_the_check(
    values: dict[str, Any], told: str, job: Verl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(LabError) as failure:
        VerlTrainer().check(resolve({**SMALL, **values}))
    assert told in str(failure.value)
    assert "\n" not in str(failure.value)
    assert not job.jobs


def test_a_good_run_passes_the_check() -> None:
    VerlTrainer().check(resolve(SMALL))


def test_without_transfer_queue_nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    from cegppo_lab.trainers.verl import version

    monkeypatch.setattr(version, "find_spec", lambda _: None)
    with pytest.raises(LabError, match=r"TransferQueue; type: pip install verl==0\.9\.1"):
        VerlTrainer().check(resolve(SMALL))
