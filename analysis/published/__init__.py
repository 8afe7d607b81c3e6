"""The paper's own numbers, to be set beside one's own: facts with their source, never measured.

Source: CE-GPPO, arXiv 2509.20712 v5: Table 1, Table 2, and Figures 1 and 2 (read off, approximate).
README.md beside the files has the units and what is not known.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

import pandas as pd

from cegppo_lab.errors import unknown

SOURCE = "arXiv 2509.20712 v5"
AVERAGE = "Avg"
"""The column of Table 2 that is the mean of the other ones."""

TABLES = {1: "table1.csv", 2: "table2.csv"}
FIGURES = (1, 2)
_KEYS = ["model", "method", "beta1", "beta2"]
_MODELS = {
    "r1distillqwen15b": "DS-R1-Distill-Qwen-1.5B",
    "r1distillqwen7b": "DS-R1-Distill-Qwen-7B",
}
_MAKERS = r"^(deepseekai)?(deepseek|ds)?"
_BENCHMARKS = {
    "livecodebenchv6": "LCB_v6",
    "ifbenchprompt": "IFBench_P",
    "ifbenchinstance": "IFBench_I",
}


def published_table(number: int) -> pd.DataFrame:
    """Table 1 or 2, one row a cell: model, method, beta1, beta2, benchmark, value (percent).

    ``method`` is named as the suite names arms, e.g. ``CE-GPPO(0.5, 1)``; ``base`` is the policy
    before training. Betas are NaN where the method has none. Table 2's ``Avg`` is a benchmark here.
    Raises ``LabError`` for another number.
    """
    if number not in TABLES:
        raise unknown("table", str(number), map(str, TABLES))
    wide = _read(TABLES[number])
    order = list(wide.columns.drop(_KEYS))
    wide["method"] = [_arm(row) for row in wide.to_dict("records")]
    rows = wide.reset_index().melt(["index", *_KEYS], order, "benchmark")
    rows = rows.sort_values("index", kind="stable")
    return rows[[*_KEYS, "benchmark", "value"]].reset_index(drop=True)


def published_curve(figure: int) -> pd.DataFrame:
    """What was read off Figure 1 (right) or 2, approximately: series, quantity, step, value.

    ``quantity``: entropy, or entropy_low and entropy_high (a range, nats per token), or accuracy
    (avg@32 on AIME24, a share in [0, 1]). ``series`` is the arm's name. ``step`` is NaN where the
    value was read and its step was not. Raises ``LabError`` for another figure.
    """
    if figure not in FIGURES:
        raise unknown("figure with published read-offs", str(figure), map(str, FIGURES))
    rows = _read("figure2.csv")
    return rows[rows["figure"] == figure].drop(columns="figure").reset_index(drop=True)


def published_model(name: str) -> str | None:
    """The paper's name of a policy that it trained, e.g. of ``r1-distill-qwen-7b``; else None."""
    return _MODELS.get(re.sub(_MAKERS, "", _plain(name)))


def published_benchmark(name: str) -> str | None:
    """The paper's name of a benchmark that it reports, e.g. of ``aime24``; else None."""
    return _benchmarks().get(_plain(name))


@cache
def _benchmarks() -> dict[str, str]:
    """The paper's name of every benchmark by its plain letters."""
    columns = {column for file in TABLES.values() for column in _read(file).columns}
    return {_plain(column): column for column in columns - {AVERAGE, *_KEYS}} | _BENCHMARKS


def _read(name: str) -> pd.DataFrame:
    with files(__name__).joinpath(name).open(encoding="utf-8") as file:
        return pd.read_csv(file)


def _arm(row: dict) -> str:
    if pd.isna(row["beta1"]):
        return row["method"]
    return f"{row['method']}({row['beta1']:g}, {row['beta2']:g})"


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
