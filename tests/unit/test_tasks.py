"""Problems, verifiers and demonstrations of the tasks that ship with the package."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare

from cegppo_lab.errors import LabError
from cegppo_lab.tasks import Task, make_task, register
from cegppo_lab.tasks.base import registered

STRANGE = ["", "=", "=5", "$", "\x00", "é٣=٣", "0123456789" * 9, "aa" * 400, "-1=-1", "99=9"]


@pytest.fixture(params=["chain", "table_walk"])  # those with problems of their own
def task(request) -> Task:
    return make_task(request.param)


def test_unknown_names_and_values_are_told_with_what_is_allowed():
    with pytest.raises(LabError, match="Did you mean 'table_walk'"):
        make_task("tablewalk")
    with pytest.raises(LabError, match="Did you mean 'steps'"):
        make_task("table_walk", step=3)
    with pytest.raises(LabError, match=r"task\.terms=99"):
        make_task("chain", terms=99)


def test_a_name_is_registered_once():
    with pytest.raises(ValueError, match="already"):
        register(type("Impostor", (Task,), {"name": "chain", "__module__": __name__}))
    assert registered()["chain"].__name__ == "Chain"


def test_heldout_problems_are_fixed_and_never_met_in_training(task):
    heldout = {problem.id for problem in task.heldout()}
    assert len(heldout) == len(task.heldout()) >= 12
    assert task.heldout() == make_task(task.name).heldout()
    rng = np.random.default_rng(0)
    met = [*task.sample(20_000, rng), *(problem for problem, _ in task.demonstrations(2000, rng))]
    assert heldout.isdisjoint(problem.id for problem in met)


def test_sampling_follows_the_generator(task):
    first, again, other = (
        task.demonstrations(20, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert first == again != other


def test_any_string_has_a_reward(task):
    problem = task.heldout()[0]
    assert {task.reward(problem, text) for text in STRANGE} <= {0.0, 1.0}


def test_demonstrations_fit_and_use_the_vocabulary_only(task):
    token = re.compile("|".join(map(re.escape, sorted(task.vocabulary(), key=len, reverse=True))))
    for problem, response in task.demonstrations(200, np.random.default_rng(3)):
        assert token.sub("", problem.prompt + response) == ""
        assert len(token.findall(response)) + 1 <= task.max_response_tokens


def test_chain_rewards_the_sum_of_the_digits_in_the_prompt():
    task = make_task("chain")
    for problem in task.sample(50, np.random.default_rng(0)):
        total = sum(int(digit) for digit in re.findall(r"\d", problem.prompt)) % 10
        assert [task.reward(problem, f"a~1={n}") for n in range(10)] == [
            float(n == total) for n in range(10)
        ]
        assert task.reward(problem, f"={total}=") == 0.0
        assert task.reward(problem, f"{total}") == 0.0


def test_chain_demonstrations_without_slips_are_right():
    task = make_task("chain", slip_rate=0.0, skip_rate=0.0)
    pairs = task.demonstrations(200, np.random.default_rng(0))
    assert all(task.reward(*pair) == 1.0 for pair in pairs)
    slipping = make_task("chain", slip_rate=1.0).demonstrations(500, np.random.default_rng(0))
    assert np.mean([task.reward(*pair) for pair in slipping]) == pytest.approx(0.1, abs=0.05)


def _walks(task: Task, count: int) -> list[tuple]:
    """(problem, response, moves and states of the response) of demonstrations."""
    pairs = task.demonstrations(count, np.random.default_rng(5))
    return [(p, text, [int(n) for n in re.findall(r"\d", text)]) for p, text in pairs]


def test_table_walk_demonstrations_are_walks_and_pay_only_at_the_target():
    task = make_task("table_walk")
    assert all(sorted(row) == list(range(8)) for row in task.table.tolist())
    for problem, response, numbers in _walks(task, 500):
        start, target = (int(digit) for digit in problem.prompt[1:3])
        states = [start, *numbers[1:-1:2]]
        moved = [task.table[s, x] for s, x in zip(states, numbers[0:-1:2], strict=False)]
        assert moved == states[1:]
        assert numbers[-1] == states[-1]
        assert task.reward(problem, response) == float(states[-1] == target)


def test_table_walk_refuses_a_solution_with_anything_but_its_words_changed():
    task = make_task("table_walk")
    problem, response, _ = next(w for w in _walks(task, 200) if task.reward(w[0], w[1]))
    assert task.reward(problem, re.sub("[a-z]{2}", "ft", response)) == 1.0
    places = [match.start() for match in re.finditer(r"\d", response)]
    for place in places:
        for digit in set("0123456789") - {response[place]}:
            assert task.reward(problem, response[:place] + digit + response[place + 1 :]) == 0.0
        assert task.reward(problem, response[:place] + response[place + 1 :]) == 0.0
    assert task.reward(problem, response + "aa") == 0.0
    assert task.reward(problem, response.replace("=", "")) == 0.0


def test_table_walk_words_follow_the_stated_distribution():
    task = make_task("table_walk")
    text = "".join(response for _, response, _ in _walks(task, 2000))
    counts = Counter(re.findall("[a-z]{2}", text))
    tail = np.arange(1, 20) ** -0.7
    for slot, top in zip("abcdef", (0.85, 0.6, 0.9, 0.75, 0.9, 0.8), strict=True):
        observed = [counts[slot + letter] for letter in "abcdefghijklmnopqrst"]
        expected = np.array([top, *(tail / tail.sum() * (1 - top))]) * sum(observed)
        assert sum(observed) == 2000 * 6
        assert chisquare(observed, expected).pvalue > 1e-4


def test_table_walk_options_change_the_walk():
    task = make_task("table_walk", states=4, steps=2, words=3, top_probability=(0.5,))
    assert len(task.heldout()) == 3
    problem, response = task.demonstrations(1, np.random.default_rng(0))[0]
    assert re.fullmatch(r"(\da[abc]\d){2}=\d", response), response
    assert problem.id.startswith("table_walk/")
