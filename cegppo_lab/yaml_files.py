"""YAML files that users write: read strictly, with every mistake told as one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from cegppo_lab.errors import LabError


def read_mapping(path: Path, keys: str) -> dict[Any, Any]:
    """The mapping in the YAML file ``path``; ``keys`` names what it must have, for the error.

    Raises:
        LabError: a file that cannot be read, is no YAML or no mapping, gives a key twice, or has
            a value that its tag does not take.
    """
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise LabError(f"{path} is not valid YAML{where}: {problem}") from None
    except RecursionError:
        raise LabError(f"{path} is nested too deeply to be read") from None
    except UnicodeDecodeError:
        raise LabError(f"{path} is not a text file in UTF-8") from None
    except OSError as error:
        raise LabError(f"cannot read {path}: {error.strerror}") from None
    if not isinstance(tree, dict):
        raise LabError(f"{path} must be a mapping with {keys}")
    return tree


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key given twice, instead of dropping the first."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """The value of ``node``; whatever its tag's constructor raises is told with its line."""
        try:
            value = super().construct_object(node, deep=deep)
            if isinstance(value, int):
                str(value)  # what Python does not print (0xfff...), no message could tell
        except (ValueError, TypeError, KeyError, AttributeError):
            given = repr(node.value[:40]) if isinstance(node, yaml.ScalarNode) else f"{node.id}"
            kind = node.tag.rpartition(":")[2]
            raise _wrong(f"{given} cannot be read as {kind}", node) from None
        return value


def _wrong(problem: str, node: yaml.Node) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _mapping_once(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    own: set[Any] = set()  # Keys that come in through a merge (<<) may be given again.
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str | int | float):
            raise _wrong(f"key {key!r} is not a word or a number", key_node)
        if key in own:
            raise _wrong(f"key {key!r} is given twice", key_node)
        own.add(key)
    loader.flatten_mapping(node)
    return {
        loader.construct_object(key, deep=True): loader.construct_object(value, deep=True)
        for key, value in node.value
    }


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_once)
