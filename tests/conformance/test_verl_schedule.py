"""A schedule means the same on both trainers: at every step, the same coefficients in force."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from verl.trainer.ppo.core_algos import get_policy_loss_fn
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.config import ActorConfig

from cegppo_lab.algorithms import Algorithm
from cegppo_lab.compose import resolve
from cegppo_lab.config import RunConfig
from cegppo_lab.trainers.embedded import trainer as embedded
from cegppo_lab.trainers.embedded import update as embedded_update
from cegppo_lab.trainers.verl.compose import compose_job
from cegppo_lab.trainers.verl.loss import LOSS_MODE
from cegppo_lab.trainers.verl.overrides import verl_overrides
from cegppo_lab.trainers.verl.trainer import phases, planned_places
from tests.conformance.cases import gradient, random_inputs

STEPS = 5
PLACES = planned_places(Path("/runs/t/verl"), Path("/runs/t/checkpoints"), "a/model")
SCHEDULED = {
    "algorithm.beta1": {0: 0.0, 1: 0.5, 3: 1.0},
    "algorithm.entropy_coef": {0: 0.0, 2: 0.01},
    "algorithm.kl_coef": {0: 0.0, 4: 0.1},
    "trainer.steps": STEPS,
    "trainer.filter_groups": False,
    "trainer.train_batch_size": 2,
    "trainer.mini_batches": 2,
    "trainer.rollout_n": 2,
    "trainer.eval_samples": 1,
    "trainer.eval_every": STEPS,
}


@pytest.fixture(scope="module")
def by_embedded(tmp_path_factory: pytest.TempPathFactory) -> list[Algorithm]:
    """The algorithm whose loss each training step of the embedded trainer really took."""
    seen: list[list[Algorithm]] = []
    update, accumulate = embedded.update, embedded_update.accumulate

    def watch_step(*args: Any) -> Any:
        seen.append([])
        return update(*args)

    def watch_loss(policy: Any, reference: Any, algorithm: Algorithm, *args: Any) -> Any:
        seen[-1].append(algorithm)
        return accumulate(policy, reference, algorithm, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedded, "update", watch_step)
        patch.setattr(embedded_update, "accumulate", watch_loss)
        folder = tmp_path_factory.mktemp("checkpoints")
        for _ in embedded.EmbeddedTrainer().run(resolve(SCHEDULED), folder):
            pass
    assert [len(each) for each in seen] == [SCHEDULED["trainer.mini_batches"]] * STEPS
    assert all(each.count(each[0]) == len(each) for each in seen)
    return [each[0] for each in seen]


def _config() -> RunConfig:
    return resolve({**SCHEDULED, "trainer": "verl"})


def _actor(config: RunConfig, first: int, last: int) -> ActorConfig:
    """What verl's actor is built from in the job for the steps after ``first``."""
    composed = compose_job(verl_overrides(config, PLACES, first, last))
    return omega_conf_to_dataclass(composed.actor_rollout_ref.actor)


def _in_force(actor: ActorConfig) -> Algorithm:
    """The algorithm with the terms that verl adds itself."""
    added = {
        "entropy_coef": actor.entropy_coeff,
        "kl_coef": actor.kl_loss_coef if actor.use_kl_loss else 0.0,
    }
    return actor.policy_loss.resolved.model_copy(update=added)


def test_every_step_has_the_same_coefficients(by_embedded: list[Algorithm]) -> None:
    config = _config()
    by_verl = [
        _in_force(_actor(config, first, last))
        for first, last in phases(config)
        for _ in range(first, last)
    ]
    assert by_verl == by_embedded
    assert [each.beta1 for each in by_verl] == [0.0, 0.5, 0.5, 1.0, 1.0]
    assert [each.entropy_coef for each in by_verl] == [0.0, 0.0, 0.01, 0.01, 0.01]
    assert [each.kl_coef for each in by_verl] == [0.0, 0.0, 0.0, 0.0, 0.1]


def test_so_has_every_step_that_a_job_is_resumed_at(by_embedded: list[Algorithm]) -> None:
    config = _config()
    assert [_in_force(_actor(config, step, STEPS)) for step in range(STEPS)] == by_embedded


def test_every_step_has_the_same_gradient(by_embedded: list[Algorithm]) -> None:
    """Of the policy loss, on one batch; it changes where beta1 does, and nowhere else."""
    config = _config()
    gradients = []
    for first, last in phases(config):
        for step in range(first, last):
            algorithm = by_embedded[step].model_copy(update={"entropy_coef": 0.0, "kl_coef": 0.0})
            inputs = random_inputs(0)
            ours = gradient(algorithm.loss(*inputs).loss, inputs.log_prob)
            theirs = _verl_gradient(_actor(config, first, last))
            torch.testing.assert_close(theirs, ours, rtol=1e-12, atol=1e-12)
            gradients.append(theirs)
    same = [torch.equal(before, after) for before, after in pairwise(gradients)]
    assert same == [False, True, False, True]


def _verl_gradient(actor: ActorConfig) -> Tensor:
    log_prob, old_log_prob, advantages, mask = random_inputs(0)
    loss, _ = get_policy_loss_fn(LOSS_MODE)(
        old_log_prob=old_log_prob,
        log_prob=log_prob,
        advantages=advantages,
        response_mask=mask,
        loss_agg_mode=actor.loss_agg_mode,
        config=actor,
        rollout_is_weights=None,
    )
    return gradient(loss, log_prob)
