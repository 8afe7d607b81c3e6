"""``claims.yaml`` read and checked: every claim, the parts it stands on, the arms they compare."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, get_type_hints

import yaml
from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

from analysis.claims.measures import MEASURES
from analysis.stats import Estimate
from cegppo_lab.errors import LabError, unknown
from cegppo_lab.validation import validated

SHIPPED = Path(__file__).parent / "claims.yaml"


class Closed(BaseModel):
    """An immutable group of keys; an unknown one is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Selector(Closed):
    """An arm by what it is, as ``analysis.select`` reads it, and two words more.

    A coefficient that is ``smallest`` or ``largest`` picks among the arms that have it above 0.
    ``by_model`` replaces coefficients for the models that it names.
    """

    algorithm: str
    beta1: float | Literal["scheduled"] | None = None
    beta2: float | None = None
    entropy_coef: float | Literal["positive", "smallest", "largest"] | None = None
    by_model: dict[str, dict[str, float]] = {}

    def wanted(self, model: str) -> dict[str, Any]:
        """``analysis.select``'s mapping for the arms of a model, extremes still in it."""
        own = self.model_dump(exclude={"by_model"}, exclude_none=True)
        return own | self.by_model.get(model, {})


class Part(Closed):
    """One number that the claim stands on, and the side of the threshold that it claims.

    The arms and options that the measure takes are fields of the subclass: see ``part_model``.
    """

    label: str
    measure: str
    above: float | None = None
    below: float | None = None
    guard: bool = False
    """It can refute the claim and holds unless it does: for "none is the other way round"."""
    if_present: bool = False
    """Left out where the sweep has no such arm; without it, such a sweep cannot answer."""

    @model_validator(mode="after")
    def _one_side(self) -> Part:
        if (self.above is None) == (self.below is None):
            raise ValueError("needs a threshold: either above or below, with a number")
        return self

    @property
    def direction(self) -> str:
        """``above`` or ``below``."""
        return "below" if self.above is None else "above"

    @property
    def threshold(self) -> float:
        """The number that the interval is compared with."""
        return self.below if self.above is None else self.above

    def selectors(self) -> dict[str, Selector]:
        """The arms that the measure takes, by the name it knows them by."""
        return {key: value for key, value in self if isinstance(value, Selector)}

    def options(self) -> dict[str, Any]:
        """What else the measure takes."""
        return {
            key: value for key, value in self if key not in {*Part.model_fields, *self.selectors()}
        }

    def ready(self) -> Callable[..., Estimate]:
        """The measure with its options; to be called with the frames and the arms."""
        return partial(MEASURES[self.measure], **self.options())


class Claim(Closed):
    """A statement of the paper in our words, and what it needs to be tested."""

    id: str = Field(pattern=r"^C[1-9]\d*$")
    statement: str
    source: str
    sweeps: list[str] = Field(min_length=1)
    """The sweeps that can answer it, the smallest scale first."""
    steps: int | None = Field(default=None, ge=1)
    """The training steps that the paper shows. Shorter runs do not reproduce it, at any scale."""
    parts: list[Part] = Field(min_length=1)


@cache
def part_model(measure: str) -> type[Part]:
    """The schema of a part with this measure: its arms are selectors, its options are typed."""
    function = MEASURES[measure]
    hints = get_type_hints(function)
    _, *parameters = inspect.signature(function).parameters.values()
    fields: dict[str, Any] = {}
    for given in parameters:
        default = ... if given.default is given.empty else given.default
        is_option = given.kind is given.KEYWORD_ONLY
        fields[given.name] = (hints[given.name], default) if is_option else (Selector, ...)
    return create_model(f"Part_{measure}", __base__=Part, **fields)


def load_claims(path: Path = SHIPPED) -> list[Claim]:
    """The claims of a file, in its order.

    Raises ``LabError`` for a file that cannot be read, a key or measure that does not exist
    (naming the nearest), a value of the wrong kind, and an id that comes twice.
    """
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as failure:
        told = " ".join(str(failure).split())
        raise LabError(f"cannot read the claims in {path}: {told}") from None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise LabError(f"{path} must be a list of claims, each with an id, a statement and parts")
    claims = [_claim(entry, path.name) for entry in entries]
    ids = [claim.id for claim in claims]
    twice = [name for name in ids if ids.count(name) > 1]
    if twice:
        raise LabError(f"{path.name}: {twice[0]} comes {ids.count(twice[0])} times; ids are unique")
    return claims


def _claim(entry: dict[str, Any], file: str) -> Claim:
    where = f"{file}: {entry.get('id', 'a claim')}"
    parts = entry.get("parts")
    if isinstance(parts, list):
        entry = entry | {
            "parts": [_part(part, f"{where}.parts.{place}") for place, part in enumerate(parts, 1)]
        }
    return validated(Claim, entry, where)


def _part(entry: Any, where: str) -> Part:
    if not isinstance(entry, dict):
        raise LabError(f"{where}: must be a group of keys, not {entry!r}")
    measure = str(entry.get("measure"))
    if measure not in MEASURES:
        raise unknown(f"measure of {where}", measure, MEASURES)
    return validated(part_model(measure), entry, where)
