"""Verdicts: of a part from where its interval lies, of a claim from its parts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from analysis.claims.arms import Arms, used
from analysis.claims.schema import Claim, Part
from analysis.load import SweepData
from analysis.stats import Estimate

HOLDS, REFUTED, INCONCLUSIVE, UNTESTED = "holds", "refuted", "inconclusive", "untested"
PAPER = "paper"
"""The one scale at which a verdict may speak of the paper's result."""


@dataclass(frozen=True)
class PartVerdict:
    """What became of one part. ``reason`` says why it is untested, and is "" otherwise.

    ``n_planned``: the seeds that the plan has for all of the part's arms.
    """

    label: str
    measure: str
    direction: str
    threshold: float
    guard: bool
    estimate: Estimate
    n_planned: int
    verdict: str
    reason: str = ""

    @property
    def text(self) -> str:
        """One line: what was measured, the numbers, the threshold, the verdict, the seeds."""
        if self.verdict == UNTESTED:
            return f"{self.label}: untested, {self.reason}"
        claimed = f"claimed {self.direction}"
        if self.guard:
            claimed = f"not surely {'above' if self.direction == 'below' else 'below'}"
        return (
            f"{self.label}: {self.estimate.text()}, {claimed} {self.threshold:g}: {self.verdict} "
            f"({self._seeds()})"
        )

    def _seeds(self) -> str:
        found, planned = self.estimate.n_seeds, self.n_planned
        if found == planned:
            return f"{found} seeds"
        return f"{found} of {planned} planned seeds; the others may differ"


@dataclass(frozen=True)
class Verdict:
    """What one sweep says about one claim, for one model.

    ``verdict``: holds, refuted, inconclusive or untested. ``scale``: see ``SweepData``.
    ``sentence`` says it in words, ``reason`` why it is untested. ``estimate``, ``low``, ``high``,
    ``n_seeds`` and ``method`` are those of the part that decided, which ``evidence`` tells in a
    line; NaN where there is none. That part is the first of those that refute the claim, or else
    leave it untested, or else open; of a claim that holds it is the one nearest its threshold.
    ``trials``: the ids of the runs of the arms compared.
    """

    id: str
    statement: str
    source: str
    verdict: str
    scale: str
    sentence: str
    sweep: str = ""
    model: str = ""
    reason: str = ""
    evidence: str = ""
    estimate: float = math.nan
    low: float = math.nan
    high: float = math.nan
    n_seeds: int = 0
    method: str = ""
    trials: list[str] = field(default_factory=list)
    parts: list[PartVerdict] = field(default_factory=list)


def judge(claim: Claim, data: SweepData, model: str, parts: Sequence[tuple[Part, Arms]]) -> Verdict:
    """The claim's verdict from the frames of one model. ``parts``: see ``arms.parts_of``.

    It holds where all parts hold and is refuted where any is; else it is untested where any part
    is, and inconclusive where all were tested and some are undecided.
    """
    judged = [judge_part(data, part, arms) for part, arms in parts]
    verdict, decided_by = _whole(judged)
    estimate = decided_by.estimate
    reason = f"{decided_by.label}: {decided_by.reason}" if verdict == UNTESTED else ""
    compared = list(dict.fromkeys(arm.name for _, arms in parts for arm in used(arms)))
    return Verdict(
        id=claim.id,
        statement=claim.statement,
        source=claim.source,
        verdict=verdict,
        scale=data.scale,
        sentence=_sentence(verdict, data.scale, judged, reason, _shortfall(claim, data, compared)),
        sweep=data.name,
        model=model,
        reason=reason,
        evidence=decided_by.text,
        estimate=estimate.value,
        low=math.nan if estimate.low is None else estimate.low,
        high=math.nan if estimate.high is None else estimate.high,
        n_seeds=estimate.n_seeds,
        method=estimate.method,
        trials=_trials(data, compared),
        parts=judged,
    )


