"""The newest checkpoint of a stored trial that can be loaded as a policy, whoever trained it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cegppo_lab.errors import LabError
from cegppo_lab.files import read_json
from cegppo_lab.store import RunDir

_VERL_PREFIX = "global_step_"


@dataclass(frozen=True)
class Checkpoint:
    """A policy folder in Hugging Face format after ``step`` training steps."""

    policy: Path
    step: int

    @property
    def has_chat_template(self) -> bool:
        """Whether its tokenizer has one; runs from before templates were used have none."""
        settings = read_json(self.policy / "tokenizer_config.json", {})
        return (self.policy / "chat_template.jinja").exists() or "chat_template" in settings


def newest_checkpoint(run: RunDir, say: Callable[[str], None]) -> Checkpoint:
    """The newest checkpoint of a trial, of the embedded trainer or of verl.

    ``say`` is told of the embedded trainer's damaged ones, for which an older one is taken.

    Raises:
        LabError: there is none that is whole, or verl's is still in shards; the message says how to
            merge them.
    """
    found = _embedded(run.checkpoints, say) or _verl(run.checkpoints)
    if found is None:
        raise LabError(
            f"trial {run.trial_id} has no whole checkpoint in {run.checkpoints}; train it with the "
            "sweep or train command that made it, or name another"
        )
    return found


def _embedded(root: Path, say: Callable[[str], None]) -> Checkpoint | None:
    # Here and not above: the listing of trials needs no torch.
    from cegppo_lab.trainers.embedded.checkpoint import newest_policy

    policy = newest_policy(root, say)
    if policy is None:
        return None
    return Checkpoint(policy, read_json(policy.parent / "state.json")["step"])


def _verl(root: Path) -> Checkpoint | None:
    steps = [
        int(folder.name.removeprefix(_VERL_PREFIX))
        for folder in root.glob(f"{_VERL_PREFIX}*")
        if (folder / "actor").is_dir() and folder.name.removeprefix(_VERL_PREFIX).isdigit()
    ]
    if not steps:
        return None
    actor = root / f"{_VERL_PREFIX}{max(steps)}" / "actor"
    merged = actor / "huggingface"
    if not any(merged.glob("*.safetensors")):
        raise LabError(
            f"verl's checkpoint {actor} is in shards; merge it first, type: python -m "
            f"verl.model_merger merge --backend fsdp --local_dir {actor} --target_dir {merged}"
        )
    return Checkpoint(merged, max(steps))
