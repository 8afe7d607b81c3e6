"""Problems, verifiers and demonstrations of the tasks that ship with the package."""

from __future__ import annotations

import hashlib
import re
from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare

from cegppo_lab.compose import resolve
from cegppo_lab.errors import LabError
from cegppo_lab.tasks import Problem, Task, make_task, register
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


def test_a_walk_that_the_prompt_began_goes_on_from_where_it_is():
    task, plain = make_task("table_walk", given=3), make_task("table_walk")
    assert len(task.heldout()) == 60
    assert {p.prompt[:4] for p in task.heldout()} == {p.prompt for p in plain.heldout()}
    rewards = []
    for problem, response, numbers in _walks(task, 300):
        whole = problem.prompt[4:] + response  # is a walk of all six steps
        assert len(numbers) == 7
        start = Problem("", "", f"{problem.prompt[1]}-{problem.prompt[2]}")
        rewards.append(task.reward(problem, response))
        assert plain.reward(start, whole) == rewards[-1]
        assert plain.reward(start, response) == task.reward(problem, whole) == 0.0
    assert 0.1 < np.mean(rewards) < 0.9
    moves = Counter(p.id.rpartition("/")[2][0] for p in task.sample(4000, np.random.default_rng(0)))
    assert min(moves.values()) > 400  # all eight alike
    with pytest.raises(LabError, match="given=6 must be less than steps=6"):
        make_task("table_walk", given=6)


def test_a_swapped_list_has_the_same_sums_and_is_the_same_each_time():
    plain, swapped = make_task("chain"), make_task("chain", listing="swapped")
    for one, other in zip(plain.heldout(), swapped.heldout(), strict=True):
        assert (one.id, one.answer) == (other.id, other.answer)
        pairs = [re.findall(r"[a-z]\d", problem.prompt) for problem in (one, other)]
        assert sorted(pairs[0]) == sorted(pairs[1])
        assert sum(a != b for a, b in zip(*pairs, strict=True)) == 2
    places = {re.findall(r"[a-z]", p.prompt).index("a") for p in swapped.heldout()}
    assert places == {0, 1}
    assert swapped.heldout() == make_task("chain", listing="swapped").heldout()


@pytest.mark.parametrize("options", [{}, {"given": 3}])
def test_equal_answers_to_a_walk_have_equal_rewards(options):
    task = make_task("table_walk", **options)
    problem, response, _ = next(w for w in _walks(task, 200) if task.reward(w[0], w[1]))
    said = task.answer(problem, response)
    assert said == task.answer(problem, re.sub("[a-z]{2}", "ft", response))
    assert said != task.answer(problem, response[:-1] + str((int(response[-1]) + 1) % 8))
    for broken in (
        response[:-1],
        response[:-2] + response[-1],
        response + "ab",
        "",
        "=",
        response * 2,
    ):
        assert task.answer(problem, broken) is None
        assert task.reward(problem, broken) == 0.0


def test_the_answer_to_a_chain_is_the_sum_it_states():
    task = make_task("chain")
    problem = task.heldout()[0]
    said = [
        task.answer(problem, text)
        for text in ("a~1=4", "b7>4=4", "=4=", "4", "", "=", "=x", "=\u0663")
    ]
    assert said == ["4", "4", None, None, None, None, None, None]


def test_later_options_leave_problems_and_identity_as_they_were(task):
    """Written down before ``given`` and ``listing`` existed."""
    known = {"table_walk": "ed7c04fda4b75a25", "chain": "d5d502d3915f95a6"}[task.name]
    rng = np.random.default_rng(3)
    drawn = [task.sample(50, rng), task.heldout(), task.demonstrations(50, rng)]
    drawn += [task.max_response_tokens, task.vocabulary(), task.sample(5, rng)]
    assert hashlib.sha256(repr(drawn).encode()).hexdigest()[:16] == known
    told = resolve({"task": task.name}).identity()["task"]
    assert {"given", "listing"}.isdisjoint(told)


def test_training_problems_are_counted(task):
    listed, count = task.training(), task.training_count()
    assert count == {"table_walk": 64 - 12, "chain": 10**6 - 64}[task.name]
    if listed is not None:
        drawn = task.sample(20_000, np.random.default_rng(0))
        assert set(listed) == set(drawn)
        assert len(listed) == count


def test_table_walk_options_change_the_walk():
    task = make_task("table_walk", states=4, steps=2, words=3, top_probability=(0.5,))
    assert len(task.heldout()) == 3
    problem, response = task.demonstrations(1, np.random.default_rng(0))[0]
    assert re.fullmatch(r"(\da[abc]\d){2}=\d", response), response
    assert problem.id.startswith("table_walk/")
