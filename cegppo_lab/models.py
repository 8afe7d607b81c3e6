"""Which weights a model path names: shipped policies, local folders, hub models; their hash."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from cegppo_lab.errors import LabError, unknown

_SHIPPED = Path(__file__).parent / "policies"
HUB_PATIENCE_S = 10.0
_NEEDED = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]


def shipped_policies() -> list[str]:
    """Names of the policies that come with the package."""
    return sorted(config.parent.name for config in _SHIPPED.glob("*/config.json"))


def is_hub_id(path: str | Path) -> bool:
    """Whether ``path`` reads as ``owner/name`` on the Hugging Face hub, and is no local folder."""
    folder = Path(path)
    return not folder.is_absolute() and len(folder.parts) == 2 and not folder.exists()


def local_folder(path: str | Path, *, download: bool = False) -> Path:
    """The folder that ``path`` means: a shipped policy's, a local one, or a cached hub snapshot.

    Raises:
        LabError: no such folder, or a hub model that is not cached and may not be downloaded.
    """
    if str(path) in shipped_policies():
        return _SHIPPED / str(path)
    folder = Path(path).expanduser()
    if (folder / "config.json").is_file():
        return folder
    if not is_hub_id(path):
        raise unknown("model folder or shipped policy", str(path), shipped_policies())
    return _snapshot(str(path), download)


def _snapshot(hub_id: str, download: bool) -> Path:
    # Here and not above: plans of shipped policies need no hub client.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        found = snapshot_download(hub_id, allow_patterns=_NEEDED, local_files_only=not download)
    except (OSError, HFValidationError) as failure:
        reason = str(failure).splitlines()[0]
        raise LabError(f"policy {hub_id!r} is not on this machine: {reason}") from None
    return Path(found)


def check_model(path: str) -> None:
    """Raise ``LabError`` unless the policy is on this machine or known to the hub."""
    if str(path) in shipped_policies() or not is_hub_id(path):
        weights_hash(path)
        return
    try:
        local_folder(path)
    except LabError:
        _ask_hub(path)


def _ask_hub(hub_id: str) -> None:
    from httpx import HTTPError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        HfApi().model_info(hub_id, timeout=HUB_PATIENCE_S)
    except HfHubHTTPError as failure:
        reason = str(failure).splitlines()[0]
        raise LabError(f"model.path={hub_id!r}: the hub says no: {reason}") from None
    except (OSError, HTTPError, OfflineModeIsEnabled):
        raise LabError(
            f"model.path={hub_id!r} is not on this machine and the hub cannot be reached; "
            "download it elsewhere and give its folder"
        ) from None


def portable(path: str) -> str:
    """``path`` as a process in another working directory finds the same policy."""
    if path in shipped_policies() or is_hub_id(path):
        return path
    return str(Path(path).expanduser().resolve())


def fingerprint(path: str) -> str:
    """What a model path adds to a trial's id: its weights' hash, or a hub id as it is.

    Hub weights are not at hand when a sweep is planned on another machine; to pin them, download
    a revision and give its folder. Raises ``LabError`` when a local policy is not there.
    """
    if str(path) not in shipped_policies() and is_hub_id(path):
        return f"hub:{path}"
    return _cached_hash(str(local_folder(path)))


@lru_cache(maxsize=64)
def _cached_hash(folder: str) -> str:
    return weights_hash(folder)


def weights_hash(path: str | Path) -> str:
    """sha256 over the safetensors files of a policy, in the order of their names.

    Raises:
        LabError: the policy, or a safetensors file of it, is not on this machine.
    """
    folder = local_folder(path)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise LabError(f"policy {str(path)!r} has no *.safetensors file.")
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
