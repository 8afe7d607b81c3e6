"""The ledger: every claim asked of every sweep and model that can answer it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from analysis.claims.arms import NoArmError, by_model, parts_of
from analysis.claims.judge import UNTESTED, Verdict, judge
from analysis.claims.schema import Claim, load_claims
from analysis.load import SCALES, Source, SweepData
from cegppo_lab.errors import LabError, unknown

Frames = Mapping[str, SweepData | str]
"""Sweeps by the name that the claims know them by; a text says why one cannot be read."""


def evaluate(
    source: Source,
    names: Sequence[str] | Mapping[str, str] | None = None,
    claims: Sequence[Claim] | None = None,
) -> list[Verdict]:
    """A verdict for each claim and each (sweep, model) of the source that can answer it.

    In the order of the claims, by default those of ``claims.yaml``. A claim that nothing can answer
    has one verdict, untested, that says what is missing.

    ``names``: the only sweeps to ask. One that no claim names (somebody's own) is asked of every
    claim. A mapping ``{name in claims.yaml: name in the source}`` says instead what some sweeps
    are called here. Each sweep is read once; one that cannot be read leaves its claims untested.
    Raises ``LabError`` for a name that does not exist, and where the source cannot be listed.
    """
    claims = load_claims() if claims is None else claims
    called = _called(names, source.names(), sweeps_asked(claims))
    return _ledger(claims, {name: _read(source, own) for name, own in called.items()})


def evaluate_sweeps(
    sweeps: Iterable[SweepData], claims: Sequence[Claim] | None = None
) -> list[Verdict]:
    """``evaluate`` for sweeps that were read already, and no others."""
    claims = load_claims() if claims is None else claims
    return _ledger(claims, {data.name: data for data in sweeps})


def sweeps_asked(claims: Sequence[Claim] | None = None) -> list[str]:
    """The names of the sweeps that the claims ask for, in their order."""
    claims = load_claims() if claims is None else claims
    return list(dict.fromkeys(sweep for claim in claims for sweep in claim.sweeps))


def _called(
    names: Sequence[str] | Mapping[str, str] | None, there: Sequence[str], asked: Sequence[str]
) -> dict[str, str]:
    """The sweeps to read: their name in the source by their name in the claims."""
    present = {name: name for name in asked if name in there}
    if names is None:
        return present
    renamed = isinstance(names, Mapping)
    for name in names.values() if renamed else names:
        if name not in there:
            raise unknown("sweep", name, there)
    for name in names if renamed else ():
        if name not in asked:
            raise unknown("sweep of the claims", name, asked)
    return {**present, **names} if renamed else {name: name for name in names}


def _read(source: Source, name: str) -> SweepData | str:
    try:
        return source.sweep(name)
    except LabError as failure:  # e.g. started, and no step yet
        return str(failure)


def _ledger(claims: Sequence[Claim], frames: Frames) -> list[Verdict]:
    asked = sweeps_asked(claims)
    strangers = [name for name in frames if name not in asked]
    return [
        verdict
        for claim in claims
        for verdict in _verdicts(
            claim, [*(name for name in claim.sweeps if name in frames), *strangers], frames
        )
    ]


def _verdicts(claim: Claim, sweeps: Sequence[str], frames: Frames) -> list[Verdict]:
    found, reasons, scales = [], [], []
    for sweep in sweeps:
        data = frames[sweep]
        if isinstance(data, str):
            reasons.append(data)
            continue
        scales.append(data.scale)
        for model, own in by_model(data).items():
            try:
                found.append(judge(claim, own, model, parts_of(claim, own, model)))
            except NoArmError as lack:
                reasons.append(f"{data.name}{f', {model}' if model else ''}: {lack}")
    return found or [_unanswered(claim, reasons, scales)]


def _unanswered(claim: Claim, reasons: Sequence[str], scales: Sequence[str]) -> Verdict:
    """The verdict where no sweep can answer, at the smallest scale that it could have been at."""
    command = f"python -m cegppo_lab sweep {claim.sweeps[0]}"
    told = "; ".join(reasons) or f"there is no sweep {' or '.join(claim.sweeps)}"
    reason = told if command in told else f"{told}; type: {command}"
    scale = min(scales, key=SCALES.index, default=SCALES[0])
    return Verdict(
        claim.id, claim.statement, claim.source, UNTESTED, scale, f"untested: {reason}",
        reason=reason,
    )  # fmt: skip
