"""Each algorithm's objective as its paper writes it, one response at a time, for autograd.

Nothing here knows the weight F: the formulas carry their own stop-gradients, ``min`` and ``clip``,
and averages are written as ``mean`` over lists of responses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cegppo_lab.algorithms import Algorithm, algorithm_names


@dataclass(frozen=True)
class Response:
    """The tokens of one response, 1-D tensors; ``log_prob`` carries grad."""

    log_prob: Tensor
    old_log_prob: Tensor
    advantages: Tensor

    @property
    def ratio(self) -> Tensor:
        return (self.log_prob - self.old_log_prob).exp()


def sg(x: Tensor) -> Tensor:
    """The stop-gradient of the papers."""
    return x.detach()


def responses_of(
    log_prob: Tensor, old_log_prob: Tensor, advantages: Tensor, mask: Tensor
) -> list[Response]:
    """The responses with at least one token, without their padding."""
    rows = zip(log_prob, old_log_prob, advantages, mask, strict=True)
    return [Response(lp[m], old[m], adv[m]) for lp, old, adv, m in rows if m.any()]


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
    return dual(torch.minimum(d * adv, clipped * adv), adv, a.dual_clip)


def cegppo(r: Response, a: Algorithm) -> Tensor:
    """Eq. 8, its three rows."""
    return dual(eq8(r, a, a.beta1, a.beta2), r.advantages, a.dual_clip)


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
    """sg(clip(d, 1 - eps_l, 1 + eps_h)) A log pi."""
    return sg(r.ratio.clamp(1 - a.clip_low, 1 + a.clip_high)) * r.advantages * r.log_prob


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
    "cegppo": cegppo,
    "gppo": gppo,
    "cispo": cispo,
}
OF_RESPONSES: dict[str, Callable[[Response, Algorithm], Tensor]] = {"gspo": gspo}


def without_reference() -> list[str]:
    """The registered algorithms for which this file has no formula."""
    return sorted(set(algorithm_names()) - set(OF_TOKENS) - set(OF_RESPONSES))


def objective(
    algorithm: Algorithm, log_prob: Tensor, old_log_prob: Tensor, advantages: Tensor, mask: Tensor
) -> Tensor:
    """What the algorithm's paper maximises, a scalar with grad."""
    name, aggregation = algorithm.name, algorithm.aggregation
    responses = responses_of(log_prob, old_log_prob, advantages, mask)
    if name in OF_RESPONSES:
        lengths = [len(response.log_prob) for response in responses]
        terms = [OF_RESPONSES[name](response, algorithm) for response in responses]
        return mean_of_responses(terms, lengths, aggregation)
    if name not in OF_TOKENS:
        raise LookupError(f"write {name}'s objective into tests/conformance/references.py")
    return aggregate([OF_TOKENS[name](response, algorithm) for response in responses], aggregation)
