"""Which weights a model path names: shipped, packaged, local folders, GGUF files, hub models."""

from cegppo_lab.models.hub import is_hub_id
from cegppo_lab.models.packaged import packaged_models
from cegppo_lab.models.paths import (
    check_chat_template,
    check_model,
    fingerprint,
    local_folder,
    located,
    portable,
    shipped_policies,
    weights_hash,
)

__all__ = [
    "check_chat_template",
    "check_model",
    "fingerprint",
    "is_hub_id",
    "local_folder",
    "located",
    "packaged_models",
    "portable",
    "shipped_policies",
    "weights_hash",
]
