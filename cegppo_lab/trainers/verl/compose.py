"""verl's own config for a job, composed and checked before anything starts, without a GPU."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cegppo_lab.errors import LabError
from cegppo_lab.trainers.verl.version import require_verl


def words(overrides: Mapping[str, Any]) -> list[str]:
    """``key=value`` words in Hydra's grammar, as verl's command line takes them."""
    return [f"{key}={_hydra(value)}" for key, value in overrides.items()]


def _hydra(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_hydra(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_hydra, value)) + "]"
    if isinstance(value, str):
        return QuotedString(value, Quote.single).with_quotes()
    return json.dumps(value)


def compose_job(overrides: Mapping[str, Any]) -> DictConfig:
    """verl's whole config with ``overrides`` over it, checked by verl's own validation.

    Raises ``LabError``: verl missing or of another version, a key that verl does not have, a
    value that it refuses, a batch geometry that its GPUs cannot share.
    """
    require_verl()
    job = [word for word in words(overrides) if not word.startswith("hydra.")]
    try:
        with initialize_config_module("verl.trainer.config", version_base=None):
            config = compose("ppo_trainer", overrides=job)
        OmegaConf.resolve(config)
    except (HydraException, OmegaConfBaseException) as error:
        raise LabError(f"verl's config: {_one_line(error)}") from None
    _check_geometry(config)
    _check_by_verl(config)
    return config


def _check_geometry(config: DictConfig) -> None:
    """What verl would find out after minutes of loading."""
    trainer, actor = config.trainer, config.actor_rollout_ref.actor
    rollout = config.actor_rollout_ref.rollout
    gpus = trainer.nnodes * trainer.n_gpus_per_node
    sharing = {
        "trainer.layout.sequence_parallel": actor.ulysses_sequence_parallel_size,
        "trainer.layout.tensor_parallel": rollout.tensor_model_parallel_size,
    }
    for key, size in sharing.items():
        if gpus % size:
            raise LabError(
                f"{key}={size} does not divide the {gpus} GPUs of a trial "
                f"(runtime.nodes={trainer.nnodes} x runtime.gpus={trainer.n_gpus_per_node})"
            )
    ranks = gpus // actor.ulysses_sequence_parallel_size
    responses = actor.ppo_mini_batch_size * rollout.n
    if responses % ranks:
        raise LabError(
            f"a mini-batch has {responses} responses ({actor.ppo_mini_batch_size} prompts x "
            f"trainer.rollout_n={rollout.n}), which {ranks} data-parallel ranks cannot share "
            "equally; change trainer.train_batch_size, trainer.mini_batches or runtime.gpus"
        )


def _check_by_verl(config: DictConfig) -> None:
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    try:
        with redirect_stdout(StringIO()), warnings.catch_warnings(action="ignore"):
            validate_config(
                config=config,
                use_reference_policy=need_reference_policy(config),
                use_critic=need_critic(config),
            )
    except (AssertionError, HydraException, OSError, ValueError, TypeError) as error:
        raise LabError(f"verl refuses the job: {_one_line(error)}") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
