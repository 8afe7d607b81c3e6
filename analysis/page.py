"""What every report page is made of: saved figures, differences of arms, provenance, templates."""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from analysis import artifacts
from analysis.figures import Drawing
from analysis.load import SweepData


def render(template: str, **context: Any) -> str:
    """A page as one self-contained HTML text; everything that comes from outside is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "pages"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(context)


def save(
    sweeps: Sequence[SweepData], drawing: Drawing, folder: Path, stem: str, query: dict[str, Any]
) -> dict[str, str]:
    """Write a figure's files; returns what the page needs of it, drawn once more for the page."""
    write(sweeps, drawing, folder, stem, query)
    return shown(drawing, stem)


def shown(drawing: Drawing, key: str) -> dict[str, str]:
    """What a page needs of a figure: its words, and its images as data."""
    return {
        "key": key,
        "title": drawing.title,
        "caption": drawing.own,
        "alt": drawing.alt,
        "source": _data(artifacts.page_png(drawing.figure)),
        "narrow": _data(artifacts.page_png(drawing.narrow())),
    }


def write(
    sweeps: Sequence[SweepData], drawing: Drawing, folder: Path, stem: str, query: dict[str, Any]
) -> None:
    """Write a figure's files with the record of what made it."""
    made_by = artifacts.record(sweeps, drawing.title, {**query, "caption": drawing.caption})
    artifacts.save_figure(drawing.figure, folder, stem, made_by)


def _data(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def arm_rows(data: SweepData) -> list[tuple[str, str, str]]:
    """(arm, algorithm, what it differs in) for every arm."""
    return [(arm.name, arm.algorithm, _differences(arm.differs)) for arm in data.arms]


def rerun(manifest: Mapping[str, Any]) -> str:
    """The command that runs the sweep again, or that read it where others ran it."""
    if "rerun" in manifest:
        return manifest["rerun"]
    words = ["python", "-m", "cegppo_lab", "sweep", manifest["name"], *manifest["overrides"]]
    return shlex.join(words)


def _differences(differs: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={_plain(value)}" for key, value in differs.items()) or "nothing"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _plain(value)


def shared_settings(*sweeps: SweepData) -> list[tuple[str, str]]:
    """The settings that every started trial has alike, as (dotted key, value)."""
    flat = [dict(_flat(config)) for data in sweeps for config in data.configs.values() if config]
    first = flat[0] if flat else {}
    return [(k, v) for k, v in first.items() if all(other.get(k) == v for other in flat)]


def provenance_rows(*sources: artifacts.Attempted) -> list[tuple[str, str]]:
    """What ran where: each fact with its distinct values over all attempts, and their counts."""
    facts: dict[str, dict[str, int]] = {}
    everything = artifacts.attempts(*sources)
    for attempt in everything:
        entry = {
            "cegppo-lab": attempt.get("cegppo_lab"),
            "python": attempt.get("python"),
            **attempt.get("packages", {}),
            **{f"machine: {key}": value for key, value in attempt.get("machine", {}).items()},
        }
        for key, value in entry.items():
            counts = facts.setdefault(key, {})
            counts[str(value)] = counts.get(str(value), 0) + 1
    rows = [("git commit", ", ".join(artifacts.code_versions(*sources)) or "unknown")]
    for key, counts in facts.items():
        several = len(counts) > 1
        told = [f"{v} ({n} attempts)" if several else v for v, n in counts.items()]
        rows.append((key, ", ".join(told)))
    resumed = sum(bool(attempt.get("resumed_from")) for attempt in everything)
    rows.append(("attempts resumed from a checkpoint", str(resumed)))
    rows.append(("figures and tables drawn with", ", ".join(
        f"{package} {version}" for package, version in artifacts.versions().items())))  # fmt: skip
    return rows
