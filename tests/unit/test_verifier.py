"""The verifier: right on hand-judged pairs, from any thread or process, and never stuck."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import psutil
import pytest
import yaml

from cegppo_lab.errors import LabError
from cegppo_lab.tasks.verifier import readings_of, verify, verify_batch, worker_pids
from cegppo_lab.tasks.verifier.latex import last_box
from cegppo_lab.tasks.verifier.pool import Worker

_ROOT = Path(__file__).parents[2]
_AIME = sorted((_ROOT.parent / "shared" / "data").glob("aime*.jsonl"))
_SLOW = r"\boxed{9^{9^{9^{9}}}}"
_ALGEBRA = (r"\boxed{\sqrt{12}}", r"2\sqrt{3}")  # no text rule settles it


def _judged() -> list[tuple[str, str, bool]]:
    """(response, reference, verdict) of the files."""
    rows = []
    for path in sorted(Path(__file__).parent.glob("verifier_pairs*.yaml")):
        pairs = yaml.safe_load(path.read_text(encoding="utf-8"))
        for verdict in ("right", "wrong"):
            rows += [(rf"\boxed{{{g}}}", gold, verdict == "right") for gold, g in pairs[verdict]]
        rows += [(given, gold, verdict) for gold, given, verdict in pairs.get("responses", [])]
    return rows


def test_hand_judged_pairs_get_their_verdicts() -> None:
    judged = _judged()
    assert len(judged) >= 1000
    assert len({row[:2] for row in judged}) == len(judged)
    verdicts = verify_batch([(response, gold) for response, gold, _ in judged])
    assert [row for row, v in zip(judged, verdicts, strict=True) if v is not row[2]] == []


def test_the_box_is_found_whatever_it_holds() -> None:
    assert last_box(r"a \boxed{\frac{1}{2}} b") == r"\frac{1}{2}"
    assert last_box(r"\boxed{\{1, \} \\{2}}") == r"\{1, \} \\{2}"
    assert last_box(r"\boxed{1} \boxed{2") is None
    assert last_box("no box") is None


@pytest.mark.skipif(not _AIME, reason="the AIME files are not here")
def test_every_aime_answer_agrees_with_itself_in_several_notations() -> None:
    rows = [json.loads(line) for path in _AIME for line in path.read_text().splitlines()]
    answers = [str(row["answer"]) for row in rows]
    assert len(answers) == 60
    notations = [
        "{0}", "{1:03d}", "${0}$", r"\text{{{0}}}", r"x = {0}", r"\mathbf{{{0}}}", r"{0}.0",
        r"\frac{{{2}}}{{2}}", r"{0}\,", r"{3} + 1", r"{0}\text{{ units}}", r"\left({0}\right)",
    ]  # fmt: skip
    written = [
        (rf"so $\boxed{{{form.format(a, int(a), 2 * int(a), int(a) - 1)}}}$", a)
        for a in answers
        for form in notations
    ]
    assert [row for row, v in zip(written, verify_batch(written), strict=True) if not v] == []
    off_by_one = [(rf"\boxed{{{int(answer) + 1} + 0}}", answer) for answer in answers]
    assert not any(verify_batch(off_by_one))


@pytest.mark.parametrize(
    "bomb",
    [
        "9**9**9**9",
        r"\frac{9^{9^9}}{9^{9^9}} 73",
        r"\prod_{i=1}^{10^9} i",
        r"\int_0^1 x^{x^{x^x}} dx",
        "(" * 900 + "73" + ")" * 900,
        r"\det\begin{pmatrix}"
        + r"\\".join("&".join(f"x_{{{9 * i + j}}}" for j in range(9)) for i in range(9))
        + r"\end{pmatrix}",
    ],
)
def test_a_hostile_answer_is_wrong_in_time_and_harms_nothing(bomb: str) -> None:
    begin = time.monotonic()
    assert verify(rf"\boxed{{{bomb}}}", "73", timeout=1) is False
    assert time.monotonic() - begin < 60  # the limit and two starts, on a crowded machine
    assert verify(*_ALGEBRA) is True


def test_megabytes_are_wrong_without_any_algebra() -> None:
    for response in (
        r"\boxed{" + "{" * 3_000_000,
        r"\boxed{" + "{" * 10**6 + "}" * 10**6 + "}",
        r"\boxed{" * 300_000,
        r"\boxed" * 300_000,
        "\\" * 3_000_000,
    ):
        assert verify(response, "73") is False
    assert verify(r"\boxed{73}", "{" * 10**6) is False
    assert verify(r"\boxed{7}" * 100_000 + r"\boxed{73}", "73") is True


@pytest.mark.parametrize("gold", ["73", r"2\sqrt3", "52_8", "1:2:3", "C", r"12\text{ cm}"])
def test_no_text_rule_stumbles_over_what_is_made_to_slow_it(gold: str) -> None:
    """Each repeats what one of the rules' expressions looks for, up to the longest answer."""
    begin = time.monotonic()
    for part in (
        *(
            "7",
            " ",
            ".",
            ",111",
            "1 111",
            "1 ",
            "1:",
            "/a",
            "a_",
            "a>",
            "a ",
            "A",
            "(,",
            "|",
            "10^",
        ),
        *(r"\ ", r"\pm", r"\text{", r"\text{ ", r"\mathrm{ ", r"\color{a", r"\frac ", "sqrt("),
        *(r"\hspace {", r"1.1\overline{", r"\{", r"\ge ", r"\circ^", "million ", "5million"),
        *("\u200b", "\ud800", "\0"),
    ):
        for tail in ("", "x", "%", "}", "_36", r"\pm"):
            answer = (part * 2000)[: 1990 - len(tail)] + tail
            assert readings_of(rf"\boxed{{{answer}}}", gold) is not True
    assert time.monotonic() - begin < 60


