"""The Python contract of ``loss``: what it refuses, F by hand, what gets a gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cegppo_lab.algorithms import algorithm_names, make_algorithm, merge_metrics
from cegppo_lab.errors import LabError


def tensors(shape: tuple[int, ...] = (2, 3)) -> dict[str, Tensor]:
    """The positional arguments of ``loss`` by name."""
    return {
        "log_prob": torch.full(shape, -1.0, requires_grad=True),
        "old_log_prob": torch.full(shape, -1.1),
        "advantages": torch.ones(shape),
        "mask": torch.ones(shape, dtype=torch.bool),
    }


def entropies(shape: tuple[int, ...] = (2, 3)) -> dict[str, Tensor]:
    """What some algorithms need as well: an entropy that the update has left alone."""
    return {"entropy": torch.ones(shape), "old_entropy": torch.ones(shape)}


@pytest.mark.parametrize("name", algorithm_names())
def test_a_loss_needs_resolved_coefficients(name):
    algorithm = make_algorithm(name, clip_high={0: 0.2, 5: 0.28})
    with pytest.raises(LabError, match=r"clip_high is a schedule; use algorithm\.at\(step\)"):
        algorithm.loss(**tensors())
    assert algorithm.at(5).loss(**tensors(), **entropies()).loss.isfinite()


@pytest.mark.parametrize(
    ("coefficient", "needs"), [("entropy_coef", "entropy"), ("kl_coef", "ref_log_prob")]
)
def test_a_missing_tensor_is_named(coefficient, needs):
    with pytest.raises(LabError, match=rf"{coefficient} > 0 needs {needs}; pass loss\("):
        make_algorithm("grpo", **{coefficient: 0.1}).loss(**tensors())


@pytest.mark.parametrize(
    ("name", "options", "needs"),
    [
        ("high_entropy_tokens", {}, "entropy_top needs old_entropy"),
        ("cegppo", {"entropy_top": 0.2}, "entropy_top needs old_entropy"),
        ("erc", {}, "erc needs entropy"),
    ],
)
def test_a_missing_entropy_is_named(name, options, needs):
    algorithm = make_algorithm(name, **options)
    assert needs.split()[-1] in algorithm.needs
    with pytest.raises(LabError, match=rf"^{needs}; pass loss\("):
        algorithm.loss(**tensors())
    assert algorithm.loss(**tensors(), **entropies()).loss.isfinite()


@pytest.mark.parametrize(
    "key",
    ["old_log_prob", "advantages", "mask", "entropy", "ref_log_prob", "old_entropy", "apart"],
)
@pytest.mark.parametrize("shape", [(2, 1), (3,), (2, 4), (1, 2, 3)])
def test_shapes_must_agree(key, shape):
    wrong = torch.ones(shape, dtype=torch.bool if key in ("mask", "apart") else torch.float32)
    with pytest.raises(LabError, match=rf"^{key} has shape .*\(batch, tokens\)"):
        make_algorithm("grpo").loss(**{**tensors(), key: wrong})


@pytest.mark.parametrize("shape", [(3,), (1, 2, 3)])
def test_inputs_are_batch_by_tokens(shape):
    with pytest.raises(LabError, match=r"log_prob has shape .* \(batch, tokens\)"):
        make_algorithm("grpo").loss(**tensors(shape))


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 1)])
def test_correct_is_one_flag_a_response(shape):
    with pytest.raises(LabError, match=r"correct has shape .* \(batch,\)"):
        make_algorithm("grpo").loss(**tensors(), correct=torch.ones(shape, dtype=torch.bool))


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_the_mask_is_bool(dtype):
    with pytest.raises(LabError, match=r"mask must be bool, not torch\.\w+; pass mask\.bool\(\)"):
        make_algorithm("grpo").loss(**{**tensors(), "mask": torch.ones(2, 3, dtype=dtype)})


@pytest.mark.parametrize("name", algorithm_names())
@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_an_empty_batch_is_no_loss(name, shape):
    out = make_algorithm(name).loss(**tensors(shape), **entropies(shape))
    assert out.loss.item() == 0
    assert out.weight.shape == shape


def test_the_weights_of_equation_10_by_hand():
    """Ratios 0.5, 1, 1.5 and 4; first row A = -1, second A = +1; clip widths 0.2 and 0.28."""
    ratios = torch.tensor([0.5, 1.0, 1.5, 4.0], dtype=torch.float64).repeat(2, 1)
    advantages = torch.tensor([[-1.0], [1.0]], dtype=torch.float64).expand(2, 4)
    mask = torch.ones(2, 4, dtype=torch.bool)
    widths = {"clip_low": 0.2, "clip_high": 0.28}
    for name, options, negative, positive in [
        ("grpo", {}, [0.0, 1.0, 1.5, 4.0], [0.5, 1.0, 0.0, 0.0]),
        ("grpo", {"dual_clip": 3}, [0.0, 1.0, 1.5, 0.0], [0.5, 1.0, 0.0, 0.0]),
        ("gppo", {}, [0.8, 1.0, 1.5, 4.0], [0.5, 1.0, 1.28, 1.28]),
        ("cegppo", {"beta1": 0.5, "beta2": 1}, [0.4, 1.0, 1.5, 4.0], [0.5, 1.0, 1.28, 1.28]),
        ("cegppo", {"beta1": 0.5, "beta2": 0.25}, [0.4, 1.0, 1.5, 4.0], [0.5, 1.0, 0.32, 0.32]),
        ("cegppo_decay", {"beta1": 0.5}, [0.25, 1.0, 1.5, 4.0], [0.5, 1.0, 1.28, 1.28]),
        ("cispo", {}, [0.8, 1.0, 1.28, 1.28], [0.8, 1.0, 1.28, 1.28]),
        ("cispo", {"clamp": "upper"}, [0.5, 1.0, 1.28, 1.28], [0.5, 1.0, 1.28, 1.28]),
        ("cispo", {"clamp": "cap", "cap": 3}, [0.5, 1.0, 1.5, 3.0], [0.5, 1.0, 1.5, 3.0]),
    ]:
        algorithm = make_algorithm(name, **widths, **options)
        out = algorithm.loss(ratios.log(), torch.zeros_like(ratios), advantages, mask)
        wanted = torch.tensor([negative, positive], dtype=torch.float64)
        torch.testing.assert_close(out.weight, wanted, rtol=1e-14, atol=0)
        dual = int("dual_clip" in options)
        assert out.metrics["actor/pg_clipfrac_na"] == pytest.approx(1 / 8)
        assert out.metrics["actor/pg_clipfrac_pa"] == pytest.approx(2 / 8)
        assert out.metrics["actor/pg_clipfrac"] == pytest.approx(3 / 8)
        assert out.metrics["actor/pg_clipfrac_lower"] == pytest.approx(dual / 8)
        assert out.metrics["actor/ratio_mean"] == pytest.approx(7 / 4)


@pytest.mark.parametrize("name", algorithm_names())
def test_without_an_advantage_nothing_is_clipped(name):
    ratios = torch.tensor([[0.5, 0.5], [4.0, 4.0]], dtype=torch.float64)
    mask = torch.ones(2, 2, dtype=torch.bool)
    algorithm = make_algorithm(name, clip_low=0.2, clip_high=0.2)
    given = (ratios.log(), torch.zeros(2, 2), torch.zeros(2, 2), mask)
    out = algorithm.loss(*given, **entropies((2, 2)))
    if name not in ("sapo", "gmpo"):  # whose F is neither the ratio nor its edge
        wanted = ratios.clamp(0.8, 1.2) if name == "cispo" else ratios
        torch.testing.assert_close(out.weight, wanted, rtol=1e-14, atol=0)
    assert out.metrics["actor/pg_clipfrac"] == 0


def test_gspo_holds_one_ratio_against_the_interval():
    """sqrt(4 * 0.25) = 1 keeps a response whose tokens are both far outside; padding has none."""
    ratios = torch.tensor([[4.0, 0.25, 9.0], [4.0, 4.0, 4.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    algorithm = make_algorithm("gspo", clip_low=0.2, clip_high=0.2)
    out = algorithm.loss(ratios.log(), torch.zeros(2, 3).double(), torch.ones(2, 3), mask)
    wanted = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(out.weight, wanted, rtol=1e-14, atol=0)
    assert out.metrics["actor/pg_clipfrac"] == pytest.approx(3 / 5)


def test_only_log_prob_and_entropy_get_a_gradient():
    given = tensors()
    given["old_log_prob"].requires_grad_()
    given["advantages"].requires_grad_()
    reference = torch.full((2, 3), -2.0, requires_grad=True)
    entropy = torch.full((2, 3), 1.5, requires_grad=True)
    algorithm = make_algorithm("cegppo", entropy_coef=0.1, kl_coef=0.1)
    algorithm.loss(**given, entropy=entropy, ref_log_prob=reference).loss.backward()
    assert given["log_prob"].grad is not None
    torch.testing.assert_close(entropy.grad, torch.full((2, 3), -0.1 / 6))
    assert given["old_log_prob"].grad is given["advantages"].grad is reference.grad is None


def test_metrics_merge_by_their_meaning():
    parts = [
        {"actor/ppo_kl": 0.25, "actor/ratio_max": 3.0, "actor/ratio_min": 0.5},
        {"actor/ppo_kl": 0.5, "actor/ratio_max": 2.0, "actor/ratio_min": 0.1},
    ]
    merged = merge_metrics(parts)
    assert merged == {"actor/ppo_kl": 0.75, "actor/ratio_max": 3.0, "actor/ratio_min": 0.1}
