"""Each algorithm's objective as its paper writes it, one response at a time, for autograd.

Nothing here knows the weight F: the formulas carry their own stop-gradients, ``min`` and ``clip``,
and averages are written as ``mean`` over lists of responses.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cegppo_lab.algorithms import Algorithm, algorithm_names
from tests.conformance.cases import Inputs, set_apart


@dataclass(frozen=True)
class Response:
    """The tokens of one response, 1-D tensors; ``log_prob`` carries grad.

    ``apart``: the tokens that the algorithm has set apart; how it chooses them is tested elsewhere.
    """

    log_prob: Tensor
    old_log_prob: Tensor
    advantages: Tensor
    entropy: Tensor
    old_entropy: Tensor
    apart: Tensor

    @property
    def ratio(self) -> Tensor:
        return (self.log_prob - self.old_log_prob).exp()


def sg(x: Tensor) -> Tensor:
    """The stop-gradient of the papers."""
    return x.detach()


def responses_of(algorithm: Algorithm, inputs: Inputs, log_prob: Tensor) -> list[Response]:
    """The responses with at least one token, without their padding; ``log_prob`` in its place."""
    told = (log_prob, inputs.old_log_prob, inputs.advantages, *inputs.entropies.values())
    rows = zip(*told, set_apart(algorithm, inputs), inputs.mask, strict=True)
    return [Response(*(each[mask] for each in row)) for *row, mask in rows if mask.any()]


def aggregate(terms: list[Tensor], aggregation: str) -> Tensor:
    """One 1-D tensor of token terms a response -> the scalar that the aggregation names."""
    if aggregation == "token-mean":
        return torch.cat(terms).mean()
    inner = {"seq-mean-token-mean": torch.mean, "seq-mean-token-sum": torch.sum}[aggregation]
    return torch.stack([inner(term) for term in terms]).mean()


def ppo(r: Response, a: Algorithm) -> Tensor:
    """min(d A, clip(d, 1 - eps_l, 1 + eps_h) A): Eq. 3 (GRPO; DAPO with eps_h > eps_l)."""
    d, adv = r.ratio, r.advantages
    clipped = d.clamp(1 - a.clip_low, 1 + a.clip_high)
    term = dual(torch.minimum(d * adv, clipped * adv), adv, a.dual_clip)
    return torch.where(r.apart, 0.0, term)


def erc(r: Response, a: Algorithm) -> Tensor:
    """The clipped term, and its stop-gradient where the entropy ratio is out of bounds."""
    rho = (r.entropy + 1e-8) / (r.old_entropy + 1e-8)
    inside = (a.entropy_low < rho) & (rho < a.entropy_high)
    return torch.where(inside, ppo(r, a), sg(ppo(r, a)))


def kl_cov(r: Response, a: Algorithm) -> Tensor:
    """d A, less beta |log d| at the chosen tokens (arXiv 2505.22617)."""
    term = r.ratio * r.advantages
    pull = a.cov_coef * (r.log_prob - r.old_log_prob).abs()
    return torch.where(r.apart, term - pull, term)


def cegppo(r: Response, a: Algorithm) -> Tensor:
    """Eq. 8, its three rows."""
    term = dual(eq8(r, a, a.beta1, a.beta2), r.advantages, a.dual_clip)
    return torch.where(r.apart, 0.0, term)


def cegppo_decay(r: Response, a: Algorithm) -> Tensor:
    """beta1 d A below the lower edge where A < 0, without a stop-gradient; Eq. 8 elsewhere."""
    d, adv = r.ratio, r.advantages
    below = (d < 1 - a.clip_low) & (adv < 0)
    term = torch.where(below, a.beta1 * d * adv, eq8(r, a, a.beta1, a.beta2))
    return dual(term, adv, a.dual_clip)


def gppo(r: Response, a: Algorithm) -> Tensor:
    """GPPO: (1 -+ eps) / sg(d) * d * A beyond the edges (arXiv 2508.07629)."""
    return dual(eq8(r, a, 1.0, 1.0), r.advantages, a.dual_clip)


def eq8(r: Response, a: Algorithm, beta1: float, beta2: float) -> Tensor:
    d, adv = r.ratio, r.advantages
    lower = beta1 * (1 - a.clip_low) / sg(d) * d * adv
    upper = beta2 * (1 + a.clip_high) / sg(d) * d * adv
    term = torch.where((d < 1 - a.clip_low) & (adv < 0), lower, d * adv)
    return torch.where((d > 1 + a.clip_high) & (adv > 0), upper, term)


def dual(term: Tensor, adv: Tensor, c: float | None) -> Tensor:
    """Dual clip: max(term, c A) where A < 0 (arXiv 1912.09729, Eq. 5)."""
    return term if c is None else torch.where(adv < 0, torch.maximum(term, c * adv), term)


def cispo(r: Response, a: Algorithm) -> Tensor:
    """sg(clip(d)) A log pi, clipped at 1 - eps_l and 1 + eps_h, at the latter only, or at a cap."""
    upper = a.cap if a.clamp == "cap" else 1 + a.clip_high
    capped = torch.where(r.ratio > upper, upper, r.ratio)
    if a.clamp == "two-sided":
        capped = torch.where(capped < 1 - a.clip_low, 1 - a.clip_low, capped)
    return sg(capped) * r.advantages * r.log_prob


def sapo(r: Response, a: Algorithm) -> Tensor:
    """sigmoid(tau (d - 1)) 4 / tau A, tau by the sign of A (arXiv 2511.20347)."""
    positive = (a.tau_pos * (r.ratio - 1)).sigmoid() * 4 / a.tau_pos
    negative = (a.tau_neg * (r.ratio - 1)).sigmoid() * 4 / a.tau_neg
    return torch.where(r.advantages > 0, positive, negative) * r.advantages


def gmpo(r: Response, a: Algorithm) -> Tensor:
    """(prod_t min(d^sgn(A), clip(d, e^-eps_l, e^eps_h)^sgn(A))^sgn(A))^(1/|y|) A (2507.20673)."""
    d, advantage = r.ratio, r.advantages[0]
    clipped = d.clamp(math.exp(-a.clip_low), math.exp(a.clip_high))
    chosen = torch.minimum(d, clipped) if advantage > 0 else torch.maximum(d, clipped)
    return chosen.prod() ** (1 / len(d)) * advantage


def gspo(r: Response, a: Algorithm) -> Tensor:
    """min(s A, clip(s) A), one scalar a response: s = (pi(y) / pi_old(y))^(1/|y|)."""
    sequence_ratio = (r.log_prob.sum() - r.old_log_prob.sum()).exp() ** (1 / len(r.log_prob))
    clipped = sequence_ratio.clamp(1 - a.clip_low, 1 + a.clip_high)
    advantage = r.advantages[0]
    return torch.minimum(sequence_ratio * advantage, clipped * advantage)


def mean_of_responses(objectives: list[Tensor], lengths: list[int], aggregation: str) -> Tensor:
    """Aggregates one scalar a response; counted once a token where the aggregation counts tokens.

    GSPO's own objective is the plain mean, ``seq-mean-token-mean``.
    """
    stacked = torch.stack(objectives)
    if aggregation == "seq-mean-token-mean":
        return stacked.mean()
    counted = (stacked * torch.tensor(lengths, dtype=stacked.dtype)).sum()
    return counted / (sum(lengths) if aggregation == "token-mean" else len(lengths))


OF_TOKENS: dict[str, Callable[[Response, Algorithm], Tensor]] = {
    "grpo": ppo,
    "dapo": ppo,
    "adaptive_entropy": ppo,
    "cegppo": cegppo,
    "cegppo_adaptive": cegppo,
    "cegppo_decay": cegppo_decay,
    "gppo": gppo,
    "cispo": cispo,
    "clip_cov": ppo,
    "dr_grpo": ppo,
    "erc": erc,
    "high_entropy_tokens": ppo,
    "kl_cov": kl_cov,
    "sapo": sapo,
}
OF_RESPONSES: dict[str, Callable[[Response, Algorithm], Tensor]] = {"gmpo": gmpo, "gspo": gspo}


def without_reference() -> list[str]:
    """The registered algorithms for which this file has no formula."""
    return sorted(set(algorithm_names()) - set(OF_TOKENS) - set(OF_RESPONSES))


def objective(algorithm: Algorithm, inputs: Inputs, log_prob: Tensor | None = None) -> Tensor:
    """What the algorithm's paper maximises, a scalar with grad to ``log_prob``."""
    name, aggregation = algorithm.name, algorithm.aggregation
    log_prob = inputs.log_prob if log_prob is None else log_prob
    responses = responses_of(algorithm, inputs, log_prob)
    if name in OF_RESPONSES:
        lengths = [len(response.log_prob) for response in responses]
        terms = [OF_RESPONSES[name](response, algorithm) for response in responses]
        return mean_of_responses(terms, lengths, aggregation)
    if name not in OF_TOKENS:
        raise LookupError(f"write {name}'s objective into tests/conformance/references.py")
    return aggregate([OF_TOKENS[name](response, algorithm) for response in responses], aggregation)
