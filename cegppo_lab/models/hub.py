"""Models on the Hugging Face hub: which paths are hub ids, and what is told about them."""

from __future__ import annotations

from pathlib import Path

from cegppo_lab.errors import LabError
from cegppo_lab.models.gguf import is_gguf

HUB_PATIENCE_S = 10.0
_NEEDED = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]


def is_hub_id(path: str | Path) -> bool:
    """Whether ``path`` reads as ``owner/name`` on the Hugging Face hub, and is no local path."""
    place = Path(path).expanduser()
    return (
        not place.is_absolute()
        and len(place.parts) == 2
        and not is_gguf(place)
        and not place.exists()
    )


def snapshot(hub_id: str, download: bool) -> Path:
    """The folder of a hub model in the hub's cache, or, with ``download``, put there now.

    Raises:
        LabError: it is not there, and may not or cannot be downloaded.
    """
    # Here and not above: plans of shipped policies need no hub client.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HFValidationError, LocalEntryNotFoundError

    try:
        found = snapshot_download(hub_id, allow_patterns=_NEEDED, local_files_only=not download)
    except GatedRepoError:
        raise _gated(hub_id) from None
    except (OSError, HFValidationError) as failure:
        if download and isinstance(failure, LocalEntryNotFoundError):
            raise _unreached(hub_id) from None
        reason = str(failure).splitlines()[0]
        raise LabError(f"policy {hub_id!r} is not on this machine: {reason}") from None
    return Path(found)


def check(hub_id: str) -> None:
    """Ask the hub, for ten seconds at most, whether it would give a model out.

    Raises:
        LabError: there is none of this name, it is gated, or the hub cannot be reached.
    """
    from httpx import HTTPError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled

    try:
        # What a gated model is called is told to everyone; its files are not given to everyone.
        if HfApi().model_info(hub_id, timeout=HUB_PATIENCE_S).gated:
            HfApi().auth_check(hub_id)
    except GatedRepoError:
        raise _gated(hub_id) from None
    except HfHubHTTPError as failure:
        reason = str(failure).splitlines()[0]
        raise LabError(f"model.path={hub_id!r}: the hub says no: {reason}") from None
    except (OSError, HTTPError, OfflineModeIsEnabled):
        raise _unreached(hub_id) from None


def _gated(hub_id: str) -> LabError:
    return LabError(
        f"model.path={hub_id!r} is gated: accept its terms on its page of the hub, then type "
        "hf auth login; or give the folder of a copy"
    )


def _unreached(hub_id: str) -> LabError:
    return LabError(
        f"model.path={hub_id!r} is not on this machine and the hub cannot be reached; "
        "download it elsewhere and give its folder"
    )
