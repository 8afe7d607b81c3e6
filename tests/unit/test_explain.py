"""The loss microscope: F against the ratio, and the drift of entropy without reward."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from cegppo_lab.algorithms import Algorithm, make_algorithm
from cegppo_lab.cli import cli
from cegppo_lab.errors import LabError
from cegppo_lab.explain.choose import presets
from cegppo_lab.explain.dynamics import Settings, preview
from cegppo_lab.explain.tabular import Adam, entropy, entropy_change, logits_gradient
from cegppo_lab.explain.weights import curves

SMALL = Settings(steps=3, seeds=2, slots=3, symbols=5, prompts=4, rollouts=4, mini_batches=2)
MISTAKES = [
    (["cegpo"], "unknown algorithm 'cegpo'. Did you mean 'cegppo'"),
    (
        ["cegppo", "cegppo.beta3=1"],
        "unknown key of algorithm 'beta3'. Did you mean 'beta2' or 'beta1'",
    ),
    (["cegppo", "beta1=1"], "beta1=1: say of which algorithm"),
    (["cegppo", "cegppo.beta1=-1"], "beta1"),
    (["grpo", "--sweep", "beta_grid"], "name algorithms or a sweep, not both"),
    (["--sweep", "beta_gird"], "unknown sweep 'beta_gird'. Did you mean 'beta_grid'"),
    (["--out", "weights.txt"], "must end in .png or .pdf"),
    (["dynamics.steps=5"], "say --dynamics as well"),
    (["--dynamics", "dynamics.stpes=5"], "unknown key of dynamics 'stpes'. Did you mean 'steps'"),
    (["--dynamics", "dynamics.seeds=1"], "seeds"),
    (["grpo", "--dynamics", "grpo.kl_coef=0.1"], "the preview has no kl_coef"),
]


def _cegppo(beta1: float, beta2: float) -> Algorithm:
    return make_algorithm("cegppo", beta1=beta1, beta2=beta2)


def test_curves_are_the_equations_rows() -> None:
    algorithms = {"CE": _cegppo(0.5, 0.75), "GRPO": make_algorithm("grpo")}
    found = curves(algorithms, [0.5, 0.9, 1.1, 1.5])
    assert found["CE"].negative == pytest.approx([0.5 * 0.8, 0.9, 1.1, 1.5])
    assert found["CE"].positive == pytest.approx([0.5, 0.9, 1.1, 0.75 * 1.2])
    assert found["GRPO"].negative == pytest.approx([0, 0.9, 1.1, 1.5])
    assert found["GRPO"].positive == pytest.approx([0.5, 0.9, 1.1, 0])


def test_a_schedule_is_shown_at_the_step_that_is_asked_for() -> None:
    switched = {"CE": make_algorithm("cegppo", beta1={0: 0.0, 5: 0.5})}
    before, after = (curves(switched, [0.5], step)["CE"].negative for step in (4, 5))
    assert (before, after) == ([0.0], pytest.approx([0.4]))


def test_presets_take_options_and_say_so_in_their_labels() -> None:
    found = presets(["dapo", "cegppo"], {"cegppo.beta1": 0.25})
    assert list(found) == ["dapo", "cegppo(beta1=0.25)"]
    assert found["cegppo(beta1=0.25)"].beta1 == 0.25
    assert found["dapo"].clip_high == 0.28


def test_the_logits_gradient_is_autograds() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    at = torch.randint(20, (2, 3, 6, 7))
    pushes = torch.randn(2, 3, 6, 7, dtype=torch.float64)
    kinds = torch.randint(3, (2, 3, 6, 7))
    log_probs = logits.log_softmax(-1)
    chosen = log_probs.flatten(2).gather(2, at.flatten(2)).view(at.shape)
    parts = logits_gradient(pushes, kinds, at, log_probs.detach(), 3)
    for kind in range(3):
        total = (pushes * chosen * (kinds == kind)).sum()
        (wanted,) = torch.autograd.grad(total, logits, retain_graph=True)
        torch.testing.assert_close(parts[:, :, kind], wanted)


def test_the_predicted_change_is_entropys_gradient_times_the_move() -> None:
    torch.manual_seed(0)
    logits = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    move = torch.randn(4, 6, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(entropy(logits).sum(), logits)
    predicted = entropy_change(logits.detach().log_softmax(-1), move)
    torch.testing.assert_close(predicted, (gradient * move).sum(-1))


def test_the_prediction_errs_by_the_square_of_the_step() -> None:
    torch.manual_seed(0)
    logits, move = torch.randn(50, 6, dtype=torch.float64), torch.randn(50, 6, dtype=torch.float64)
    errors = []
    for size in (1e-2, 1e-3):
        measured = entropy(logits + size * move) - entropy(logits)
        predicted = entropy_change(logits.log_softmax(-1), size * move)
        errors.append((measured - predicted).abs().mean())
    assert errors[0] / errors[1] == pytest.approx(100, rel=0.1)


def test_adam_in_parts_sums_to_torchs() -> None:
    torch.manual_seed(0)
    logits = torch.zeros(1, 1, 3, 4, requires_grad=True)
    theirs = torch.optim.Adam([logits], lr=0.05, maximize=True)
    ours, total = Adam((1, 1, 3, 4), parts=2, lr=0.05), torch.zeros(1, 1, 3, 4)
    for _ in range(5):
        gradient = torch.randn(1, 1, 2, 3, 4)
        total += ours.moves(gradient).sum(2)
        logits.grad = gradient.sum(2)
        theirs.step()
    torch.testing.assert_close(total, logits.detach())


def test_an_algorithms_preview_does_not_depend_on_the_others() -> None:
    coarse = SMALL.model_copy(update={"lr": 0.5})
    alone = preview({"CE": _cegppo(0.5, 1)}, coarse)
    beside = preview({"GRPO": make_algorithm("grpo"), "CE": _cegppo(0.5, 1)}, coarse)
    torch.testing.assert_close(alone.entropy[0], beside.entropy[1], rtol=0, atol=1e-6)
    assert not torch.equal(beside.entropy[0], beside.entropy[1])


def test_without_steps_to_clip_every_classs_prediction_is_inside() -> None:
    drift = preview({"GRPO": make_algorithm("grpo")}, SMALL.model_copy(update={"lr": 1e-5}))
    assert drift.clipped.max() == 0
    assert drift.predicted[..., 1].abs().max() == 0
    measured = drift.entropy[0, :, -1] - drift.entropy[0, :, 0]
    torch.testing.assert_close(drift.predicted[0].sum((1, 2, 3)), measured, rtol=0.02, atol=1e-6)


def test_the_lower_edge_lowers_entropy_and_the_upper_raises_it() -> None:
    """C4 and C5, in isolation: at every seed, on the same random numbers."""
    arms = {"explore": _cegppo(0, 1), "exploit": _cegppo(1, 0)}
    drift = preview(arms, Settings(steps=40, seeds=4))
    end = drift.entropy[:, :, -1]
    assert (end[0] > end[1] + 0.1).all()
    outside = drift.predicted[..., 1].sum(2)
    assert (outside[0, :, :2].sum(-1) > 0).all(), "PA tokens beyond the upper edge"
    assert (outside[1, :, 2:].sum(-1) < 0).all(), "NA tokens beyond the lower edge"


def test_an_entropy_bonus_raises_the_preview() -> None:
    arms = {"plain": make_algorithm("grpo"), "bonus": make_algorithm("grpo", entropy_coef=0.1)}
    end = preview(arms, SMALL.model_copy(update={"steps": 8})).entropy[:, :, -1]
    assert (end[1] > end[0]).all()


@pytest.mark.parametrize(("words", "told"), MISTAKES)
def test_a_mistake_is_one_line(words: list[str], told: str) -> None:
    result = CliRunner().invoke(cli, ["explain", *words])
    assert isinstance(result.exception, LabError)
    assert told in str(result.exception)
    assert "\n" not in str(result.exception)


def test_the_command_prints_and_draws(tmp_path: Path) -> None:
    out = tmp_path / "new" / "weights.png"
    words = ["explain", "cegppo", "grpo", "cegppo.beta1=0.5", "--out", str(out)]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    assert "arXiv 2509.20712" in result.output
    assert "Degenerate case" in result.output
    assert "cegppo(beta1=0.5)" in result.output
    assert out.read_bytes().startswith(b"\x89PNG")


def test_the_preview_of_a_sweeps_arms(tmp_path: Path) -> None:
    out = tmp_path / "drift.pdf"
    small = [f"dynamics.{key}={value}" for key, value in SMALL.model_dump().items()]
    words = ["explain", "--sweep", "quickstart", "--dynamics", *small, "--out", str(out)]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    assert "DAPO" in result.output
    assert out.read_bytes().startswith(b"%PDF")
