"""N-gram overlap between training problems and benchmarks."""

from __future__ import annotations

import random
import time

import pytest

from cegppo_lab.tasks import Problem
from cegppo_lab.tasks.overlap import Grams, grams, overlaps, words


def _problems(*questions: str, name: str = "p") -> list[Problem]:
    return [Problem(f"{name}/{i}", f"Solve: {text}", "1", text) for i, text in enumerate(questions)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Let $x \\, + \\; 1$ be", r"let \(x+1\) be."),
        (r"\left( \frac{1}{2} \right)", r"(\frac 1 2)"),
        ("Find  the\nsum!", "find the sum"),
        (r"a\quad b~c", "a b c"),
        (r"\text{area} of \mathrm{ABC}", "area of ABC"),
        ("\uff11\uff12 apples", "12 apples"),
    ],
)
def test_case_punctuation_and_layout_do_not_count(one: str, other: str) -> None:
    assert words(one) == words(other)


def test_words_that_differ_do_count() -> None:
    assert words(r"\sin x") == ["sin", "x"]
    assert words("x^2 and x_1, 3.5") == ["x", "2", "and", "x", "1", "3", "5"]
    assert words("求数") == ["求", "数"]  # written without spaces
    assert words(r"\leftarrow") == ["leftarrow"]  # no \left
    assert words("$!?$") == grams("$!?$") == []


def test_a_problem_overlaps_from_the_ninth_common_word_on() -> None:
    bench = _problems("one two three four five six seven eight nine ten")
    held = {"bench": bench}
    nine = "so two three four five six seven eight nine ten"
    eight = "so three four five six seven eight nine ten eleven"
    (found,) = overlaps(_problems(nine, name="t"), held)
    gram = "two three four five six seven eight nine ten"
    assert found.shared == {"p/0": ("t/0", gram)}
    assert (found.benchmark, found.problems) == ("bench", 1)
    split = "two three four five or six seven eight nine ten"
    (none,) = overlaps(_problems(eight, split), held)
    assert none.shared == {}
    (five,) = overlaps(_problems(split), held, n=5)
    assert five.shared["p/0"][1] == "six seven eight nine ten"


def test_a_short_text_is_compared_as_a_whole() -> None:
    index = Grams(_problems("What is 2+2?", ""))
    assert set(index.shared("what is $2 + 2$")) == {"p/0"}
    assert index.shared("Say, what is 2+2?") == {}
    assert index.shared("") == index.shared("?") == {}


def test_the_template_of_the_prompt_is_no_overlap() -> None:
    template = "Please reason step by step and put your final answer within the box"
    one = Problem("t/0", f"{template} 7 {template}", "1", "7")
    other = Problem("b/0", f"{template} 8 {template}", "1", "8")
    (found,) = overlaps([one], {"b": [other]})
    assert found.shared == {}


def test_thirty_thousand_problems_take_seconds_and_each_benchmark_counts_alone() -> None:
    rng = random.Random(0)
    text = [" ".join(str(rng.randrange(5000)) for _ in range(60)) for _ in range(30_000)]
    training = _problems(*text, name="t")
    benches = {
        "clean": _problems(*(" ".join(map(str, range(9000 + i, 9050 + i))) for i in range(500))),
        "dirty": _problems(*text[:400:100], "x " * 40),
    }
    begun = time.process_time()
    clean, dirty = overlaps(training, benches)
    assert time.process_time() - begun < 15
    assert clean.shared == {}
    assert {problem: other for problem, (other, _) in dirty.shared.items()} == {
        f"p/{i}": f"t/{100 * i}" for i in range(4)
    }
