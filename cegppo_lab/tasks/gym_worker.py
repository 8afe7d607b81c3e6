"""The process in which reasoning_gym makes problems and scores answers, one JSON line each.

It is run as a file and imports :mod:`cegppo_lab.serving` alone of this package. Its parent gives it
a fixed hash seed, and it seeds the global generators before every entry: some of the package's data
sets depend on either, and the same index must be the same problem in every process. Some scorers
evaluate the answer as Python: :data:`SYMBOLIC` ones get arithmetic only, :data:`LITERAL` ones read
literals only. All have a limit on CPU time and memory.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import importlib.metadata
import json
import os
import random
import re
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from cegppo_lab.serving import requests

MAX_ANSWER_CHARACTERS = 2000
"""A longer answer gets 0, unless the problem's own answer is long as well."""
SCORE_CPU_S = 2.0
CREATE_CPU_S = 120.0
MEMORY_BYTES = 2 << 30
KEPT_ENTRIES = 4096
SYMBOLIC = frozenset(
    {
        "countdown",
        "intermediate_integration",
        "polynomial_multiplication",
        "puzzle24",
        "simple_integration",
    }
)
"""Data sets of reasoning_gym 0.1.25 whose scorers pass the answer to sympy, which evaluates it.

``Integral(...)`` is no arithmetic: unevaluated it would solve any integral, as do a seventh of the
own answers of intermediate_integration.
"""
LITERAL = frozenset({"binary_matrix", "n_queens", "spiral_matrix", "string_insertion"})
"""Those that look for a list in the answer, with ``eval``."""

_FUNCTIONS = "sin cos tan sec csc cot asin acos atan sinh cosh tanh exp log ln sqrt pi erf Abs"
_ARITHMETIC = re.compile(
    rf"(?:[\d\s+\-*/^(),=]|\d\.\d*|\.\d|(?<![^\W\d])[A-Za-z](?![^\W\d])"
    rf"|(?<![^\W\d])(?:{'|'.join(_FUNCTIONS.split())})(?![^\W\d]))*"
)


class _RefusedError(Exception):
    """What the parent is to tell its user."""

    def __init__(self, **message: Any) -> None:
        self.message = message


def is_arithmetic(answer: str) -> bool:
    """Whether it is made of numbers, operators, brackets, single letters and known functions."""
    return _ARITHMETIC.fullmatch(answer) is not None


@lru_cache(maxsize=1)
def _datasets() -> Mapping[str, Any]:
    """The package's data sets, where ``eval`` of an answer is a reading of literals."""
    from reasoning_gym.factory import DATASETS

    for name in LITERAL & DATASETS.keys():
        sys.modules[DATASETS[name][0].__module__].eval = ast.literal_eval
    return DATASETS


@lru_cache(maxsize=64)
def _dataset(description: str) -> Any:
    from reasoning_gym import create_dataset

    known = _datasets()
    name, options, seed, size = json.loads(description)
    if name not in known:
        raise _RefusedError(unknown="dataset", given=name, allowed=sorted(known))
    fields = {field.name for field in dataclasses.fields(known[name][1])} - {"seed", "size"}
    for option in options:
        if option not in fields:
            raise _RefusedError(unknown="option", given=option, allowed=sorted(fields))
    if name == "composite":
        from reasoning_gym.composite import DatasetSpec

        parts = [{"weight": 1.0, "config": {}, **part} for part in options.get("datasets") or []]
        options = {**options, "datasets": [DatasetSpec(**part) for part in parts]}
    _seed_everything(seed)
    return create_dataset(name, seed=seed, size=size, **options)


@lru_cache(maxsize=KEPT_ENTRIES)
def _entry(description: str, index: int) -> Mapping[str, Any]:
    dataset = _dataset(description)
    _seed_everything(index)
    return dataset[index]


def _seed_everything(seed: int) -> None:
    import numpy as np

    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  (it is what the package draws from)


def check(description: str) -> dict[str, Any]:
    """That the data set can be made, and by which version."""
    _dataset(description)
    return {"version": importlib.metadata.version("reasoning-gym")}


def problem(description: str, index: int) -> dict[str, Any]:
    """Question and answer; an answer that is no text (any that solves it will do) is empty."""
    entry = _entry(description, index)
    answer = entry["answer"]
    return {"question": str(entry["question"]), "answer": answer if isinstance(answer, str) else ""}


def score(description: str, index: int, answer: str) -> dict[str, Any]:
    """The data set's own score of an answer, within [0, 1]."""
    entry = _entry(description, index)
    own = entry["answer"] if isinstance(entry["answer"], str) else ""
    if len(answer) > max(MAX_ANSWER_CHARACTERS, 2 * len(own)):
        return {"score": 0.0}
    name = json.loads(description)[0]
    sources = {name, entry.get("metadata", {}).get("source_dataset")}
    if sources & SYMBOLIC and not is_arithmetic(answer):
        return {"score": 0.0}
    try:
        value = float(_dataset(description).score_answer(answer, entry))
    except Exception:  # whatever a scorer makes of a hostile answer, it is no right one
        value = 0.0
    return {"score": min(max(value, 0.0), 1.0) if value == value else 0.0}


_ACTIONS: dict[str, tuple[Callable[..., dict[str, Any]], float]] = {
    "check": (check, CREATE_CPU_S),
    "problem": (problem, CREATE_CPU_S),
    "score": (score, SCORE_CPU_S),
}


def answered(request: Mapping[str, Any]) -> dict[str, Any]:
    """The reply to ``{"do": action, ...arguments}``: a result, or what was refused and why."""
    action, _ = _ACTIONS[request["do"]]
    arguments = {key: value for key, value in request.items() if key != "do"}
    try:
        return action(**arguments)
    except _RefusedError as refused:
        return refused.message
    except Exception as error:
        told = str(error).strip().splitlines() or [""]
        return {"error": f"{type(error).__name__}: {told[0]}"[:300]}


def _serve(parent: int, reply: Callable[[Any], None]) -> None:
    for request in requests(parent):
        if request["do"] == "score":  # the entry is not made on the scorer's time
            _limited({key: request[key] for key in ("description", "index")} | {"do": "problem"})
        reply(_limited(request))


def _limited(request: Mapping[str, Any]) -> dict[str, Any]:
    """The reply, if it comes within the action's CPU time: else the kernel ends this process.

    Wall time would make scores depend on what else the machine does.
    """
    signal.setitimer(signal.ITIMER_PROF, _ACTIONS[request["do"]][1])
    reply = answered(request)
    signal.setitimer(signal.ITIMER_PROF, 0)
    return reply


def main(parent: int) -> None:
    """Serve the parent; standard output carries replies and nothing that a library prints."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGPROF])
    with os.fdopen(os.dup(1), "w", buffering=1) as out, contextlib.suppress(BrokenPipeError):
        os.dup2(2, 1)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _serve(parent, lambda message: out.write(json.dumps(message) + "\n"))


if __name__ == "__main__":
    main(int(sys.argv[1]))
