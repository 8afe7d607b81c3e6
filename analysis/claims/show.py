"""The ledger as JSON, as a table for the terminal, and as what a page needs of it."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.claims.judge import HOLDS, INCONCLUSIVE, REFUTED, UNTESTED, PartVerdict, Verdict
from analysis.stats import LEVEL

WIDTH = 108
"""Columns of the terminal table at most."""
COUNTED = (HOLDS, REFUTED, INCONCLUSIVE, UNTESTED)


def to_json(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """Plain objects, one a verdict, with every field; a number that there is not is null."""
    return [
        {
            "id": verdict.id,
            "statement": verdict.statement,
            "source": verdict.source,
            "verdict": verdict.verdict,
            "scale": verdict.scale,
            "sentence": verdict.sentence,
            "reason": verdict.reason,
            "evidence": verdict.evidence,
            "sweep": verdict.sweep,
            "model": verdict.model,
            "estimate": _number(verdict.estimate),
            "low": _number(verdict.low),
            "high": _number(verdict.high),
            "n_seeds": verdict.n_seeds,
            "method": verdict.method,
            "trials": list(verdict.trials),
            "parts": [_part(part) for part in verdict.parts],
        }
        for verdict in verdicts
    ]


def to_terminal(verdicts: Sequence[Verdict]) -> str:
    """The ledger in plain text, at most ``WIDTH`` columns wide."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("claim", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("of the paper, and what decided", overflow="fold")
    for verdict in verdicts:
        told = f"{verdict.statement}\n{_evidence(verdict)}"
        table.add_row(verdict.id, f"{verdict.verdict}\n{verdict.scale}", Text(told))
    console = Console(file=io.StringIO(), width=WIDTH, color_system=None)
    console.print(table)
    console.print(Text(f"{summary(verdicts)} {explanation()}"))
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"


def rows_for_page(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """What a template needs of each verdict, as text; nothing is escaped here."""
    return [
        {
            "id": verdict.id,
            "statement": verdict.statement,
            "source": verdict.source,
            "verdict": verdict.verdict,
            "scale": verdict.scale,
            "sentence": verdict.sentence,
            "where": _where(verdict),
            "parts": [part.text for part in verdict.parts],
            "trials": list(verdict.trials),
        }
        for verdict in verdicts
    ]


def summary(verdicts: Sequence[Verdict]) -> str:
    """How many verdicts of each kind, by scale: ``At embedded scale: holds 5, refuted 2.``."""
    sentences = []
    for scale in dict.fromkeys(verdict.scale for verdict in verdicts):
        own = [verdict.verdict for verdict in verdicts if verdict.scale == scale]
        counts = [f"{kind} {own.count(kind)}" for kind in COUNTED if kind in own]
        sentences.append(f"At {scale} scale: {', '.join(counts)}.")
    return " ".join(sentences)


def explanation() -> str:
    """How the verdicts are made; belongs under every printed ledger."""
    return (
        f"A part holds where its whole {LEVEL:.0%} interval lies on the claimed side of the "
        "threshold, and is refuted where it lies on the other; a claim holds where all its parts "
        "hold and is refuted where any is, with no correction for their number. Thresholds that "
        "the paper does not state are ours (claims.yaml says which). What holds or fails at "
        "embedded or GPU scale says nothing about the paper's models."
    )


def _evidence(verdict: Verdict) -> str:
    """The sweep that answered, and the part that decided; or why none did."""
    return f"{_where(verdict)}: {verdict.evidence}" if verdict.parts else verdict.sentence


def _where(verdict: Verdict) -> str:
    """The sweep and the model that answered, "" where none did."""
    return ", ".join(filter(None, (verdict.sweep, verdict.model)))


def _part(part: PartVerdict) -> dict[str, Any]:
    estimate = part.estimate
    return {
        "label": part.label,
        "measure": part.measure,
        "direction": part.direction,
        "threshold": part.threshold,
        "guard": part.guard,
        "estimate": _number(estimate.value),
        "low": _number(estimate.low),
        "high": _number(estimate.high),
        "n_seeds": estimate.n_seeds,
        "n_planned": part.n_planned,
        "method": estimate.method,
        "verdict": part.verdict,
        "reason": part.reason,
        "text": part.text,
    }


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
