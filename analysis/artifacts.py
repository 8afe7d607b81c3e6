"""Files that carry where they come from: written whole or not at all, with a sidecar JSON."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any, Protocol

import pandas as pd
from matplotlib.figure import Figure

from analysis.load import SweepData
from analysis.style import paper_style
from cegppo_lab.files import write_json
from cegppo_lab.provenance import git_state

DPI = 200
PAGE_DPI = 150
PACKAGES = ("cegppo-lab", "matplotlib", "numpy", "optuna", "pandas", "scikit-learn", "scipy")


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A scratch folder whose files move into ``folder`` if the block ends well, else none does."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield scratch
        for path in sorted(p for p in scratch.rglob("*") if p.is_file()):
            target = folder / path.relative_to(scratch)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
    finally:
        rmtree(scratch)
        for path in missing:  # after a failure: leave no empty folder that was not there before
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()


def versions() -> dict[str, str]:
    """Versions of the packages that draw and compute."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed as a package"
    return found


class Attempted(Protocol):
    """What says where its numbers come from: a sweep, or final evaluations."""

    @property
    def provenance(self) -> dict[str, list[dict[str, Any]]]:
        """By trial or evaluation, its attempts."""
        ...


def code_versions(*sources: Attempted) -> list[str]:
    """The distinct git commits that made the numbers, ``+changes`` where the tree was dirty."""
    return sorted({
        _commit(attempt.get("git_sha"), attempt.get("git_dirty")) for attempt in attempts(*sources)
    })  # fmt: skip


def _commit(sha: str | None, dirty: bool | None) -> str:
    return (sha or "no git") + ("+changes" if dirty else "")


def attempts(*sources: Attempted) -> list[dict[str, Any]]:
    """Every attempt at a trial or evaluation of these, those of a shared one once."""
    trials = {key: entries for data in sources for key, entries in data.provenance.items()}
    return [attempt for entries in trials.values() for attempt in entries]


def record(
    sweeps: SweepData | Sequence[SweepData], title: str, query: dict[str, Any]
) -> dict[str, Any]:
    """What made an artifact: sweeps, plans, trials, code, query, versions; JSON-serialisable.

    ``code``: the commits that trained; ``drawn_by``: the commit that draws.
    """
    sweeps = [sweeps] if isinstance(sweeps, SweepData) else list(sweeps)
    trials = pd.concat([data.trials for data in sweeps]).drop_duplicates("trial_id")
    return {
        "title": title,
        "sweep": ", ".join(data.name for data in sweeps),
        "plan_id": ", ".join(data.manifest.get("plan_id", "") for data in sweeps),
        "source": sorted({data.source for data in sweeps}),
        "scale": sorted({data.scale for data in sweeps}),
        "query": query,
        "trials": trials[["trial_id", "arm", "seed", "state", "step"]].to_dict("records"),
        "code": code_versions(*sweeps),
        **_drawn(),
    }


def evaluation_record(
    name: str, source: str, evaluations: list[dict[str, Any]], code: list[str], title: str,
    query: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """What made an artifact of final evaluations, as ``record``; ``code``: see there.

    ``evaluations``: one dictionary each, with its ``evaluation_id``.
    """
    return {
        "title": title,
        "evaluation": name,
        "source": [source],
        "query": query,
        "evaluations": evaluations,
        "code": code,
        **_drawn(),
    }


def _drawn() -> dict[str, Any]:
    return {"drawn_by": _commit(*git_state()), "versions": versions()}


def page_png(figure: Figure) -> bytes:
    """The figure as PNG for a page that prints the caption itself: without it."""
    buffer = io.BytesIO()
    caption = figure.get_supxlabel()
    with paper_style():
        figure.supxlabel("")
        figure.savefig(buffer, format="png", dpi=PAGE_DPI)
        figure.supxlabel(caption)
    return buffer.getvalue()


def save_figure(figure: Figure, folder: Path, stem: str, made_by: dict[str, Any]) -> list[Path]:
    """Write ``stem``.png (200 dpi), .pdf and .json into ``folder``; returns the three paths.

    The record is the sidecar, and part of both images' metadata. No time goes into the files: the
    same store draws the same bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    told = ("sweep", "evaluation", "plan_id", "query", "code", "drawn_by", "versions")
    short = json.dumps({key: made_by[key] for key in told if key in made_by})
    made_of = [str(trial["trial_id"]) for trial in made_by.get("trials", ())]
    made_of += [str(entry["evaluation_id"]) for entry in made_by.get("evaluations", ())]
    trials = " ".join(made_of)
    png = {"Title": made_by["title"], "Description": short, "Source": trials}
    pdf = {
        "Title": made_by["title"],
        "Subject": short,
        "Keywords": trials,
        "CreationDate": None,
    }
    with paper_style():
        figure.savefig(folder / f"{stem}.png", dpi=DPI, metadata=png)
        figure.savefig(folder / f"{stem}.pdf", metadata=pdf)
    write_json(folder / f"{stem}.json", made_by)
    return [folder / f"{stem}.{suffix}" for suffix in ("png", "pdf", "json")]
