"""Which policies the words of the evaluate command mean, and where their weights lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cegppo_lab.compose import config_groups, resolve
from cegppo_lab.errors import LabError, unknown
from cegppo_lab.evaluate.checkpoints import newest_checkpoint
from cegppo_lab.execute import has_ended
from cegppo_lab.models import is_hub_id, packaged_models, portable, shipped_policies
from cegppo_lab.store import RunDir, RunStore

SWEEP_PREFIX = "sweep:"
_SHORTEST_TRIAL = 4
"""Characters of a trial's id at least, so that a mistyped name is not taken for one."""


@dataclass(frozen=True)
class PolicySpec:
    """A policy to evaluate, and how it is to be loaded.

    ``label`` is what tables call it, ``given`` what was typed. ``task``: of a shipped tiny policy
    or a trial, the task that it was made for. ``trial_id``, ``step``: of a stored trial's
    checkpoint, whose weights have the head scale applied already.
    """

    label: str
    given: str
    path: str
    head_scale: float = 1.0
    dtype: str = "float32"
    chat_template: bool = True
    task: str | None = None
    trial_id: str | None = None
    step: int | None = None

    def changed(self, **changes: Any) -> PolicySpec:
        """The same policy with those ``changes`` that are not None."""
        return replace(self, **{key: val for key, val in changes.items() if val is not None})


def find_policies(
    words: Sequence[str], store: RunStore, say: Callable[[str], None]
) -> list[PolicySpec]:
    """The policies that ``words`` mean, in their order; each word as the first of

    ``sweep:NAME`` (its finished trials), a preset of conf/model, a shipped or packaged model, a
    local folder or GGUF file, a stored trial's id or the beginning of one, a hub id. ``say`` is
    told of trials of a sweep that are left out, and of damaged checkpoints.

    Raises:
        LabError: a word that means none of these, or several trials; a trial without a checkpoint
            that can be loaded; one policy twice.
    """
    found: list[PolicySpec] = []
    for word in words:
        if word.startswith(SWEEP_PREFIX):
            found += _of_sweep(word.removeprefix(SWEEP_PREFIX), word, store, say)
        else:
            found.append(_one(word, store, say))
    labels = [policy.label for policy in found]
    for label in labels:
        if labels.count(label) > 1:
            raise LabError(f"policy {label!r} is named twice; name it once")
    return found


def _one(word: str, store: RunStore, say: Callable[[str], None]) -> PolicySpec:
    if word in config_groups()["model"]:
        return _preset(word)
    if word in shipped_policies():
        return PolicySpec(word, word, word, task=word)
    if word in packaged_models() or Path(word).expanduser().exists():
        return PolicySpec(word, word, portable(word))
    trials = [trial for trial in store.trial_ids() if trial.startswith(word)]
    if trials and len(word) >= _SHORTEST_TRIAL:
        return _of_trials(word, trials, store, say)
    if is_hub_id(word) and not word.startswith((".", "~")):
        return PolicySpec(word, word, word)
    names = {*config_groups()["model"], *shipped_policies(), *packaged_models()}
    raise LabError(
        f"{unknown('policy', word, names)} Or a model folder, a trial's id, sweep:NAME, "
        "owner/name on the hub."
    )


def _preset(name: str) -> PolicySpec:
    model = resolve({"model": name}).model
    task = model.path if model.path in shipped_policies() else None
    return PolicySpec(
        name, name, model.path, model.head_scale, model.dtype, model.chat_template, task
    )


def _of_trials(
    word: str, trials: list[str], store: RunStore, say: Callable[[str], None]
) -> PolicySpec:
    if len(trials) > 1:
        listed = ", ".join(trials[:4]) + (", ..." if len(trials) > 4 else "")
        raise LabError(f"{len(trials)} trials begin with {word!r}: {listed}; give more of the id")
    return _trial(store.run(trials[0]), word, f"trial {trials[0]}", say)


def _trial(run: RunDir, given: str, label: str, say: Callable[[str], None]) -> PolicySpec:
    checkpoint = newest_checkpoint(run, say)
    config = run.config()
    model, task = config.get("model", {}), config.get("task", {}).get("name")
    return PolicySpec(
        label=label,
        given=given,
        path=str(checkpoint.policy),
        dtype=model.get("dtype", "float32"),
        # A run whose tokenizer has no template was trained on the prompts as they are.
        chat_template=model.get("chat_template", True) and checkpoint.has_chat_template,
        task=task if task in shipped_policies() else None,
        trial_id=run.trial_id,
        step=checkpoint.step,
    )


def _of_sweep(
    name: str, given: str, store: RunStore, say: Callable[[str], None]
) -> list[PolicySpec]:
    entries = store.manifest(name)["trials"]
    finished = [entry for entry in entries if has_ended(store, entry["trial_id"])]
    if not finished:
        raise LabError(
            f"no trial of sweep {name!r} is finished; type: python -m cegppo_lab sweep {name}"
        )
    if left := len(entries) - len(finished):
        say(f"{left} of {len(entries)} trials of sweep {name!r} are not finished; left out")
    return [
        _trial(store.run(entry["trial_id"]), given, f"{entry['arm']} seed {entry['seed']}", say)
        for entry in finished
    ]
