"""Strategies for sweep files, right, nearly right and hostile; words: see ``word_inputs``."""

from __future__ import annotations

from typing import Any

import yaml
from hypothesis import strategies as st

from cegppo_lab.compose import resolve
from cegppo_lab.sweep.plan import flattened
from cegppo_lab.sweep.spec import SweepSpec, sweep_files

_GROUPS = {
    "algorithm": ["cegppo", "cispo", "dapo", "gppo", "grpo", "gspo", "ppo", ""],
    "task": ["table_walk", "chain", "math", "small_sums", "reasoning_gym"],
    "model": ["table_walk", "chain", "smollm2-135m", "r1-distill-qwen-7b"],
    "trainer": ["embedded", "verl"],
}
KEYS = sorted(
    {key for task in ("table_walk", "chain") for key in flattened(resolve({"task": task}).tree())}
    | set(flattened(resolve({"trainer": "verl", "algorithm": "dapo"}).tree()))
)
_HUGE = [10**20, -(10**400), 1e308, float("inf"), float("-inf"), float("nan")]
_NASTY_TEXT = [
    *("", " ", "a\nb", "\x00", "\x1b[31m", "\ud800", "\u2028", "é😀", "~nobody", "x" * 300),
    *(
        "..",
        "/",
        "a/b",
        "null",
        "true",
        "1e999",
        "${seed}",
        "${oc.env:HOME}",
        "???",
        "a=b",
        "[",
        "{",
    ),
]

PLACES = [
    *("model.path", "model.name", "benchmarks", "runtime.store", "runtime.report"),
    *("task.path", "task.heldout_path", "task.file", "task.revision", "runtime.mlflow", "name"),
]

words = st.text(max_size=12) | st.sampled_from(_NASTY_TEXT)
numbers = st.integers(-3, 70) | st.floats(-2, 2) | st.sampled_from(_HUGE) | st.floats()
scalars = st.none() | st.booleans() | numbers | words
schedules = st.dictionaries(
    st.integers(-1, 40) | st.sampled_from(["0", "7", "x", "²"]),
    st.floats(0, 2) | scalars,
    max_size=3,
)
values = st.recursive(
    scalars | schedules,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(words | st.integers(), inner, max_size=3)
    ),
    max_leaves=6,
)
keys = (
    st.sampled_from(KEYS)
    | st.sampled_from([*_GROUPS, "seed", "benchmarks", "runtime", "name"])
    | st.builds("{}.{}".format, st.sampled_from([*_GROUPS, "runtime"]), words)
    | words
)
VALID = {
    "algorithm.beta1": st.floats(0, 2)
    | st.fixed_dictionaries({0: st.floats(0, 2), 9: st.just(0.5)}),
    "algorithm.beta2": st.floats(0, 2),
    "algorithm.clip_low": st.floats(0.01, 0.9),
    "algorithm.entropy_coef": st.floats(0, 0.1),
    "algorithm.kl_coef": st.floats(0, 0.1),
    "trainer.steps": st.integers(1, 10**6),
    "trainer.lr": st.floats(1e-8, 1e-2),
    "trainer.temperature": st.floats(0.1, 2),
    "trainer.filter_groups": st.booleans(),
    "runtime.threads": st.integers(1, 64),
    "runtime.token_samples": st.integers(0, 500),
}
"""Keys that every CE-GPPO run takes, and values that are right for them."""

valid_overrides = st.fixed_dictionaries({}, optional=VALID)


_mistakes = st.integers(0, 3).map(lambda drawn: drawn == 3)
"""Whether a part is wrong: seldom enough that most files have one mistake or none."""


@st.composite
def overrides(draw: st.DrawFn) -> dict[Any, Any]:
    """A mapping of keys to values, as an arm or the base has it."""
    tree: dict[Any, Any] = {"algorithm": "cegppo", **draw(valid_overrides)}
    if draw(_mistakes):
        group = draw(st.sampled_from(sorted(_GROUPS)))
        tree[group] = draw(st.sampled_from(_GROUPS[group]))
    if draw(_mistakes):
        tree[draw(keys | st.sampled_from(PLACES))] = draw(values)
    return tree


