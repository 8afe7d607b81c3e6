"""Problems and scores of reasoning_gym, and the process that makes them."""

from __future__ import annotations

import re
import time
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from cegppo_lab.errors import LabError
from cegppo_lab.tasks import Problem, Task, make_task
from cegppo_lab.tasks.gym_process import GYM

pytest.importorskip("reasoning_gym")

SOLUTIONS = {"boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"}
"""Their answer is any solution: they state none, so there is none to check."""
ANY_ANSWER = {"game_of_life_halting"}  # its scorer takes every text for a yes, and a no for a yes
SLOW = {"futoshiki", "knight_swap"}  # 0.3 s an entry
NEED_OPTIONS = {"composite"}


def _task(**options: Any) -> Task:
    return make_task("reasoning_gym", **options)


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def _names() -> list[str]:
    """All data sets, as the error about an unknown one lists them."""
    with pytest.raises(LabError) as error:
        _task(dataset="?").heldout()
    return re.findall(r"[\w]+", str(error.value).rpartition("Allowed:")[2])


def test_nearly_every_data_set_gives_problems_whose_own_answers_are_right() -> None:
    names = set(_names())
    assert len(names) > 100
    assert names >= SOLUTIONS | ANY_ANSWER | SLOW | NEED_OPTIONS
    for name in sorted(names - SLOW - NEED_OPTIONS):
        task = _task(dataset=name, heldout_problems=1, heldout_share=0.4, pool_size=60)
        problems = [*task.heldout(), *task.sample(2, _rng())]
        assert all(problem.question for problem in problems), name
        assert problems[0].question not in {problem.question for problem in problems[1:]}, name
        if name not in SOLUTIONS:
            texts = [f"So <answer>{problem.answer}</answer>." for problem in problems]
            assert task.rewards(problems, texts) == [1.0, 1.0, 1.0], name
        if name not in ANY_ANSWER:
            assert task.reward(problems[0], "<answer>no such thing</answer>") < 1.0, name


def test_the_split_is_disjoint_by_text_and_goes_by_its_hash() -> None:
    # 1 + 1 to 9 + 9 and differences: the same texts come back many times.
    small = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    task = _task(options=small, heldout_problems=20)
    held = {problem.question for problem in task.heldout()}
    trained = {problem.question for problem in task.sample(2000, _rng())}
    assert len(held) == 20
    assert held.isdisjoint(trained)
    more = _task(options=small, heldout_problems=30, pool_size=5000)
    assert more.heldout()[:20] == task.heldout()
    everything = _task(heldout_problems=40, pool_size=40, heldout_share=1.0)
    assert [problem.id.rpartition("/")[2] for problem in everything.heldout()] == [
        str(index) for index in range(40)
    ]
    with pytest.raises(LabError, match="nothing to train on"):
        everything.sample(1, _rng())


def test_sampling_follows_the_generator() -> None:
    one, again, other = (_task().sample(40, _rng(seed)) for seed in (1, 1, 2))
    assert one == again != other
    assert _task(pool_seed=1).sample(40, _rng(1)) != one


def test_an_entry_does_not_depend_on_those_made_before_it() -> None:
    """Entries 26, 43 and 50 of codeio draw from Python's global generator."""
    options = {"dataset": "codeio", "pool_size": 60, "heldout_problems": 60, "heldout_share": 1.0}
    in_order = _task(**options).heldout()
    GYM.close()
    fresh = _task(**options)
    assert [fresh._problem(index) for index in (50, 43, 26)] == [in_order[i] for i in (50, 43, 26)]


def test_a_reward_needs_id_and_response_alone() -> None:
    task = _task(options={"max_terms": 3})
    problem = task.heldout()[0]
    bare = Problem(problem.id, "", "")
    renamed = Problem(problem.id.replace("reasoning_gym/", "my_benchmark/"), "", "")
    right = f"<answer>{problem.answer}</answer>"
    fresh = make_task("reasoning_gym", **task.model_dump(mode="json"))
    assert [fresh.reward(known, right) for known in (problem, bare, renamed)] == [1.0] * 3
    for strange in ("math/1", "reasoning_gym/chain_sum/x", "3", "reasoning_gym/countdown/0"):
        with pytest.raises(LabError, match="is none of reasoning_gym/chain_sum"):
            task.reward(Problem(strange, "", ""), right)


