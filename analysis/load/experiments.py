"""An MLflow experiment: its runs, and every value that they logged."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from cegppo_lab.errors import LabError, unknown
from cegppo_lab.store import EvalRecord, StepRecord
from cegppo_lab.tracking.connection import SERVERS, check_uri, redact

if TYPE_CHECKING:  # importing mlflow takes seconds: at run time, only inside functions
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

MEAN_PROBLEM = "(mean over problems)"
"""``problem_id`` of an accuracy whose problems are not known one by one."""
_ACCURACY = re.compile(r"val-core/(?P<benchmark>.+)/acc/mean(?:_at_|@)(?P<samples>\d+)")
_THREADS = 8
_IDS_PER_QUERY = 500


class Value(NamedTuple):
    """One logged value; ``time_ms``: Unix milliseconds."""

    run_id: str
    key: str
    step: int
    time_ms: int
    value: float


@dataclass
class Logged:
    """All that one run logged: by step and key, and by step the time (Unix seconds).

    A step that was logged twice (a run that went on from a checkpoint) has its later values;
    ``repeated`` has the steps where these differ from the earlier ones.
    """

    values: dict[int, dict[str, float]] = field(default_factory=dict)
    times: dict[int, float] = field(default_factory=dict)
    repeated: set[int] = field(default_factory=set)

    def add(self, value: Value) -> None:
        """Take in one more value; values of a run come in the order of their times."""
        row, number = self.values.setdefault(value.step, {}), _restored(value.value)
        if not _same(row.get(value.key, number), number):
            self.repeated.add(value.step)
        row[value.key] = number
        self.times[value.step] = value.time_ms / 1000

    @property
    def last_step(self) -> int:
        """The last training step with a value; 0 where there is none."""
        return max((step for step, row in self.values.items() if row), default=0)

    def step_records(self, without: Iterable[str] = ()) -> list[StepRecord]:
        """Every training step (from 1), without the metrics of those names."""
        left_out = set(without)
        rows = [
            (step, {key: value for key, value in row.items() if key not in left_out})
            for step, row in sorted(self.values.items())
            if step > 0
        ]
        return [StepRecord(step, row, [], self.times[step]) for step, row in rows if row]

    def accuracies(self) -> Iterator[tuple[int, str, str, int, float]]:
        """(step, key, benchmark, samples, value) of verl's validation accuracies, by step."""
        for step, row in sorted(self.values.items()):
            for key, value in sorted(row.items()):
                if found := _ACCURACY.fullmatch(key):
                    yield step, key, found["benchmark"], int(found["samples"]), value

    def mean_evaluations(self, known: Iterable[tuple[int, str]] = ()) -> list[EvalRecord]:
        """The accuracies as evaluations of one "problem", without those of ``known`` (step, key).

        Where a benchmark has several at a step, the one from the most samples.
        """
        known, best = set(known), {}
        for step, key, benchmark, samples, value in self.accuracies():
            fewer = best.get((step, benchmark), (0, 0.0))[0]
            if (step, key) not in known and samples >= fewer and not math.isnan(value):
                best[step, benchmark] = samples, value
        return [
            EvalRecord(step, benchmark, [MEAN_PROBLEM], [0], [value], self.times[step])
            for (step, benchmark), (_, value) in best.items()
        ]


def experiments(client: MlflowClient) -> list[Experiment]:
    """All experiments that are not deleted."""
    found, token = [], None
    while page := client.search_experiments(page_token=token):
        found.extend(page)
        token = page.token
        if not token:
            break
    return found


def find_experiment(client: MlflowClient, name: str, uri: str) -> Experiment:
    """The experiment of that name; ``LabError`` naming the nearest ones if there is none."""
    found = client.get_experiment_by_name(name)
    if found is None:
        names = [experiment.name for experiment in experiments(client)]
        raise unknown(f"experiment at {redact(uri)}:", name, names)
    if found.lifecycle_stage != "active":
        raise LabError(
            f"the experiment {name!r} at {redact(uri)} was deleted; restore it: "
            f"mlflow experiments restore --experiment-id {found.experiment_id}"
        )
    return found


def active_runs(client: MlflowClient, ids: Sequence[str], condition: str = "") -> list[Run]:
    """The runs of the experiments that are not deleted, oldest first."""
    runs: list[Run] = []
    token = None
    while page := client.search_runs(ids, condition, max_results=1000, page_token=token):
        runs.extend(page)
        token = page.token
        if not token:
            break
    return sorted(runs, key=lambda run: (run.info.start_time or 0, run.info.run_id))


def runs_of(client: MlflowClient, name: str, uri: str) -> list[Run]:
    """The runs of an experiment, oldest first; ``LabError`` when it is unknown or has none."""
    runs = active_runs(client, [find_experiment(client, name, uri).experiment_id])
    if not runs:
        raise LabError(
            f"the experiment {name!r} at {redact(uri)} has no run; name one that has some"
        )
    return runs


def read_values(client: MlflowClient, uri: str, runs: Sequence[Run]) -> dict[str, Logged]:
    """All that the runs logged, by run id."""
    logged = {run.info.run_id: Logged() for run in runs}
    read = _from_server if check_uri(uri) in SERVERS else _from_database
    for value in read(client, uri, runs):
        logged[value.run_id].add(value)
    return logged


def _from_server(client: MlflowClient, uri: str, runs: Sequence[Run]) -> Iterator[Value]:
    wanted = [(run.info.run_id, key) for run in runs for key in run.data.metrics]
    with ThreadPoolExecutor(_THREADS) as pool:
        histories = pool.map(lambda pair: client.get_metric_history(*pair), wanted)
        for (run_id, key), history in zip(wanted, histories, strict=True):
            rows = [Value(run_id, key, m.step, m.timestamp, m.value) for m in history]
            yield from sorted(rows, key=lambda row: row.time_ms)


def _from_database(client: MlflowClient, uri: str, runs: Sequence[Run]) -> Iterator[Value]:
    """Through MLflow's own table, in a few queries: its client asks once for every run and key,
    which takes ten times as long."""
    import sqlalchemy
    from mlflow.store.tracking.dbmodels.models import SqlMetric as Table

    columns = (Table.run_uuid, Table.key, Table.step, Table.timestamp, Table.value, Table.is_nan)
    ids = [run.info.run_id for run in runs]
    engine = sqlalchemy.create_engine(uri)
    try:
        with engine.connect() as connection:
            for start in range(0, len(ids), _IDS_PER_QUERY):
                some = Table.run_uuid.in_(ids[start : start + _IDS_PER_QUERY])
                query = sqlalchemy.select(*columns).where(some).order_by(Table.timestamp)
                for run_id, key, step, time_ms, value, is_nan in connection.execute(query):
                    yield Value(run_id, key, step, time_ms, math.nan if is_nan else value)
    finally:
        engine.dispose()


def _restored(value: float) -> float:
    """MLflow's databases clamp an infinity to the largest float."""
    return math.copysign(math.inf, value) if abs(value) >= sys.float_info.max else value


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))