def _notations(value: Fraction) -> list[str]:
    """Ways to write ``value``."""
    top, below, size = value.numerator, value.denominator, abs(value)
    sign = "-" if top < 0 else ""
    written = [
        rf"\frac{{{top}}}{{{below}}}",
        f"{top}/{below}",
        rf"{sign}\dfrac{{{2 * abs(top)}}}{{{2 * below}}}",
        rf"x = \frac{{{top}}}{{{below}}}",
    ]
    if size > 1 and below > 1:
        whole, rest = divmod(abs(top), below)
        written += [rf"{sign}{whole}\frac{{{rest}}}{{{below}}}", f"{sign}{whole} {rest}/{below}"]
    if below == 1:
        written += [f"{top:,}", f"{top:,}".replace(",", "{,}"), f"{top}.0", rf"\text{{{top}}}"]
        written += [rf"{sign}\sqrt{{{top * top}}}", rf"{top - 1} + 1", rf"{top}\text{{ apples}}"]
    if 10**6 % below == 0:
        written += [f"{float(value):.6f}", rf"{float(value) * 100:.4f}\%"]
        written += [rf"{float(value) * 1000:.3f} \times 10^{{-3}}"]
    return written


def test_a_number_equals_itself_in_any_notation_and_no_other_number() -> None:
    draw = random.Random(5)
    equal, other = [], []
    for _ in range(20):
        value = Fraction(draw.randint(-9999, 9999), draw.choice([1, 1, 2, 3, 7, 8, 12]))
        gold = draw.choice(_notations(value)[:3])
        equal += [(rf"\boxed{{{given}}}", gold) for given in _notations(value)]
        near = value + Fraction(draw.choice([-1, 1]), draw.choice([1, 2, value.denominator]))
        other += [(rf"\boxed{{{given}}}", gold) for given in _notations(near)]
    assert [pair for pair, v in zip(equal, verify_batch(equal), strict=True) if not v] == []
    assert [pair for pair, v in zip(other, verify_batch(other), strict=True) if v] == []


