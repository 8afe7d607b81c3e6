"""Pydantic models checked from untrusted values, with errors told as one ``LabError`` line."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ValidationError

from cegppo_lab.errors import LabError, unknown

Model = TypeVar("Model", bound=BaseModel)


def _place(value: str) -> str:
    """``value``, unless no file system could have it; that it exists is not asked."""
    try:
        os.lstat(Path(value).expanduser())
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise ValueError("is too long for a path") from None
    except (RuntimeError, ValueError) as error:  # ~nobody, a null character
        raise ValueError(f"is no path: {error}") from None
    return value


Place = Annotated[str, AfterValidator(_place)]
"""The field type of a path, or of what may be one, that need not be there."""


def validated(cls: type[Model], values: Mapping[str, Any], where: str) -> Model:
    """``cls(**values)``; a mistake in ``values`` becomes a ``LabError`` that starts with ``where``.

    ``where`` is what the user typed in front of the key, e.g. ``algorithm`` or ``trainer``.
    """
    try:
        return cls.model_validate(dict(values))
    except ValidationError as error:
        raise _first(cls, error, where) from None
    except UnicodeEncodeError as error:
        raise LabError(f"{where}: {error.object!r} is not Unicode text") from None


def _first(cls: type[BaseModel], error: ValidationError, where: str) -> LabError:
    details = error.errors()
    unknown_keys = [entry for entry in details if entry["type"] == "extra_forbidden"]
    entry = (unknown_keys or details)[0]
    parents = ".".join([where, *(str(part) for part in entry["loc"][:-1])])
    path = ".".join([where, *(str(part) for part in entry["loc"])])
    if entry["type"] == "extra_forbidden":
        owner = _owner(cls, entry["loc"])
        return unknown(f"key of {parents}", str(entry["loc"][-1]), owner.model_fields)
    if entry["type"] == "missing":
        return LabError(f"{path} is missing; give it a value, e.g. {path}=...")
    message = entry["msg"].removeprefix("Value error, ")
    if entry["type"] != "value_error":  # Ours are lower case, and may start with a value.
        message = message[0].lower() + message[1:]
    # A check of a whole section has the section as its input: too much to print.
    given = f"{path}={entry['input']!r}" if entry["loc"] else path
    return LabError(f"{given}: {message}")


def _owner(cls: type[BaseModel], loc: tuple[int | str, ...]) -> type[BaseModel]:
    """The model that refused the last key of ``loc``, following nested models down."""
    owner = cls
    for part in loc[:-1]:
        field = owner.model_fields.get(str(part))  # None: an index or a key of a container.
        owner = next(_models(field.annotation), owner) if field else owner
    return owner


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that an annotation names, e.g. ``Model | None`` or ``dict[str, Model]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)
