"""Our losses inside verl's config and its loss function, without a trainer around them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hydra.errors import InstantiationException
from omegaconf import OmegaConf
from torch import Tensor
from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY, get_policy_loss_fn
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.metric import Metric
from verl.workers.config import ActorConfig, PolicyLossConfig

from cegppo_lab import metrics as names
from cegppo_lab.algorithms import algorithm_names, make_algorithm
from cegppo_lab.errors import LabError
from cegppo_lab.trainers.verl import loss as lab
from cegppo_lab.trainers.verl.loss import LOSS_MODE, TARGET, LabPolicyLoss, policy_loss
from cegppo_lab.trainers.verl.version import require_verl
from tests.conformance.cases import AGGREGATIONS, gradient, random_inputs


def actor(section: Any, **values: Any) -> ActorConfig:
    """The part of verl's actor config that the loss reads."""
    values = {"ppo_micro_batch_size_per_gpu": 8} | values
    return ActorConfig(strategy="fsdp", rollout_n=1, policy_loss=section, **values)


def call(config: ActorConfig, inputs: Any, **values: Any) -> tuple[Tensor, dict[str, float]]:
    """The registered loss, called by keyword as verl calls it."""
    log_prob, old_log_prob, advantages, mask = inputs
    return get_policy_loss_fn(LOSS_MODE)(
        old_log_prob=old_log_prob,
        log_prob=log_prob,
        advantages=advantages,
        response_mask=mask,
        loss_agg_mode=values.pop("loss_agg_mode", config.loss_agg_mode),
        config=config,
        rollout_is_weights=values.pop("rollout_is_weights", None),
    )


def test_verl_builds_the_section_from_its_config_and_checks_it() -> None:
    values = {"algorithm": "cegppo", "options": {"beta1": 0.25, "dual_clip": 10, "clip_low": 0.1}}
    section = omega_conf_to_dataclass(
        OmegaConf.create({"_target_": TARGET, "loss_mode": LOSS_MODE, "dro_beta": None, **values})
    )
    wanted = make_algorithm("cegppo", beta1=0.25, dual_clip=10, clip_low=0.1)
    assert section.resolved == wanted
    with pytest.raises(InstantiationException, match="Did you mean 'beta1'"):
        omega_conf_to_dataclass(
            OmegaConf.create({"_target_": TARGET, "algorithm": "cegppo", "options": {"beta_1": 1}})
        )


@pytest.mark.parametrize("name", algorithm_names())
def test_every_algorithm_survives_its_own_dump(name: str) -> None:
    options = OmegaConf.create(make_algorithm(name).model_dump(mode="json"))
    section = omega_conf_to_dataclass(
        OmegaConf.create({"_target_": TARGET, "algorithm": name, "options": options})
    )
    assert section.resolved == make_algorithm(name)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"algorithm": ""}, "unknown algorithm"),
        ({"algorithm": "cegpo"}, "Did you mean 'cegppo'"),
        ({"algorithm": "grpo", "options": {"beta1": 1}}, "unknown key"),
        ({"algorithm": "grpo", "options": {"clip_low": "wide"}}, r"clip_low='wide'"),
        ({"algorithm": "grpo", "options": {"clip_low": -1}}, "must be >= 0"),
        ({"algorithm": "cegppo", "options": {"beta1": {0: 1, 5: 0.5}}}, "consecutive phases"),
        ({"algorithm": "grpo", "options": {"entropy_coef": 0.01}}, "actor.entropy_coeff"),
        ({"algorithm": "grpo", "options": {"kl_coef": 0.01}}, "actor.use_kl_loss"),
        ({"algorithm": "grpo", "loss_mode": "vanilla"}, "loss_mode=vanilla"),
    ],
    ids=str,
)
def test_mistakes_are_told_when_the_config_is_built(values: dict[str, Any], message: str) -> None:
    with pytest.raises(LabError, match=message):
        LabPolicyLoss(**values)


def test_configs_that_contradict_the_section_are_told() -> None:
    section = LabPolicyLoss(algorithm="gspo")
    with pytest.raises(LabError, match="loss_agg_mode=seq-mean-token-mean"):
        call(actor(section), random_inputs(0))
    with pytest.raises(LabError, match="policy_loss._target_=" + TARGET):
        call(actor(PolicyLossConfig(loss_mode=LOSS_MODE)), random_inputs(0))


