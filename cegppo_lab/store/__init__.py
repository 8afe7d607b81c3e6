"""The run store: ``runs/<trial_id>/``, the append-only source of truth of every trial.

Layout of one run folder::

    config.json        the resolved RunConfig that made the trial id
    provenance.json    one entry per attempt: versions, code sha, machine, data hashes
    steps.jsonl        a line a training step  {"step", "time", "metrics": {name: value}}
    evals.jsonl        a line an evaluation    {"step", "time", "benchmark", "problem", "sample",
                       "correct"} (three lists of equal length)
    evaluations.jsonl  the same of final evaluations of its checkpoints, and "evaluation", their id
    tokens.jsonl       a line a training step: a sample of its tokens (see ``TokenSample``)
    status.json        {"state", "reason", "step", "steps", "time", "rule"}
    checkpoints/step_000032/   written whole or not at all; set aside as step_000032.broken when
                       its files are not those that were written
    worker.log         what its workers printed;  error.txt: why the last failed attempt failed
    lock               held (flock) by the one process that trains the trial

Beside the runs, ``_sweeps/`` holds the manifests of sweeps and ``_evaluations/`` the final
evaluations (see ``cegppo_lab.evaluate.samples``).

A line is written by one ``write`` and synced, so a kill at any instant loses at most the step in
flight: a torn last line is dropped by readers and cut off by the next writer.
"""

from cegppo_lab.store.records import (
    DONE,
    FAILED,
    PENDING,
    RUNNING,
    STOPPED,
    EvalRecord,
    FinalRecord,
    Status,
    StepRecord,
    TokenSample,
)
from cegppo_lab.store.run import RunDir, RunWriter
from cegppo_lab.store.store import SWEEP_NAME, RunStore

__all__ = [
    "DONE",
    "FAILED",
    "PENDING",
    "RUNNING",
    "STOPPED",
    "SWEEP_NAME",
    "EvalRecord",
    "FinalRecord",
    "RunDir",
    "RunStore",
    "RunWriter",
    "Status",
    "StepRecord",
    "TokenSample",
]
