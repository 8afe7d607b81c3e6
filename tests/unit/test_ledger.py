"""The token ledger: its prediction is entropy's derivative, its classes a partition."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from cegppo_lab import metrics as names
from cegppo_lab.algorithms import Totals, make_algorithm
from cegppo_lab.algorithms.batch import TokenBatch
from cegppo_lab.compose import resolve
from cegppo_lab.diagnostics import FAR, TokenLedger, covariance_ledger, covariance_response
from cegppo_lab.trainers.embedded.experience import collect
from cegppo_lab.trainers.embedded.policy import Policy
from cegppo_lab.trainers.embedded.scoring import token_scores
from cegppo_lab.trainers.embedded.trainer import EmbeddedTrainer
from cegppo_lab.trainers.embedded.update import accumulate

CONTEXTS, SYMBOLS, ROWS, WIDTH = 5, 7, 24, 6
ALGORITHMS = ("grpo", "cegppo", "dapo", "cispo", "gspo", "gppo")


class Table:
    """A tabular softmax policy and tokens that an older one sampled in its contexts."""

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(3)
        self.logits = 2 * torch.randn(CONTEXTS, SYMBOLS, generator=draw, dtype=torch.float64)
        old = self.logits + torch.randn(self.logits.shape, generator=draw, dtype=torch.float64)
        self.context = torch.randint(CONTEXTS, (ROWS, WIDTH), generator=draw)
        chances = old.softmax(-1)[self.context].flatten(0, 1)
        self.token = torch.multinomial(chances, 1, generator=draw).view(ROWS, WIDTH)
        self.mask = torch.arange(WIDTH) < torch.randint(1, WIDTH + 1, (ROWS, 1), generator=draw)
        self.advantages = torch.randn(ROWS, 1, generator=draw, dtype=torch.float64).repeat(1, WIDTH)
        self.old = self.log_prob(old)

    def log_prob(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.log_softmax(-1)[self.context].gather(-1, self.token[..., None])[..., 0]

    def ledger(self, algorithm: Any, lr: float) -> tuple[dict[str, float], torch.Tensor]:
        """The ledger of one gradient step of size ``lr``, and the logits after it."""
        logits = self.logits.clone().requires_grad_()
        log_p = logits.log_softmax(-1)
        entropy = -(log_p.exp() * log_p).sum(-1)
        pull = (log_p.exp().square() * (log_p + entropy[:, None])).sum(-1)
        told = (self.log_prob(logits), self.old, self.advantages, self.mask)
        out = algorithm.loss(*told)
        out.loss.backward()
        batch = TokenBatch.of(*told, entropy[self.context])
        totals, ledger = Totals.of(self.mask, batch.correct), TokenLedger()
        now = entropy[self.context].detach()
        ledger.add(algorithm, batch, out.weight, totals, pull[self.context].detach(), now - 0.25)
        return ledger.result(lr), (logits - lr * logits.grad).detach()


def total_entropy(logits: torch.Tensor) -> float:
    log_p = logits.log_softmax(-1)
    return float(-(log_p.exp() * log_p).sum())


@pytest.fixture(scope="module")
def table() -> Table:
    return Table()


@pytest.mark.parametrize("aggregation", ["token-mean", "seq-mean-token-mean"])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_prediction_misses_the_entropy_by_the_square_of_the_step(
    table: Table, name: str, aggregation: str
) -> None:
    algorithm = make_algorithm(name, aggregation=aggregation)
    rates = [2.0**-power for power in (3, 4, 5, 6, 7)]
    errors = []
    for lr in rates:
        told, after = table.ledger(algorithm, lr)
        change = total_entropy(after) - total_entropy(table.logits)
        errors.append(abs(told[names.LEDGER_PREDICTED] - change))
        assert errors[-1] < 0.5 * abs(change)
    slope = np.polyfit(np.log(rates), np.log(errors), 1)[0]
    assert slope == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_classes_sum_to_the_total(table: Table, name: str) -> None:
    algorithm = make_algorithm(name, aggregation="token-mean")
    told, _ = table.ledger(algorithm, 0.1)
    sums = {
        quantity: sum(told[names.ledger(kind, quantity)] for kind in names.LEDGER_CLASSES)
        for quantity in (names.LEDGER_TOKENS, names.LEDGER_MASS, names.LEDGER_ENTROPY)
    }
    batch = TokenBatch.of(table.log_prob(table.logits), table.old, table.advantages, table.mask)
    tokens = int(table.mask.sum())
    mass = (algorithm.weight(batch) * batch.advantages).abs()[table.mask].sum() / tokens
    assert sums[names.LEDGER_TOKENS] == tokens
    assert sums[names.LEDGER_MASS] == pytest.approx(float(mass))
    assert sums[names.LEDGER_ENTROPY] == told[names.LEDGER_PREDICTED]
    assert told[names.LEDGER_MEASURED] == pytest.approx(0.25)


def test_outside_are_the_tokens_that_the_clip_fractions_count(table: Table) -> None:
    algorithm = make_algorithm("grpo")
    told, _ = table.ledger(algorithm, 0.1)
    clipped = algorithm.loss(
        table.log_prob(table.logits), table.old, table.advantages, table.mask
    ).metrics
    tokens = int(table.mask.sum())
    for side, metric in (("pa", names.CLIPFRAC_HIGH), ("na", names.CLIPFRAC_LOW)):
        outside = [f"{side}_hp_out", f"{side}_lp_out"]
        counted = sum(told[names.ledger(kind, names.LEDGER_TOKENS)] for kind in outside)
        assert counted == pytest.approx(tokens * clipped[metric])
        assert counted > 0
        assert all(told[names.ledger(kind, names.LEDGER_MASS)] == 0 for kind in outside)
    kept, _ = table.ledger(make_algorithm("cegppo"), 0.1)
    assert kept[names.ledger("na_lp_out", names.LEDGER_MASS)] > 0


def one_token(old: float, now: float, advantage: float, other: float = 0.5) -> dict[str, float]:
    """The ledger of one token of given probabilities beside one that nothing happened to."""
    log_prob = torch.tensor([[now], [other]]).log()
    told = (log_prob, torch.tensor([[old], [other]]).log(), torch.tensor([[advantage], [-1.0]]))
    mask, zero = torch.ones(2, 1, dtype=torch.bool), torch.zeros(2, 1)
    algorithm = make_algorithm("grpo")
    out = algorithm.loss(*told, mask)
    batch, ledger = TokenBatch.of(*told, mask, zero), TokenLedger()
    ledger.add(algorithm, batch, out.weight, Totals.of(mask, batch.correct), zero, zero)
    return ledger.result(1.0)


@pytest.mark.parametrize(
    ("old", "now", "advantage", "kind"),
    [
        (0.6, 0.6, 1.0, "pa_hp_in"),
        (0.6, 0.9, 1.0, "pa_hp_out"),
        (0.4, 0.4, 1.0, "pa_lp_in"),
        (0.4, 0.6, 1.0, "pa_lp_out"),
        (0.6, 0.9, -1.0, "na_hp_in"),  # PPO does not clip a ratio above the interval there
        (0.6, 0.4, -1.0, "na_hp_out"),
        (0.4, 0.2, -1.0, "na_lp_out"),
        (0.4, 0.4, -1.0, "na_lp_in"),
    ],
)
def test_every_class_has_its_tokens(old: float, now: float, advantage: float, kind: str) -> None:
    told = one_token(old, now, advantage, other=0.3)
    counts = {one: told[names.ledger(one, names.LEDGER_TOKENS)] for one in names.LEDGER_CLASSES}
    expected = {one: float(one == kind) for one in counts}
    expected["na_lp_in"] += 1  # the other token
    assert counts == expected


def test_tokens_without_advantage_are_in_no_class() -> None:
    told = one_token(0.6, 0.6, 0.0)
    assert sum(told[names.ledger(one, names.LEDGER_TOKENS)] for one in names.LEDGER_CLASSES) == 1


@pytest.mark.parametrize(
    ("old", "part_of_edge", "advantage", "share"),
    [
        (0.93, 0.95 * FAR, -1.0, 0.5),
        (0.93, 1.05 * FAR, -1.0, 0.0),
        (0.45, 0.95 * FAR, -1.0, 0.0),
        (0.93, 0.95 * FAR, 1.0, 0.0),
    ],
)
def test_the_ratchet_counts_probable_tokens_far_below_the_edge(
    old: float, part_of_edge: float, advantage: float, share: float
) -> None:
    told = one_token(old, old * 0.8 * part_of_edge, advantage)
    assert told[names.LEDGER_RATCHET] == share


def test_the_covariance_is_equation_seven_on_average() -> None:
    """Over all symbols of one context, weighted by pi and with centred advantages."""
    draw = torch.Generator().manual_seed(0)
    p = torch.randn(SYMBOLS, generator=draw, dtype=torch.float64).softmax(-1)
    counts = (p * 1e5).round().long()
    log_p = p.log().repeat_interleave(counts)[None]
    advantages = torch.randn(SYMBOLS, generator=draw, dtype=torch.float64)
    advantages = (advantages - (p * advantages).sum()).repeat_interleave(counts)[None]
    response = covariance_response(log_p, torch.ones_like(log_p, dtype=torch.bool))
    covariance = np.cov(log_p[0], (log_p.exp() * advantages)[0], bias=True)[0, 1]
    assert float((response * advantages).mean()) == pytest.approx(-covariance, rel=1e-6)


def test_the_covariance_ledger_adds_up_over_micro_batches(table: Table) -> None:
    algorithm = make_algorithm("cegppo")
    told = (table.log_prob(table.logits), table.old, table.advantages, table.mask)
    whole, weight = TokenBatch.of(*told), algorithm.loss(*told).weight
    totals = Totals.of(table.mask, whole.correct)
    parts = [
        covariance_ledger(
            algorithm, TokenBatch.of(*(each[rows] for each in told)), weight[rows], totals
        )
        for rows in (slice(0, 10), slice(10, None))
    ]
    for key, value in covariance_ledger(algorithm, whole, weight, totals).items():
        if not key.endswith(names.LEDGER_COVARIANCE):
            assert sum(part[key] for part in parts) == pytest.approx(value, rel=1e-9)


def test_the_scores_pull_is_its_formula() -> None:
    draw = torch.Generator().manual_seed(0)
    head, states = torch.nn.Linear(4, 9), torch.randn(11, 4, generator=draw)
    targets = torch.randint(9, (11,), generator=draw)
    options = {"temperature": 0.7, "entropy_grad": False}
    plain = token_scores(head, states, targets, chunk_tokens=100, **options)
    log_p = (head(states) / 0.7).log_softmax(-1).detach()
    expected = (log_p.exp().square() * (log_p + plain[1][:, None])).sum(-1)
    for size in (100, 3):
        *same, pull = token_scores(head, states, targets, chunk_tokens=size, pull=True, **options)
        assert torch.equal(same[0], plain[0])
        assert torch.equal(same[1], plain[1])
        assert torch.allclose(pull, expected, atol=1e-6)


def test_the_switch_changes_no_other_number(tiny: dict[str, Any], tmp_path: Any) -> None:
    def metrics(ledger: bool) -> list[dict[str, float]]:
        run = resolve({**tiny, "trainer.steps": 2, "runtime.ledger": ledger})
        records = EmbeddedTrainer().run(run, tmp_path / str(ledger))
        return [record.metrics for record in records]

    told, plain = metrics(True), metrics(False)
    fixed = [{k: v for k, v in row.items() if not names.is_volatile(k)} for row in told]
    assert [{k: v for k, v in row.items() if not k.startswith("ledger/")} for row in fixed] == [
        {k: v for k, v in row.items() if not names.is_volatile(k)} for row in plain
    ]
    assert names.LEDGER_PREDICTED in told[-1]
    assert not any(key.startswith("ledger/") for row in plain for key in row)


def test_the_ledger_does_not_depend_on_the_micro_batches(tiny: dict[str, Any]) -> None:
    policy = Policy.load("table_walk", head_scale=40.0)
    fresh = collect(policy, resolve({**tiny, "trainer.filter_groups": False}), 0)
    draw = torch.Generator().manual_seed(0)
    moved = fresh.rollout.log_prob + 0.4 * torch.randn(fresh.rollout.mask.shape, generator=draw)
    experience = replace(
        fresh,
        rollout=replace(fresh.rollout, log_prob=moved),
        advantages=torch.randn(len(fresh.advantages), generator=draw),
    )

    def told(size: int) -> dict[str, float]:
        run, ledger = resolve({**tiny, "runtime.micro_batch_size": size}), TokenLedger()
        accumulate(policy, None, run.algorithm, run, experience, torch.arange(7), ledger=ledger)
        policy.model.zero_grad(set_to_none=True)
        return ledger.result(1.0)

    whole = told(7)
    assert whole[names.LEDGER_PREDICTED] != 0
    assert told(3) == pytest.approx(whole, rel=1e-4, abs=1e-6)