def judge_part(data: SweepData, part: Part, arms: Arms) -> PartVerdict:
    """Where the part's interval lies; untested where there is none that could be trusted."""
    planned = _planned(data, arms)
    lacking = _not_logged(data, part, arms)
    estimate = Estimate(math.nan, None, None, 0, lacking) if lacking else part.ready()(data, **arms)
    reason = lacking or _too_little(estimate, planned)
    verdict = UNTESTED if reason else _side(part, estimate)
    return PartVerdict(
        part.label, part.measure, part.direction, part.threshold, part.guard, estimate, planned,
        verdict, reason,
    )  # fmt: skip


def _sentence(
    verdict: str, scale: str, parts: Sequence[PartVerdict], reason: str, shortfall: str
) -> str:
    """The verdict in words. Only at the paper's scale does it speak of the paper's result."""
    where = f"at {scale} scale"
    held = f"{sum(part.verdict == HOLDS for part in parts)} of {len(parts)} parts hold"
    if verdict == UNTESTED:
        return f"untested {where}: {reason}"
    if verdict == INCONCLUSIVE:
        return f"undecided {where} with these seeds: {held}"
    if scale == PAPER and not shortfall:
        return f"the paper's result is {'' if verdict == HOLDS else 'not '}reproduced"
    return f"{'holds' if verdict == HOLDS else 'does not hold'} {where}{shortfall}"


def _shortfall(claim: Claim, data: SweepData, arms: Sequence[str]) -> str:
    """How much shorter the runs are than the paper's, where that scale is claimed; else ""."""
    steps = min(data.length(name) for name in arms)
    if data.scale != PAPER or claim.steps is None or steps >= claim.steps:
        return ""
    return f", over {steps} of the paper's {claim.steps} steps"


def _whole(parts: Sequence[PartVerdict]) -> tuple[str, PartVerdict]:
    """The claim's verdict and the part that decided it."""
    for verdict in (REFUTED, UNTESTED, INCONCLUSIVE):
        for part in parts:
            if part.verdict == verdict:
                return verdict, part
    return HOLDS, min([part for part in parts if not part.guard] or parts, key=_clearance)


def _clearance(part: PartVerdict) -> float:
    """How far the interval keeps from the threshold, in its own widths."""
    estimate = part.estimate
    near = estimate.high if part.direction == "below" else estimate.low
    return abs(near - part.threshold) / (estimate.high - estimate.low)


def _side(part: Part, estimate: Estimate) -> str:
    below = part.direction == "below"
    above, under = estimate.above(part.threshold), estimate.below(part.threshold)
    if above if below else under:
        return REFUTED
    return HOLDS if part.guard or (under if below else above) else INCONCLUSIVE


def _too_little(estimate: Estimate, planned: int) -> str:
    """Why the estimate decides nothing, or ""."""
    if estimate.low is None and estimate.n_seeds * 2 >= planned:
        return estimate.method
    if estimate.n_seeds * 2 < planned:
        told = f" ({estimate.method})" if estimate.n_seeds == 0 else ""
        return (
            f"only {estimate.n_seeds} of {planned} planned seeds have what it needs{told}, and "
            "fewer than half may mislead"
        )
    return ""


def _not_logged(data: SweepData, part: Part, arms: Arms) -> str:
    """Which arm lacks the metrics of the part, or ""."""
    wanted = {key: name for key, name in part.options().items() if key in ("metric", "whole")}
    for arm in used(arms):
        logged = set(data.steps.loc[data.steps["arm"] == arm.name, "metric"])
        if not logged:
            return f"no run of {arm.name} has a step yet"
        missing = [name for name in wanted.values() if name not in logged]
        if missing:
            return f"no run of {arm.name} has logged {missing[0]}"
    return ""


def _planned(data: SweepData, arms: Arms) -> int:
    """How many seeds the plan has for every one of the arms."""
    plans = [
        set(data.trials.loc[data.trials["arm"] == arm.name, "seed"].tolist()) for arm in used(arms)
    ]
    return len(set.intersection(*plans))


def _trials(data: SweepData, arms: Sequence[str]) -> list[str]:
    """The ids of the arms' trials that have trained, in the plan's order."""
    rows = data.trials[data.trials["arm"].isin(arms) & (data.trials["step"] > 0)]
    return rows.drop_duplicates(["arm", "seed"])["trial_id"].tolist()
