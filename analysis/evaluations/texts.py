"""What the page and the terminal say of an evaluation, composed from its numbers."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Sequence
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.evaluations.entry import Evaluated
from analysis.evaluations.table import AccuracyTable, cell
from analysis.paper_tables.layout import DASH
from analysis.stats import LEVEL, Estimate
from analysis.tables import TERMINAL_WIDTH, Section

TOLD, SHOWN_POLICIES, SHOWN_CHARACTERS = 6, 4, 1_500


def answer(frame: pd.DataFrame, differences: pd.DataFrame) -> list[str]:
    """A sentence a benchmark: the mean scores, and how many differ from the first policy's."""
    sentences = []
    rows = frame[(frame["measure"] == "avg") & frame["value"].notna() & frame["k"].notna()]
    for benchmark, own in rows.groupby("benchmark", sort=False):
        ks = " or ".join(str(int(k)) for k in sorted(own["k"].unique()))
        told = [f"{row['policy']} {cell(row).text}" for row in own.to_dict("records")]
        rest = f" and {len(told) - TOLD} more" if len(told) > TOLD else ""
        sentence = f"avg@{ks} on {benchmark}, percent: {'; '.join(told[:TOLD])}{rest}"
        against = differences[differences["benchmark"] == benchmark]
        sentences.append(f"{sentence}{_apart(against)}.")
    return sentences


def _apart(against: pd.DataFrame) -> str:
    """How the other policies differ from the first: the difference, or of several how many do."""
    if against.empty:
        return ""
    first = against["reference"].iloc[0]
    if len(against) == 1:
        (row,) = against.to_dict("records")
        estimate = _estimate(row["difference"], row, 0)
        return f"; {row['policy']} minus {first}: {estimate.text(1, signed=True)} points"
    apart = int((against["low"] * against["high"] > 0).sum())
    return (
        f"; the paired {LEVEL:.0%} interval of the difference to {first} excludes 0 for {apart} "
        f"of {len(against)}"
    )


def to_terminal(table: AccuracyTable, notes: Sequence[str]) -> str:
    """The mean scores and ``notes`` in plain text, at most ``TERMINAL_WIDTH`` columns wide."""
    part = table.parts()[0].section()
    printed = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for head in part.header:
        printed.add_column(head, overflow="fold")
    for row in part.rows:
        printed.add_row(Text(row[0]), *(Text(text.replace(", ", ",")) for text in row[1:]))
    console = Console(file=io.StringIO(), width=TERMINAL_WIDTH, color_system=None)
    console.print(Text(part.title))
    console.print(printed)
    for note in notes:
        console.print(Text(note))
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"


def difference_section(differences: pd.DataFrame) -> Section | None:
    """The differences to the first policy, as pages print tables; None where there is none."""
    if differences.empty:
        return None
    rows = []
    for row in differences.to_dict("records"):
        estimate = _estimate(row["difference"], row, 0)
        p = [DASH if pd.isna(row[key]) else f"{row[key]:.2g}" for key in ("p", "p_holm")]
        rows.append([row["policy"], row["benchmark"], estimate.text(1, signed=True), *p])
    first = differences["reference"].iloc[0]
    header = ["policy", "benchmark", "percent points", "p (sign flips)", "p (Holm)"]
    return Section(f"avg@k minus {first}'s, on the same problems", header, rows)


def response_section(responses: pd.DataFrame) -> Section:
    """Length and truncation, as pages print tables."""
    rows = []
    for (policy, benchmark), own in responses.groupby(["policy", "benchmark"], sort=False):
        texts = [
            _estimate(row["value"], row, row["problems"]).text(1) for row in own.to_dict("records")
        ]
        rows.append([policy, benchmark, str(own["responses"].iloc[0]), *texts])
    header = ["policy", "benchmark", "responses", "length (tokens)", "cut at the budget (%)"]
    return Section("Length, and what was cut", header, rows)