valid_axes = st.dictionaries(st.sampled_from(sorted(VALID)), st.none(), max_size=2).flatmap(
    lambda axes: st.fixed_dictionaries(
        {key: st.lists(VALID[key], min_size=2, max_size=2) for key in axes}
    )
)
hostile_axes = st.dictionaries(keys, st.lists(values, max_size=2), max_size=2)


@st.composite
def sweep_trees(draw: st.DrawFn) -> dict[Any, Any]:
    """What a sweep file holds; some of its keys may be of a wrong kind, unknown or missing."""
    tree: dict[Any, Any] = {
        "question": draw(st.just("Why?") | words),
        "base": draw(overrides()),
        "arms": draw(st.dictionaries(words, valid_overrides, max_size=3)),
        "seeds": draw(st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True)),
        "notes": draw(st.lists(words, max_size=2)),
        draw(st.sampled_from(["grid", "zip"])): draw(valid_axes),
    }
    if draw(_mistakes):
        tree["arms"] = draw(st.dictionaries(words, overrides(), max_size=3))
    if draw(_mistakes):
        tree[draw(st.sampled_from(["grid", "zip"]))] = draw(hostile_axes)
    if draw(_mistakes):
        tree["allow_differences"] = draw(st.lists(st.sampled_from(KEYS) | words, max_size=2))
    if draw(_mistakes):
        del tree[draw(st.sampled_from(sorted(tree)))]
    if draw(_mistakes):
        tree[draw(st.sampled_from(sorted(SweepSpec.model_fields)) | scalars)] = draw(values)
    return tree


def as_yaml(tree: Any) -> str:
    """``tree`` as a user may have written it."""
    return yaml.safe_dump(tree, allow_unicode=True, sort_keys=False)


_SHIPPED_TEXT = [path.read_text(encoding="utf-8") for path in sweep_files().values()]
_FRAGMENTS = [
    *(
        "!!python/object:os.system {}",
        "!!python/name:os.system",
        "!!int x",
        "!!float x",
        "!!bool x",
    ),
    *("!!timestamp x", "!!binary é", "!!set {a}", "!!omap [a: 1]", "!!null x", "2001-99-99", "0x_"),
    *("&a [*a]", "&b {c: *b}", "*a", "<<: 3", "<<: {? [1] : 2}", "<<: [{a: 1}, 2]", "? [1]\n: 2"),
    *("{? {a: 1} : 2}", "a: 1\na: 2\n", "---\n", "...\n", "%YAML 9.9\n", "\t", "\x07", "\ufeff"),
    *(
        "0x" + "f" * 4000,
        "9" * 5000,
        "1:60:60",
        ".inf",
        "-.nan",
        "{",
        "}",
        "[",
        "]",
        ": ",
        "- ",
        "|",
    ),
    *("[" * 600, "{a: " * 600, "seeds: [1]\n", "base: 3\n", "arms: [a]\n", "grid: {a: 1}\n", "'"),
    *("arms: {A: {algorithm: grpo}, B: {algorithm: grpo}}\n", "algorithm.beta1: {0: 1, 5: 2}\n"),
]


@st.composite
def sweep_texts(draw: st.DrawFn) -> str:
    """A sweep file's text: of a shipped sweep or a tree, cut and spliced; or of fragments alone."""
    source = st.sampled_from(_SHIPPED_TEXT) | sweep_trees().map(as_yaml) | st.just("")
    text = draw(source)
    for _ in range(draw(st.integers(0, 3))):
        at, length = draw(st.integers(0, len(text))), draw(st.integers(0, 12))
        piece = draw(st.sampled_from(_FRAGMENTS) | words | scalars.map(str_or_hex))
        text = text[:at] + piece + text[at + length :]
    return text


def str_or_hex(value: Any) -> str:
    """``str``, but for whole numbers that Python refuses to print."""
    return hex(value) if isinstance(value, int) and value.bit_length() > 9999 else str(value)
