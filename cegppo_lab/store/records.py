"""What a run folder holds, as values: steps, evaluations, token samples, status."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

DONE, RUNNING, FAILED, STOPPED, PENDING = "done", "running", "failed", "stopped", "pending"
"""States of a trial. ``stopped``: ended before its last step, with a reason; for good where the
trainer ended it, and where a rule did, for every sweep that has the rule (see ``Status.rule``).
``running`` in a folder whose lock nobody holds means interrupted: the next call resumes it."""


@dataclass(frozen=True)
class StepRecord:
    """What one training step measured. ``step`` counts from 1; ``time`` is Unix seconds."""

    step: int
    metrics: dict[str, float]
    evals: list[EvalRecord] = field(default_factory=list)
    time: float = field(default_factory=time.time)
    tokens: TokenSample | None = None


@dataclass(frozen=True)
class EvalRecord:
    """Verdicts of one evaluation: parallel lists, one entry a sampled response.

    ``step`` is the number of training steps the evaluated policy has had (0: the start).
    """

    step: int
    benchmark: str
    problem: list[str]
    sample: list[int]
    correct: list[float]
    time: float = field(default_factory=time.time)


@dataclass(frozen=True)
class FinalRecord(EvalRecord):
    """Verdicts of a final evaluation of a trial's checkpoint; ``evaluation`` is its id."""

    evaluation: str = ""

    @property
    def key(self) -> tuple[int, str, str]:
        """What a longer record replaces: the same evaluation with fewer samples a problem."""
        return self.step, self.benchmark, self.evaluation


@dataclass(frozen=True)
class TokenSample:
    """Tokens of one step as its optimizer steps met them: parallel lists, one entry a token.

    Two uniform samples, told apart by ``outside``: of the ``inside_count`` tokens whose ratio lay
    within [1 - clip_low, 1 + clip_high], and of the ``outside_count`` others, whatever the sign of
    the advantage. ``probability`` and ``entropy`` (nats) are the rollout policy's, ``position``
    counts from 0 in the response, ``token`` is the id in the vocabulary.
    """

    step: int
    inside_count: int
    outside_count: int
    probability: list[float]
    ratio: list[float]
    advantage: list[float]
    entropy: list[float]
    token: list[int]
    position: list[int]
    outside: list[bool]


@dataclass(frozen=True)
class Status:
    """Where a trial stands: ``step`` of ``steps`` done, and why it is not further.

    ``rule``: the stop rule that ended it, ``{name: parameters}``; empty for a trainer's own stop.
    """

    state: str = PENDING
    reason: str = ""
    step: int = 0
    steps: int = 0
    time: float = 0.0
    rule: dict[str, Any] = field(default_factory=dict)
