"""What a response may say to the scorers of reasoning_gym, and the process that they run in."""

from __future__ import annotations

import os
import re
import signal
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from cegppo_lab.tasks import Task, make_task
from cegppo_lab.tasks.gym_process import GYM
from cegppo_lab.tasks.gym_worker import LITERAL, SYMBOLIC, is_arithmetic

pytest.importorskip("reasoning_gym")


def _task(**options: Any) -> Task:
    return make_task("reasoning_gym", **options)


HOSTILE = [
    "__import__('os').system('touch {mark}')",
    "open('{mark}', 'w')",
    "().__class__.__base__.__subclasses__()",
    "exec(chr(49))",
    "lambda: 0",
    "preview(x)",
    "x" * 1_000_000,
    "(" * 1999,
    "9" * 1999,
    "[" * 1999,
    "\x00\ud800",
]


@pytest.mark.parametrize("name", sorted(SYMBOLIC | LITERAL))
def test_no_code_is_run_and_nothing_crashes(name: str, tmp_path: Path) -> None:
    task = _task(dataset=name, heldout_problems=1)
    (problem,) = task.heldout()
    assert task.reward(problem, f"<answer>{problem.answer}</answer>") == 1.0
    pid, mark = GYM.pid(), tmp_path / "mark"
    for text in HOSTILE:
        assert task.reward(problem, f"<answer>{text.replace('{mark}', str(mark))}</answer>") < 0.1
    assert not mark.exists()
    assert GYM.pid() == pid


def test_only_the_listed_scorers_evaluate_answers() -> None:
    """An upgrade of the package that adds one is found here."""
    package = Path(find_spec("reasoning_gym").origin).parent
    scorers = re.compile(r"def score_answer.*?(?=\n    def |\nclass |\Z)", re.DOTALL)
    code = {
        path.stem: "".join(scorers.findall(path.read_text(encoding="utf-8")))
        for path in package.rglob("*.py")
    }
    evaluating = {name for name, text in code.items() if re.search(r"\b(?:eval|exec)\(", text)}
    parsing = {name for name, text in code.items() if re.search(r"parse_expr|sympify", text)}
    assert evaluating - {"number_sorting"} == LITERAL  # that one evaluates its own answer
    assert parsing == SYMBOLIC


def test_lists_still_get_what_the_package_gives_for_them() -> None:
    task = _task(dataset="spiral_matrix", heldout_problems=1)
    (problem,) = task.heldout()
    listed = str([int(number) for number in problem.answer.split()])
    assert task.reward(problem, f"<answer>{listed}</answer>") == pytest.approx(0.1)
    assert task.reward(problem, f"<answer>list({listed})</answer>") == 0.0


def test_arithmetic_is_all_that_is_evaluated() -> None:
    for answer in (
        "(3 + 4)*2.5 - 10/2",
        "x**3/3 + C",
        "-2*exp(x)*sin(x)",
        "log(2*x)",
        ".5",
    ):
        assert is_arithmetic(answer), answer
    for answer in (
        "x.y",
        "ab",
        "x_1",
        "'a'",
        "eval(x)",
        "1;2",
        "{}",
        "sinx",
        "e.real",
        "a:=1",
        "é",
    ):
        assert not is_arithmetic(answer), answer


def test_a_bomb_ends_the_scorer_and_nothing_else() -> None:
    task = _task(dataset="countdown", heldout_problems=2)
    first, second = task.heldout()
    pid = GYM.pid()
    begun = time.process_time()
    assert task.reward(first, "<answer>9**9**9**9</answer>") < 0.1
    assert time.process_time() - begun < 1  # it was not this process that computed
    assert task.reward(second, f"<answer>{second.answer}</answer>") == 1.0
    assert GYM.pid() != pid


def test_a_killed_worker_is_replaced() -> None:
    task = _task()
    problem = task.heldout()[0]
    os.kill(GYM.pid(), signal.SIGKILL)
    assert task.reward(problem, f"<answer>{problem.answer}</answer>") == 1.0


def test_a_forked_child_has_a_worker_of_its_own_and_orphans_end() -> None:
    task = _task()
    problem = task.heldout()[0]
    mine, (read, write) = GYM.pid(), os.pipe()
    child = os.fork()
    if child == 0:
        right = task.reward(problem, f"<answer>{problem.answer}</answer>") == 1.0
        os.write(write, f"{GYM.pid() if right else 0}".encode())
        os._exit(0)
    theirs = int(os.read(read, 20))
    os.waitpid(child, 0)
    assert theirs not in (0, mine)
    assert task.reward(problem, f"<answer>{problem.answer}</answer>") == 1.0
    assert GYM.pid() == mine
    deadline = time.monotonic() + 10
    while Path(f"/proc/{theirs}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{theirs}").exists()