def test_the_last_closed_answer_counts_as_the_package_reads_it() -> None:
    task, problem = _task(), Problem("reasoning_gym/chain_sum/0", "", "")
    read = {
        "<answer> 5\n</answer>": "5",
        "<answer>1</answer> no: <answer>2</answer>, done": "2",
        "<answer>1</answer> <answer>2": "1",
        "<answer>1</answer> </answer>": "1",
        "<answer>1\n 2</answer>": "1\n 2",
    }
    for text in ["", "5", "<answer>5", "</answer>5<answer>", "<answer>\n</answer>"]:
        assert task.answer(problem, text) is None
    assert [task.answer(problem, text) for text in read] == list(read.values())
    assert task.answer(problem, "I put it in <answer> tags: <answer>2</answer>") == "2"
    begun = time.monotonic()
    assert task.answer(problem, "<answer>" * 200_000) is None
    assert task.answer(problem, "</answer>" * 200_000) is None
    assert time.monotonic() - begun < 1  # the package's pattern takes hours
    assert task.reward(problem, "") == 0.0


def test_scores_are_the_data_sets_own_unless_partial_credit_is_off() -> None:
    task = _task()
    problem = next(p for p in task.heldout() if len(p.answer) == 4)
    near = f"<answer>1{problem.answer}</answer>"
    assert task.reward(problem, near) == pytest.approx(0.8)
    assert _task(partial_credit=False).reward(problem, near) == 0.0
    assert _task(partial_credit=False).reward(problem, f"<answer>{problem.answer}</answer>") == 1.0
    countdown = _task(dataset="countdown", heldout_problems=1)
    assert countdown.reward(countdown.heldout()[0], "I do not know") == 0.0  # not 0.01


def test_composites_mix_data_sets() -> None:
    parts = [{"name": "chain_sum"}, {"name": "countdown", "weight": 2.0}]
    task = _task(dataset="composite", options={"datasets": parts}, heldout_problems=6)
    problems = task.heldout()
    assert {"Calculate" in p.question or "Find" in p.question for p in problems} == {True, False}
    assert task.rewards(problems, [f"<answer>{p.answer}</answer>" for p in problems]) == [1.0] * 6


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"dataset": "chain_sums"}, "unknown reasoning_gym dataset.*Did you mean 'chain_sum'"),
        ({"options": {"max_term": 3}}, "unknown option of chain_sum.*Did you mean 'max_terms'"),
        ({"options": {"max_terms": 0}}, r"'max_terms': 0.*max_terms must be >= min_terms"),
        ({"options": {"max_terms": "x"}}, "cannot make chain_sum with task.options"),
        ({"options": {"seed": 1}}, "seed is set by task.pool_seed"),
        ({"options": {"size": 1}}, "size is set by task.pool_size"),
        ({"options": {"max_terms": float("nan")}}, "plain values|finite"),
        ({"prompt_template": "?"}, "must contain {question}"),
        ({"dataset": "word_ladder", "pool_size": 1_000_000}, "task.pool_size=1000000: .*too large"),
        ({"dataset": "composite"}, "Must specify at least one dataset"),
        ({"pool_size": 50}, "task.heldout_problems=64: only"),
        ({"heldout_share": 0.0}, "task.heldout_share=0.0"),
    ],
)
def test_wrong_options_are_one_line(options: dict[str, Any], told: str) -> None:
    with pytest.raises(LabError, match=told) as error:
        _task(**options).heldout()
    assert "\n" not in str(error.value)


def test_a_wrong_option_is_told_with_the_trials_id() -> None:
    with pytest.raises(LabError, match="Did you mean 'chain_sum'"):
        _task(dataset="chain_sums").data_hash()


def test_when_nearly_all_are_held_out_sampling_ends() -> None:
    with pytest.raises(LabError, match=r"nearly all of the 3 problems.*lower task\.heldout_share"):
        _task(pool_size=3, heldout_share=0.9999).sample(4, _rng())


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    GYM.close()
    monkeypatch.setattr(
        "cegppo_lab.tasks.gym_process.find_spec",
        lambda name: None if name == "reasoning_gym" else find_spec(name),
    )
    with pytest.raises(LabError, match=re.escape("pip install 'cegppo-lab[reasoning]'")):
        _task().data_hash()


def test_the_version_of_the_package_is_in_the_data_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    now = _task().data_hash()
    assert now == _task(dataset="countdown").data_hash()  # the data set is in the options
    monkeypatch.setattr(GYM, "ask", lambda do, **_: {"version": "99"})
    assert _task().data_hash() != now


@pytest.mark.parametrize(
    ("response", "number"),
    [
        ("4 + 6 = 10", "10"),
        ("The sum is 1,234.", "1234"),
        ("so -3.5, or not", "-3.5"),
        ("7-3 = 4\n", "4"),
        ("x2 and v1.5", None),
        ("<answer>10</answer> is more than 9", "9"),
        ("none", None),
        ("1" * 10**6 + " 12", "12"),
    ],
)
def test_the_last_number_may_count_as_the_answer(response: str, number: str | None) -> None:
    task = make_task("reasoning_gym", extract="last_number")
    assert task.answer(Problem("reasoning_gym/chain_sum/0", "?", "10"), response) == number