def test_threads_get_their_own_verdicts() -> None:
    right, wrong = _ALGEBRA, (r"\boxed{\sqrt{13}}", r"2\sqrt{3}")
    with ThreadPoolExecutor(8) as threads:
        verdicts = list(threads.map(lambda pair: verify(*pair), [right, wrong] * 40))
        nested = list(threads.map(verify_batch, [[right, wrong]] * 8))
    assert verdicts == [True, False] * 40
    assert nested == [[True, False]] * 8
    assert len(worker_pids()) <= (os.cpu_count() or 1)


def _report(results: multiprocessing.SimpleQueue) -> None:
    results.put((verify(*_ALGEBRA), verify(r"\boxed{x^3}", "x^2"), worker_pids()))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_daemonic_process_verifies_with_workers_of_its_own(method: str) -> None:
    assert verify(*_ALGEBRA)
    context = multiprocessing.get_context(method)
    results = context.SimpleQueue()
    child = context.Process(target=_report, args=(results,), daemon=True)
    child.start()
    right, wrong, pids = results.get()
    child.join(60)
    assert (right, wrong) == (True, False)
    assert pids
    assert set(pids).isdisjoint(worker_pids())
    assert verify(*_ALGEBRA)  # the fork left ours alone


@pytest.mark.slow
def test_a_ray_worker_verifies() -> None:
    ray = pytest.importorskip("ray")
    ray.init("local", num_cpus=1, include_dashboard=False)
    try:
        remote = ray.remote(lambda: (verify(*_ALGEBRA), verify(r"\boxed{x^3}", "x^2")))
        assert ray.get(remote.remote()) == (True, False)
    finally:
        ray.shutdown()


def test_a_worker_is_kept_though_its_parent_is_large() -> None:
    """Linux hands the parent's peak memory down to a child's ru_maxrss; it is not the worker's."""
    ballast = bytearray(700 << 20)
    ballast[:: 1 << 12] = b"x" * len(ballast[:: 1 << 12])  # touched, so that it is resident
    worker = Worker()
    try:
        assert worker.judge([(r"2\sqrt{3}", r"\sqrt{12}")], timeout=60) == (True, True)
    finally:
        worker.kill()


def test_a_worker_killed_in_the_middle_is_replaced_and_the_verdict_stands() -> None:
    assert verify(*_ALGEBRA)
    before = worker_pids()
    for pid in before:
        os.kill(pid, signal.SIGSTOP)  # the request reaches a worker that cannot answer
    with ThreadPoolExecutor(1) as thread:
        verdict = thread.submit(verify, *_ALGEBRA, 60)
        time.sleep(0.2)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        assert verdict.result() is True
    assert set(worker_pids()) - set(before)
    assert verify_batch([_ALGEBRA] * 20) == [True] * 20


def test_no_worker_survives_the_kill_of_its_parent() -> None:
    script = f"""
import threading, time
from cegppo_lab.tasks.verifier import verify, verify_batch, worker_pids
verify(*{_ALGEBRA!r})
threading.Thread(target=verify, args=({_SLOW!r}, "73", 4), daemon=True).start()
time.sleep(0.5)
verify(*{_ALGEBRA!r}) if {os.cpu_count()} > 1 else None
print(*worker_pids(), flush=True)
time.sleep(100)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=_ROOT
    )
    workers = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
    assert workers
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 60
    while any(map(_lives, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(_lives, workers))


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_worker_with_a_math_verify_that_lies_refuses_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "math_verify"
    package.mkdir()
    (package / "__init__.py").write_text(
        "def parse(*_, **__): return []\ndef verify(*_, **__): return True\n"
    )
    (package / "grader.py").write_text("def sympy_numeric_eq(*_): return True\n")
    (package / "parser.py").write_text(
        "class LatexExtractionConfig:\n    def __init__(s, **_): 0\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(LabError, match=r"refuses to run: math-verify .* does not call"):
        Worker()


def test_without_math_verify_one_is_told_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "math_verify", None)
    with pytest.raises(LabError, match="pip install math-verify"):
        verify(r"\boxed{73}", "73")
