"""From a model path to its files and their hash; what is wrong with it, before anything starts."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from cegppo_lab.errors import LabError, unknown
from cegppo_lab.models import gguf, hub
from cegppo_lab.models.digest import file_hash, joint_hash
from cegppo_lab.models.packaged import packaged_file, packaged_models

_SHIPPED = Path(__file__).parents[1] / "policies"


@lru_cache(maxsize=1)
def shipped_policies() -> tuple[str, ...]:
    """Names of the policies that come with the package, sorted."""
    return tuple(sorted(config.parent.name for config in _SHIPPED.glob("*/config.json")))


def _named() -> list[str]:
    return [*shipped_policies(), *packaged_models()]


def located(path: str | Path, *, download: bool = False) -> Path:
    """The folder or the GGUF file that ``path`` means, as it lies on this machine.

    ``path``: the name of a shipped or packaged model, a folder in Hugging Face format, a GGUF file
    or a folder with one and no safetensors, or a hub id. Nothing is converted.

    Raises:
        LabError: there is no such model, or it is on the hub and may not be downloaded.
    """
    if str(path) in shipped_policies():
        return _SHIPPED / str(path)
    if str(path) in packaged_models():
        return packaged_file(str(path))
    place = Path(path).expanduser()
    if gguf.is_gguf(place):
        if not place.is_file():
            raise LabError(f"model.path={str(path)!r}: no such file")
        return place
    if file := gguf.only_file(place):
        return file
    if (place / "config.json").is_file():
        return place
    if not hub.is_hub_id(path):
        raise unknown("model folder or shipped policy", str(path), _named())
    return hub.snapshot(str(path), download)


def local_folder(path: str | Path, *, download: bool = False) -> Path:
    """The folder in Hugging Face format that ``path`` means (see :func:`located`).

    A GGUF model is converted first, once: 20 s and 0.5 GB of cache for 135M parameters.
    Raises ``LabError`` as :func:`located` does, and for a GGUF file that cannot be converted.
    """
    place = located(path, download=download)
    return gguf.converted(place) if gguf.is_gguf(place) else place


def check_model(path: str) -> None:
    """Raise ``LabError`` unless the policy is on this machine or its files can be had."""
    if str(path) in _named() or not hub.is_hub_id(path):
        weights_hash(path)
        place = located(path)
        if gguf.is_gguf(place) and gguf.cached(place) is None:
            gguf.check_reader()
        return
    try:
        located(path)
    except LabError:
        hub.check(path)


def check_chat_template(path: str) -> None:
    """Raise ``LabError`` if the model's tokenizer, where it is at hand, has no chat template."""
    try:
        place = located(path)
    except LabError:
        if hub.is_hub_id(path):
            return  # told when it has been downloaded
        raise
    if not _has_template(place):
        raise no_chat_template(path)


def no_chat_template(path: str | Path) -> LabError:
    """The error of a model that prompts cannot be written for."""
    return LabError(
        f"model {str(path)!r} has no chat template; say model.chat_template=false to give it the "
        "prompts as they are"
    )


@lru_cache(maxsize=64)
def _has_template(place: Path) -> bool:
    return bool(chat_template(place))


def chat_template(path: str | Path) -> str | dict[str, str] | None:
    """The chat template of a model that is on this machine, if any; nothing is converted.

    By name where there are several. Raises ``LabError``: no such model, or an unreadable one.
    """
    place = located(path)
    if gguf.is_gguf(place):
        folder = gguf.cached(place)
        if folder is None:
            return gguf.chat_template(place)
        place = folder
    # Here and not above: plans need no tokenizer.
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(place, local_files_only=True).chat_template
    except (OSError, ValueError) as failure:
        raise unreadable(path, failure) from None


def unreadable(path: str | Path, failure: Exception) -> LabError:
    """The error of a model that transformers does not load."""
    reason = str(failure).strip().splitlines()[0]
    return LabError(f"model {str(path)!r} cannot be loaded: {reason}")


def portable(path: str) -> str:
    """``path`` as a process in another working directory finds the same policy."""
    if path in _named() or hub.is_hub_id(path):
        return path
    return str(Path(path).expanduser().resolve())


def fingerprint(path: str) -> str:
    """What a model path adds to a trial's id: its weights' hash, or a hub id as it is.

    Hub weights are not at hand when a sweep is planned on another machine; to pin them, download
    a revision and give its folder. Raises ``LabError`` when a local policy is not there.
    """
    if str(path) not in _named() and hub.is_hub_id(path):
        return f"hub:{path}"
    return _cached_hash(located(path))


@lru_cache(maxsize=64)
def _cached_hash(place: Path) -> str:
    return weights_hash(place)


def weights_hash(path: str | Path) -> str:
    """sha256 over a policy's safetensors files, in the order of their names, or its GGUF file.

    Raises:
        LabError: the policy, or a safetensors file of it, is not on this machine.
    """
    place = located(path)
    if gguf.is_gguf(place):
        return file_hash(place)
    files = sorted(place.glob("*.safetensors"))
    if not files:
        raise LabError(f"policy {str(path)!r} has no *.safetensors file.")
    return joint_hash(files)
