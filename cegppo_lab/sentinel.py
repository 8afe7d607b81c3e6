"""Stop rules: when a run is not worth its next step, and the words that say why.

A sweep file switches them on, all are off by default::

    stop:
      entropy_below: {value: 0.05, steps: 5}
      reward_collapse: {drop: 0.5}

Rules are no part of a trial's id: up to the stop the numbers are those of the same run without
them, and a sweep without the rule goes on from the last checkpoint. What a rule knows is what the
store holds, so a killed run stops where it would have stopped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from cegppo_lab.stop_rules import (
    AtStep,
    EntropyAbove,
    EntropyBelow,
    KlAbove,
    NonFinite,
    NoProgress,
    Pruned,
    RatchetAbove,
    RatioAbove,
    RewardCollapse,
    Rule,
)
from cegppo_lab.store import StepRecord


class StopRules(BaseModel):
    """The ``stop:`` section of a sweep file: each rule with its parameters, or off."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    non_finite: NonFinite | None = None
    entropy_below: EntropyBelow | None = None
    entropy_above: EntropyAbove | None = None
    reward_collapse: RewardCollapse | None = None
    kl_above: KlAbove | None = None
    ratio_above: RatioAbove | None = None
    ratchet_above: RatchetAbove | None = None
    no_progress: NoProgress | None = None
    at_step: AtStep | None = None
    pruned: Pruned | None = None

    def on(self) -> dict[str, Rule]:
        """The rules that are on, by name."""
        return {name: rule for name, rule in self if rule is not None}

    def tree(self) -> dict[str, dict[str, Any]]:
        """The rules that are on, as plain values with every parameter: ``StopRules(**tree)``."""
        return self.model_dump(exclude_none=True)

    def ask_for(self, rule: Mapping[str, Any]) -> bool:
        """Whether a stop by ``rule`` (see ``Status.rule``) is one that these rules ask for.

        A trainer's own stop has no rule: no set of rules would have it go on.
        """
        own = self.tree()
        return all(own.get(name) == parameters for name, parameters in rule.items())


NO_RULES = StopRules()
SEARCH_RULES = StopRules(
    non_finite={},
    entropy_below={"value": 1e-3, "steps": 20},
    kl_above={"value": 5.0, "steps": 5},
)
"""The rules of a search whose file does not say otherwise: what no run comes back from.

Numbers that are not finite; a policy that no longer explores (0.001 nats per token, 20 steps); one
that every update throws far from where its responses came from (5 nats per token, 5 steps). Bounds
that depend on the task (entropy above, the reward, the largest ratio) are left to the file.
"""


def search_rules(said: StopRules | None) -> StopRules:
    """The rules of a search whose file says ``said`` under ``stop:``, None where it says nothing.

    ``stop: {}`` is no rule at all; else a rule that the file names is as it says, off where it is
    null, and the others are those of ``SEARCH_RULES``.
    """
    if said is None:
        return SEARCH_RULES
    named = {name: getattr(said, name) for name in said.model_fields_set}
    return SEARCH_RULES.model_copy(update=named) if named else NO_RULES


class PausedError(Exception):
    """Thrown into a trainer at the record of the step after which its run pauses.

    A trainer that can saves a checkpoint of that step and returns. One that lets it pass loses
    the steps since its last checkpoint, which are computed again when the run goes on.
    """


@dataclass(frozen=True)
class Stop:
    """That a run is to stop: why, and by which rule (``{name: parameters}``)."""

    reason: str
    rule: dict[str, Any]

    @property
    def pauses(self) -> bool:
        """Whether the run is meant to go on."""
        return "at_step" in self.rule


class Sentinel:
    """Watches one run. ``history``: the steps that the store has already, in order."""

    def __init__(self, rules: StopRules, history: Iterable[StepRecord] = ()) -> None:
        self._rules, self._tree = rules.on(), rules.tree()
        self._watches = {name: rule.watch() for name, rule in self._rules.items()}
        self._blind = {
            name: set(rule.metrics) for name, rule in self._rules.items() if rule.metrics
        }
        self._last = 0
        self.stop: Stop | None = None
        for record in history:
            self.see(record)

    def see(self, record: StepRecord) -> Stop | None:
        """Look at a step; the stop that it, or one before it, asks for.

        A step that was seen before (a resumed run computes some again) changes nothing. Where
        several rules fire at one step, the first in the order of ``StopRules`` is told.
        """
        if record.step <= self._last or self.stop:
            return self.stop
        self._last = record.step
        self._blind = {
            name: unseen
            for name, unseen in self._blind.items()
            if unseen.isdisjoint(record.metrics)
        }
        for name, watch in self._watches.items():
            told = watch(record.metrics)
            if told and not self.stop:
                reason = f"{name} at step {record.step}: {told}"
                self.stop = Stop(reason, {name: self._tree[name]})
        return self.stop

    def note(self) -> str:
        """A sentence on the rules whose metric no step had; empty where there is none."""
        told = [f"{name} ({', '.join(sorted(keys))})" for name, keys in self._blind.items()]
        return f"stop rules without their metric: {', '.join(told)}" if told else ""
