"""How a mistake in a mapping is told: one line, the path that was typed, the nearest keys."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator

from cegppo_lab.errors import LabError
from cegppo_lab.validation import validated


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")

    alpha: int = 1
    flag: bool = False

    @field_validator("flag", mode="before")
    @classmethod
    def _only_bool(cls, value: object) -> object:
        if not isinstance(value, bool):
            raise ValueError(f"{value!r} is neither true nor false")
        return value


class Whole(BaseModel):
    model_config = ConfigDict(extra="forbid")

    steps: int = Field(ge=1)
    one: Part = Part()
    maybe: Part | None = None
    many: list[Part] = []
    named: dict[str, Part] = {}


def told(**values: object) -> str:
    with pytest.raises(LabError) as caught:
        validated(Whole, {"steps": 1, **values}, "trainer")
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_valid_values_make_the_model():
    whole = validated(Whole, {"steps": "3", "many": [{"alpha": 2}]}, "trainer")
    assert whole == Whole(steps=3, many=[Part(alpha=2)])


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ({"one": {"alhpa": 1}}, "trainer.one"),
        ({"maybe": {"alhpa": 1}}, "trainer.maybe"),
        ({"many": [{}, {"alhpa": 1}]}, "trainer.many.1"),
        ({"named": {"x": {"alhpa": 1}}}, "trainer.named.x"),
    ],
    ids=lambda value: str(value),
)
def test_an_unknown_nested_key_names_the_keys_beside_it(values, path):
    message = told(**values)
    assert message == f"unknown key of {path} 'alhpa'. Did you mean 'alpha'? Allowed: alpha, flag."


def test_an_unknown_key_names_the_nearest():
    message = told(stpes=3)
    assert message.startswith("unknown key of trainer 'stpes'. Did you mean 'steps'")


def test_a_dotted_key_is_told_as_given():
    assert told(**{"one.alpha": 3}).startswith("unknown key of trainer 'one.alpha'.")


def test_an_unknown_key_is_told_before_a_wrong_value():
    assert "'stpes'" in told(stpes=3, one={"alpha": "x"})


def test_a_missing_key_is_named():
    with pytest.raises(LabError, match=r"^trainer\.steps is missing"):
        validated(Whole, {}, "trainer")


def test_a_wrong_value_is_told_with_its_path_and_its_spelling():
    assert told(steps=0).startswith("trainer.steps=0: input should be greater than or equal to 1")
    assert told(one={"alpha": "x"}).startswith("trainer.one.alpha='x': input should be a valid int")
    assert told(one={"flag": None}) == "trainer.one.flag=None: None is neither true nor false"


def test_no_traceback_of_the_checker_is_shown():
    with pytest.raises(LabError) as caught:
        validated(Whole, {}, "trainer")
    assert caught.value.__suppress_context__
