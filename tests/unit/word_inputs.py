"""Strategies for ``key=value`` words and budgets: right, nearly right, and hostile."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from cegppo_lab.sweep.spec import SweepSpec
from tests.unit.plan_inputs import KEYS, PLACES, VALID, keys, numbers, str_or_hex, values, words

_GRAMMAR = [
    *(
        "a",
        "seed",
        "seeds",
        "=",
        "==",
        "=1",
        "+",
        "++",
        "~",
        "@",
        ":",
        ".",
        ",",
        "[",
        "]",
        "{",
        "}",
    ),
    *("'", '"', "\\", "\\'", "$", "${seed}", "${", "a,b", "1,2", "range(1,3)", "choice(1,2)", "$$"),
    *("glob(*)", "interval(0,1)", "sort(2,1)", "shuffle(1,2)", "int(x)", "str(1)", "float('a')"),
    *("int([1,a])", "json_str({a:1})", "extend_list(1)", "null", "true", "nan", "inf", "-inf", " "),
    *(
        "1e999",
        "9" * 5000,
        "0x1f",
        "1_000",
        "{0:0.5,9:1}",
        "[[[1]]]",
        "{a:{b:[1,{c:2}]}}",
        "\t",
        "\n",
    ),
    *(
        "[" * 300,
        "(",
        ")",
        "#",
        "%",
        "é",
        "\ud800",
        "\x00",
        "x" * 300,
        "name",
        "grid.",
        "arms.",
        "base.",
    ),
]


_CONSTANTS = {True: "true", False: "false", None: "null"}


def as_word(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{as_word(k)}:{as_word(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(as_word, value)) + "]"
    return _CONSTANTS[value] if value is None or isinstance(value, bool) else str_or_hex(value)


_right_words = st.sampled_from(sorted(VALID)).flatmap(
    lambda key: VALID[key].map(lambda value: f"{key}={as_word(value)}")
)
_place_values = st.sampled_from(
    [
        *("'~nobody/x'", "'~'", "x" * 300, "a/" * 2100, ".", "..", "/", "''", "a/b", "x.gguf"),
        *(
            "table_walk",
            "sweep.yaml",
            "[sweep.yaml]",
            "[chain,'']",
            "/dev/null",
            "https://x y",
            "'a\tb'",
        ),
        *(
            "['~nobody.yaml']",
            f"[{'x' * 300}.yaml]",
            "[[chain]]",
            "{a:1}",
            "null",
            "0",
            "[a,a]",
            "a//b",
        ),
        *("owner/name", "owner/na me", "'o\\n/n'", "-/-", "/root", "/proc/self/mem", "é/😀"),
    ]
)
_misplaced = st.builds("{}={}".format, st.sampled_from(PLACES), _place_values)
_mistaken = st.builds("{}={}".format, st.sampled_from(KEYS), values.map(as_word))
sweep_words = (
    _right_words
    | _misplaced
    | _mistaken
    | st.builds("{}={}".format, keys, values.map(as_word))
    | st.builds(
        "{}={}".format,
        st.sampled_from([*SweepSpec.model_fields, "grid.algorithm.beta1", "arms.A", "zip.x"]),
        values.map(as_word),
    )
    | st.lists(st.sampled_from(_GRAMMAR) | keys, max_size=6).map("".join)
    | st.text(max_size=20)
)
benchmark_words = st.builds(
    "{}.{}={}".format,
    st.sampled_from(["aime24", "table_walk", "chain"]),
    st.sampled_from(["samples", "task", "task.path", "name", "count", "content_sha256", "title"])
    | words,
    values.map(as_word) | st.just("{1:2,name:math}"),
)
budgets = words | st.builds(
    "{}{}".format,
    numbers.map(str_or_hex) | st.floats(0, 1e6).map(str),
    st.sampled_from(["h", "gpuh", "CPUH", " h", "", "d", "h\n"]),
)
overrides_for_all = st.fixed_dictionaries(
    {},
    optional={
        "trainer.steps": st.integers(600, 10**6),
        "trainer.lr": st.floats(1e-8, 1e-2),
        "trainer.grad_clip": st.floats(0.1, 10),
        "trainer.weight_decay": st.floats(0, 1),
        "runtime.threads": st.integers(1, 64),
        "runtime.checkpoint_every": st.integers(1, 100),
    },
)
"""What every shipped sweep leaves open."""