def test_another_loss_of_our_name_is_not_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(POLICY_LOSS_REGISTRY, LOSS_MODE, sorted)
    with pytest.raises(LabError, match="already"):
        lab._register()


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("ranks", [1, 2])
def test_micro_batches_and_ranks_add_up_to_the_loss_of_the_whole(
    aggregation: str, ranks: int
) -> None:
    """FSDP sums a rank's micro-batches and averages over ranks; verl averages metrics over all."""
    whole = _without_empty_rows(random_inputs(0))
    rows = len(whole[3])
    algorithm = make_algorithm("cegppo", aggregation=aggregation, dual_clip=3)
    expected = algorithm.loss(*whole)
    counts = {"dp_size": ranks, "batch_num_tokens": int(whole[3].sum()), "global_batch_size": rows}
    section = LabPolicyLoss(
        algorithm="cegppo", options={"aggregation": aggregation, "dual_clip": 3}
    )
    config = actor(
        section,
        loss_agg_mode=aggregation,
        ppo_micro_batch_size_per_gpu=1,
        global_batch_info=counts,
    )
    total, measured = torch.tensor(0.0, dtype=torch.float64), []
    for row in range(rows):
        part, metrics = call(config, [tensor[row : row + 1] for tensor in whole])
        total = total + part / ranks
        measured.append(metrics)
    torch.testing.assert_close(total, expected.loss, rtol=1e-12, atol=0)
    torch.testing.assert_close(
        gradient(total, whole[0]), gradient(expected.loss, whole[0]), rtol=1e-12, atol=1e-15
    )
    means = {key: _as_verl_averages(measured, key, ranks) for key in measured[0]}
    extremes = {names.RATIO_MAX, names.RATIO_MIN}
    assert {key: expected.metrics[key] for key in means.keys() - extremes} == pytest.approx(
        {key: means[key] for key in means.keys() - extremes}
    )
    assert means[names.RATIO_MAX] <= expected.metrics[names.RATIO_MAX]


def _as_verl_averages(measured: list[dict[str, float]], key: str, ranks: int) -> float:
    """A mini-batch's metric from those of its micro-batches, the first rank's first."""
    share = len(measured) // ranks
    of_ranks = [Metric("mean") for _ in range(ranks)]
    for number, metrics in enumerate(measured):
        of_ranks[number // share].append(metrics[key])
    return Metric.aggregate_dp(of_ranks)


def _without_empty_rows(inputs: Any) -> list[Tensor]:
    """Six rows, all with tokens: verl's responses have at least one."""
    kept = inputs.mask.any(-1).nonzero()[:6, 0]
    tensors = [tensor[kept].detach() for tensor in inputs]
    return [tensors[0].requires_grad_(), *tensors[1:]]


def test_dynamic_micro_batches_report_their_own_means() -> None:
    inputs = _without_empty_rows(random_inputs(1))
    counts = {"dp_size": 2, "batch_num_tokens": 500, "global_batch_size": 40}
    config = actor(LabPolicyLoss(algorithm="grpo"), use_dynamic_bsz=True, global_batch_info=counts)
    _, metrics = call(config, inputs)
    alone = make_algorithm("grpo").loss(*inputs).metrics
    assert metrics == pytest.approx({key: alone[key] for key in metrics})
    assert not {names.LOSS, names.PG_LOSS} & metrics.keys()


def test_the_positive_loss_is_exact_for_equal_shares_and_an_average_otherwise() -> None:
    inputs = _without_empty_rows(random_inputs(2))
    mask, advantages = inputs[3], torch.where(inputs[2] > 0, 1.0, -1.0)
    section = LabPolicyLoss(algorithm="grpo", options={"positive_loss_coef": 0.5})
    algorithm = make_algorithm("grpo", positive_loss_coef=0.5)
    # Twice the same rows as two micro-batches: the share of correct tokens is that of the whole.
    counts = {"dp_size": 1, "batch_num_tokens": 2 * int(mask.sum()), "global_batch_size": 12}
    config = actor(section, ppo_micro_batch_size_per_gpu=6, global_batch_info=counts)
    half, metrics = call(config, [inputs[0], inputs[1], advantages, mask])
    expected = algorithm.loss(inputs[0], inputs[1], advantages, mask)
    torch.testing.assert_close(2 * half, expected.loss)
    assert metrics[names.POSITIVE_LOSS] == pytest.approx(expected.metrics[names.POSITIVE_LOSS])
    assert metrics[names.POSITIVE_LOSS] > 0


def test_rollout_weights_multiply_the_gradient_token_by_token() -> None:
    inputs = _without_empty_rows(random_inputs(3))
    weights = torch.rand(inputs[3].shape, generator=torch.Generator().manual_seed(0)) + 0.1
    config = actor(LabPolicyLoss(algorithm="cegppo"))
    plain = gradient(call(config, inputs)[0], inputs[0])
    weighted = gradient(call(config, inputs, rollout_is_weights=weights)[0], inputs[0])
    torch.testing.assert_close(weighted, plain * weights)
    assert plain.abs().sum() > 0


def test_ranks_without_counts_are_refused() -> None:
    config = actor(LabPolicyLoss(algorithm="grpo"), global_batch_info={"dp_size": 2})
    with pytest.raises(LabError, match="global mini-batch"):
        policy_loss(*_verl_order(random_inputs(0)), "token-mean", config)


def _verl_order(inputs: Any) -> tuple[Tensor, ...]:
    return inputs.old_log_prob, inputs.log_prob, inputs.advantages, inputs.mask


def test_only_the_pinned_verl_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    require_verl()
    where = "cegppo_lab.trainers.verl.version"
    monkeypatch.setattr(f"{where}.find_spec", lambda _: None)
    with pytest.raises(LabError, match=r"TransferQueue; type: pip install verl==0\.9\.1"):
        require_verl(to_train=True)
    monkeypatch.setattr(f"{where}.version", lambda _: "0.9.2")
    with pytest.raises(
        LabError, match=r"needs verl 0\.9\.1, not 0\.9\.2; type: pip install verl=="
    ):
        require_verl()