def _estimate(value: float, row: dict[str, Any], n: int) -> Estimate:
    low, high = (None if pd.isna(row[side]) else row[side] for side in ("low", "high"))
    return Estimate(value, low, high, n, row["method"])


def benchmark_rows(found: Sequence[Evaluated]) -> list[tuple[str, list[tuple[str, str]]]]:
    """(title, facts) of every benchmark: source, count, hash, sampling, prompt template."""
    shown = []
    for done in {done.column: done for done in found if done.sampling}.values():
        sampling, task = done.sampling, done.benchmark.get("task", {})
        facts = {
            "source": done.benchmark.get("source"),
            "problems": f"{done.entry.problems or done.benchmark.get('count')} of "
            f"{done.benchmark.get('count')}",
            "content (sha256)": sampling.get("content_hash"),
            "prompts (sha256)": sampling.get("prompts_hash"),
            "samples a problem (k)": done.entry.samples,
            "temperature": sampling.get("temperature"),
            "top-p": sampling.get("top_p"),
            "token budget": sampling.get("max_tokens"),
            "task": task.get("name"),
            "prompt template": task.get("prompt_template", "the task's own"),
        }
        shown.append((done.column, [(key, _word(value)) for key, value in facts.items()]))
    return shown


def policy_section(found: Sequence[Evaluated]) -> Section:
    """What each policy is, and how it was run: one row an evaluation."""
    rows = []
    for done in found:
        policy = done.config.get("policy", {})
        trial, step = policy.get("trial_id"), policy.get("step")
        rows.append([
            done.entry.policy, done.column, f"{trial}, step {step}" if trial else DASH,
            str(policy.get("weights_hash") or DASH)[:12],
            *(_word(policy.get(key)) for key in ("head_scale", "dtype", "chat_template")),
            _word(done.config.get("engine")), _word(done.config.get("seed")),
            f"{len(done.rows)} of {done.wanted}", done.entry.evaluation_id,
        ])  # fmt: skip
    header = ["policy", "benchmark", "trial", "weights", "head scale", "dtype", "chat template",
              "engine", "seed", "responses", "evaluation"]  # fmt: skip
    return Section("Policies, as they were run", header, rows)


def examples(found: Sequence[Evaluated]) -> list[tuple[str, list[dict[str, str]]]]:
    """(benchmark, responses): the first right and the first wrong one of the first policies."""
    shown = []
    for column in dict.fromkeys(done.column for done in found):
        own = [done for done in found if done.column == column and len(done.rows)]
        picked = [
            _example(done, rows.iloc[0])
            for done in own[:SHOWN_POLICIES]
            for rows in (done.rows[done.rows["correct"] >= 1], done.rows[done.rows["correct"] < 1])
            if len(rows)
        ]
        shown.append((column, picked))
    return shown


def _example(done: Evaluated, row: pd.Series) -> dict[str, str]:
    text, given = _printable(row["response"]), row["answer"]
    left = len(text) - SHOWN_CHARACTERS
    return {
        "head": f"{done.entry.policy}, {row['problem']}, sample {row['sample']}",
        "facts": f"score {row['correct']:g}, answer "
        + (repr(_printable(given)) if isinstance(given, str) else "none")
        + f", {row['length']} tokens{', cut at the budget' if row['truncated'] else ''}",
        "text": text[:SHOWN_CHARACTERS] + (f" ... ({left} more characters)" if left > 0 else ""),
    }


def _printable(text: str) -> str:
    """The text with what no page may hold (control characters, lone surrogates) replaced."""
    bad = {c for c in set(text) if c not in "\n\t" and unicodedata.category(c) in ("Cc", "Cs")}
    return text.translate({ord(c): "\N{REPLACEMENT CHARACTER}" for c in bad})


def _word(value: Any) -> str:
    return DASH if value is None else str(value).lower() if isinstance(value, bool) else str(value)
