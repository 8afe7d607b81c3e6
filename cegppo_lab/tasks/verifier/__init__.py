"""Whether a response's boxed answer equals the reference: the reward of mathematics tasks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

from cegppo_lab.errors import LabError
from cegppo_lab.tasks.verifier.latex import last_box
from cegppo_lab.tasks.verifier.pool import Pool
from cegppo_lab.tasks.verifier.rules import Pairs, readings

DEFAULT_TIMEOUT_S = 5.0
_POOL = Pool(size=min(4, os.cpu_count() or 1))


def verify(response: str, answer: str, timeout: float = DEFAULT_TIMEOUT_S) -> bool:
    r"""Whether the last ``\boxed{}`` of ``response`` holds ``answer`` (LaTeX or plain).

    The paper's reward: math-verify on the boxed answer. What is no algebra is settled by text;
    the rest goes to a worker process. No box, a box that never closes, an answer above 2000
    characters, and a comparison that takes too much time (``timeout``, seconds) or memory (1 GiB)
    are wrong. May be called from any thread, and in daemonic and Ray processes.

    Raises:
        LabError: math-verify is not installed, or does not judge known pairs as it should.
    """
    given = readings_of(response, answer)
    return given if isinstance(given, bool) else _POOL.judge(given, timeout)


def verify_batch(
    pairs: Sequence[tuple[str, str]], timeout: float = DEFAULT_TIMEOUT_S, pool: Pool = _POOL
) -> list[bool]:
    """:func:`verify` of each (response, answer), on all workers at once; ``timeout`` is for each.

    ``pool``: other workers than this process's own.

    Raises:
        LabError: as :func:`verify`.
    """
    verdicts = [readings_of(response, answer) for response, answer in pairs]
    open_ = list(dict.fromkeys(tuple(v) for v in verdicts if not isinstance(v, bool)))
    if not open_:
        return verdicts
    with ThreadPoolExecutor(min(pool.size, len(open_)), "verifier") as threads:
        judged = threads.map(lambda given: pool.judge(list(given), timeout), open_)
        found = dict(zip(open_, judged, strict=True))
    return [v if isinstance(v, bool) else found[tuple(v)] for v in verdicts]


def readings_of(response: str, answer: str) -> bool | Pairs:
    """The verdict where text alone settles it, else the LaTeX pairs that algebra is to compare.

    Raises:
        LabError: math-verify is not installed.
    """
    if find_spec("math_verify") is None:
        raise LabError("the answer verifier needs math-verify: pip install math-verify")
    boxed = last_box(response)
    return False if boxed is None else readings(answer, boxed)


def worker_pids() -> list[int]:
    """Process ids of this process's verifier workers."""
    return _POOL.pids()
