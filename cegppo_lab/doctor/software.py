"""Checks of what is installed: packages, verl, the verifier of answers, GPUs and driver."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from cegppo_lab.doctor.finding import MISSING, OK, PATIENCE_S, WARN, Finding
from cegppo_lab.errors import LabError
from cegppo_lab.trainers.verl.version import INSTALL, require_verl

_DISTRIBUTION = "cegppo-lab"


def check_packages(distribution: str = _DISTRIBUTION) -> list[Finding]:
    """Python and the packages that ``distribution`` declares: the versions that are installed."""
    try:
        own = metadata.metadata(distribution)
    except metadata.PackageNotFoundError:
        mend = "pip install -e . (in the checkout)"
        return [Finding("packages", MISSING, f"{distribution} is not installed", mend)]
    python = platform.python_version()
    wanted = own["Requires-Python"] or ""
    fits = SpecifierSet(wanted).contains(python, prereleases=True)
    told = f"{python} (needed: {wanted})"
    mend = "" if fits else f"make an environment with python {wanted} and install there"
    findings = [Finding("python", OK if fits else MISSING, told, mend)]
    needs = [Requirement(line) for line in metadata.requires(distribution) or []]
    needs = [each for each in needs if each.marker is None or each.marker.evaluate({"extra": ""})]
    misfits = [finding for each in needs if (finding := _misfit(each))]
    if not misfits:
        misfits = [Finding("packages", OK, f"all {len(needs)} that are needed fit")]
    return findings + misfits


def _misfit(need: Requirement) -> Finding | None:
    mend = f'pip install "{need.name}{need.specifier}"'
    try:
        found = metadata.version(need.name)
    except metadata.PackageNotFoundError:
        return Finding(need.name, MISSING, f"not installed (needed: {need.specifier})", mend)
    if need.specifier.contains(found, prereleases=True):
        return None
    return Finding(need.name, MISSING, f"{found} (needed: {need.specifier})", mend)


def check_verl(*, wanted: bool) -> Finding:
    """The one verl that we extend, and what its trainer needs beside it."""
    try:
        require_verl(to_train=True)
    except LabError as error:
        told = str(error).split("; type:")[0]
        return Finding("verl", MISSING if wanted else WARN, told, INSTALL)
    return Finding("verl", OK, metadata.version("verl"))


def check_math_verify(*, wanted: bool) -> Finding:
    """The rewards of mathematics: a known pair is judged."""
    from cegppo_lab.tasks.verifier import verify

    lacking = MISSING if wanted else WARN
    try:
        right = verify(r"\boxed{\frac{1}{2}}", "0.5")
    except LabError as error:
        return Finding("math-verify", lacking, str(error), 'pip install "math-verify>=0.9"')
    if not right:
        return Finding("math-verify", lacking, "did not answer in time", "the same command again")
    return Finding("math-verify", OK, f"{metadata.version('math-verify')}, judges a known pair")


def check_gpus(*, wanted: bool) -> Finding:
    """The GPUs that torch sees on this machine, and their driver."""
    import torch

    driver = _driver()
    if torch.cuda.is_available():
        cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        shown = ", ".join(f"{card.name} {card.total_memory / 1e9:.0f} GB" for card in cards)
        return Finding("GPUs", OK, f"{len(cards)}: {shown}; driver {driver or 'not told'}")
    told = f"none for torch {torch.__version__}: trainer=embedded and rehearsals only"
    if driver:
        told += f", although a driver is there ({driver})"
        return Finding("GPUs", WARN, told, f"install a CUDA build of torch for driver {driver}")
    mend = "run this command on a GPU node, or set RAY_ADDRESS to a cluster that has GPUs"
    return Finding("GPUs", WARN, told, mend) if wanted else Finding("GPUs", OK, told)


def _driver() -> str:
    """The version of NVIDIA's driver; empty where there is none."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=PATIENCE_S)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.split("\n")[0].strip() if done.returncode == 0 else ""
