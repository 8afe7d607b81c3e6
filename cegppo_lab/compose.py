"""From ``key=value`` words to a validated run: Hydra composes, the schema checks."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType
from hydra.errors import HydraException
from omegaconf import OmegaConf

from cegppo_lab.config import RunConfig, parse_run
from cegppo_lab.errors import LabError, unknown
from cegppo_lab.own_presets import own_algorithm, own_names
from cegppo_lab.resources import shipped


@lru_cache(maxsize=1)
def config_groups() -> Mapping[str, list[str]]:
    """The config groups and their options: ``{"algorithm": ["cegppo", ...], ...}``."""
    conf = shipped("conf")
    return {
        folder.name: sorted(path.stem for path in folder.glob("*.yaml"))
        for folder in sorted(conf.iterdir())
        if folder.is_dir() and folder.name in RunConfig.model_fields
    }


def parse_overrides(words: Iterable[str]) -> dict[str, Any]:
    """``key=value`` words, in Hydra's grammar, as a mapping; later words win.

    Raises ``LabError`` for a word that is not ``key=value``, and for Hydra's ``+``, ``~`` and
    sweep syntax, which have no place here: the schema is closed, and sweeps are files.
    """
    values: dict[str, Any] = {}
    for word in words:
        try:
            (override,) = OverridesParser.create().parse_overrides([word])
        except HydraException:
            raise LabError(f"{word!r} is not key=value, e.g. trainer.steps=20") from None
        if override.type is not OverrideType.CHANGE or override.package is not None:
            raise LabError(f"{word!r}: only key=value is allowed; every key exists already")
        if override.is_sweep_override():
            raise LabError(f"{word!r} is a Hydra sweep; put the values under grid: in a sweep file")
        values[override.key_or_group] = _plain(override.value())
    return values


def _plain(value: Any) -> Any:
    """A parsed value without Hydra's quoting classes."""
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return getattr(value, "text", value)


def resolve(values: Mapping[str, Any]) -> RunConfig:
    """The run of ``conf/run.yaml`` with ``values`` over it.

    A key that names a config group selects one of its files (``algorithm: dapo``); ``algorithm``
    takes what :func:`own_algorithm` does as well. A dotted key sets one value
    (``algorithm.beta1: 0.5``). Raises ``LabError`` for unknown groups, files and
    keys, naming the nearest, and for values that the schema refuses.
    """
    groups = config_groups()
    chosen = {key: value for key, value in values.items() if key in groups}
    own = own_algorithm(chosen.get("algorithm"))
    files = {key: value for key, value in chosen.items() if own is None or key != "algorithm"}
    for group, option in files.items():
        if option not in groups[group]:
            more = own_names() if group == "algorithm" else []
            raise unknown(group, str(option), [*groups[group], *more])
    if "model" not in chosen and chosen.get("task", groups["model"][0]) not in groups["model"]:
        told = f"task={chosen['task']} has no policy of its own; say model="
        raise LabError(told + " or model=".join(groups["model"]))
    tree = copy.deepcopy(_composed(tuple(sorted(files.items()))))
    if own is not None:
        tree["algorithm"] = own
    for key, value in values.items():
        if key not in chosen:
            _assign(tree, key, value)
    return parse_run(tree)


@lru_cache(maxsize=256)
def _composed(chosen: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    with initialize_config_dir(str(shipped("conf")), version_base="1.3"):
        config = compose("run", overrides=[f"{group}={option}" for group, option in chosen])
    return OmegaConf.to_container(config, resolve=True)


def _assign(tree: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    node: Any = tree
    for depth, part in enumerate([*parents, last]):
        if not isinstance(node, dict) or part not in node:
            where = ".".join(key.split(".")[:depth])
            siblings = node if isinstance(node, dict) else []
            raise unknown(f"key of {where}" if where else "key", part, map(str, siblings))
        if depth == len(parents):
            if isinstance(node[part], dict) and not depth:
                raise LabError(f"{key}={value!r}: {key} is a group; set one of its keys, {key}.KEY")
            if isinstance(value, bool) and type(node[part]) in (int, float):
                raise LabError(f"{key}={value!r}: must be a number")
            node[part] = copy.deepcopy(value)  # a later key may set a part of it
        else:
            node = node[part]
