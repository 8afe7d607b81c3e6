"""One data-parallel rank of verl's actor, as a process: ``python -m ... FOLDER``.

Updates verl's own ``ActorRolloutRefWorker`` on this rank's rows of ``FOLDER/batch.pt`` once per
case of ``FOLDER/cases.json``, at learning rate 0, and has rank 0 write gradients and metrics.
"""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf, open_dict
from tensordict import TensorDict
from torch.distributed.tensor import DTensor
from verl.utils import tensordict_utils as tu
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.metric import reduce_metrics
from verl.utils.py_functional import rename_dict
from verl.workers.engine_workers import ActorRolloutRefWorker
from verl.workers.utils.losses import ppo_loss

from cegppo_lab.trainers.verl.cpu import CPU_OVERRIDES
from cegppo_lab.trainers.verl.loss import LOSS_MODE, TARGET

FIELDS = ("prompts", "responses", "response_mask", "old_log_probs", "advantages")


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    batch = torch.load(folder / "batch.pt", weights_only=True)
    config = _config(folder, rows=len(batch["prompts"]))
    worker = ActorRolloutRefWorker(config=config, role="actor")
    worker.init_model()
    results, gradient = [], _record_gradients(worker)
    for case in json.loads((folder / "cases.json").read_text()):
        actor = omega_conf_to_dataclass(_with_loss(config.actor, case))
        worker.set_loss_fn(partial(ppo_loss, config=actor))
        data = _data(batch, case, rank, ranks)
        output = worker.update_actor(data)
        metrics = reduce_metrics(rename_dict(tu.get(output, "metrics"), "actor/"))
        results.append({"gradient": dict(gradient), "metrics": _numbers(metrics)})
    if rank == 0:
        torch.save(results, folder / f"results_{ranks}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def _config(folder: Path, rows: int) -> DictConfig:
    """verl's own config under our CPU overrides: one mini-batch, micro-batches of two rows."""
    overrides = {key: item.value for key, item in CPU_OVERRIDES.items()}
    overrides |= json.loads((folder / "overrides.json").read_text())
    overrides |= {
        "actor_rollout_ref.actor.ppo_mini_batch_size": rows,
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu": 2,
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu": 2,
        "actor_rollout_ref.rollout.n": 1,
        "actor_rollout_ref.actor.optim.lr": 0.0,
        "actor_rollout_ref.actor.grad_clip": 1e9,
        "actor_rollout_ref.actor.optim.clip_grad": 1e9,
    }
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer")
    for key, value in overrides.items():
        OmegaConf.update(config, key.removeprefix("+"), value, force_add=key.startswith("+"))
    return config.actor_rollout_ref


def _with_loss(actor: DictConfig, case: dict[str, Any]) -> DictConfig:
    changed = actor.copy()
    with open_dict(changed):
        changed.policy_loss.update(
            _target_=TARGET,
            loss_mode=LOSS_MODE,
            algorithm=case["algorithm"],
            options=case["options"],
        )
        changed.loss_agg_mode = case["aggregation"]
        changed.entropy_coeff = case["entropy_coeff"]
        changed.use_dynamic_bsz = case["dynamic_tokens"] is not None
    return changed


def _data(
    batch: dict[str, list[torch.Tensor]], case: dict[str, Any], rank: int, ranks: int
) -> TensorDict:
    """This rank's contiguous share of the rows, as verl's trainer sends it."""
    rows = len(batch["prompts"])
    mine = range(rank * rows // ranks, (rank + 1) * rows // ranks)
    fields = {key: [batch[key][row] for row in mine] for key in FIELDS}
    fields["input_ids"] = [
        torch.cat(pair) for pair in zip(fields["prompts"], fields["responses"], strict=True)
    ]
    fields["position_ids"] = [torch.arange(len(ids)) for ids in fields["input_ids"]]
    fields["loss_mask"] = fields["response_mask"]
    data = TensorDict(
        {
            key: torch.nested.as_nested_tensor(value, layout=torch.jagged)
            for key, value in fields.items()
        },
        batch_size=[len(mine)],
    )
    tu.assign_non_tensor(
        data,
        temperature=batch["temperature"],
        global_batch_size=rows,
        mini_batch_size=rows,
        epochs=1,
        seed=0,
        dataloader_kwargs={"shuffle": False},
        calculate_entropy=case["entropy_coeff"] != 0,
        use_dynamic_bsz=case["dynamic_tokens"] is not None,
        max_token_len_per_gpu=case["dynamic_tokens"] or 0,
    )
    return data


def _record_gradients(worker: ActorRolloutRefWorker) -> dict[str, torch.Tensor]:
    """Full gradients by parameter name, as the latest optimizer step found them."""
    engine, found = worker.actor.engine, {}

    def record(*_: Any) -> None:
        for name, parameter in engine.module.named_parameters():
            grad = parameter.grad
            found[name] = (grad.full_tensor() if isinstance(grad, DTensor) else grad).clone()

    engine.optimizer.register_step_pre_hook(record)
    return found


def _numbers(metrics: dict[str, Any]) -> dict[str, float]:
    return {key: float(value) for key, value in metrics.items()}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
