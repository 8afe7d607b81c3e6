"""The names of all metrics, once. Where verl 0.9.1 logs a quantity, the name is verl's."""

from __future__ import annotations

ENTROPY = "actor/entropy"
"""Mean token entropy of the rollout policy, nats, over all generated responses before filtering."""
PPO_KL = "actor/ppo_kl"
"""Mean of log pi_old - log pi over the tokens of the step's mini-batches (k1 estimator)."""
GRAD_NORM = "actor/grad_norm"
"""Global L2 norm before clipping, mean over the step's optimizer steps."""
LOSS = "actor/loss"
PG_LOSS = "actor/pg_loss"
LR = "actor/lr"
CLIPFRAC = "actor/pg_clipfrac"
"""Share of tokens outside the clip interval on the side where PPO clips: low plus high."""
CLIPFRAC_LOW = "actor/pg_clipfrac_na"
"""Of these, negative advantage and ratio below 1 - clip_low (the paper's NA&LP side)."""
CLIPFRAC_HIGH = "actor/pg_clipfrac_pa"
"""Of these, positive advantage and ratio above 1 + clip_high (the paper's PA&LP side)."""
CLIPFRAC_IMPROBABLE = "actor/pg_clipfrac_lp"
"""Share of tokens that are in ``CLIPFRAC`` and had an old probability below ``LOW_PROBABILITY``."""
LOW_PROBABILITY = 0.5
"""Tokens less probable than this are the paper's low-probability (LP) tokens (Figure 1)."""
CLIPFRAC_DUAL = "actor/pg_clipfrac_lower"
"""Share of tokens that the dual clip cuts: negative advantage and ratio above it (verl's name)."""
RATIO_MEAN = "actor/ratio_mean"
RATIO_MAX = "actor/ratio_max"
RATIO_MIN = "actor/ratio_min"
ENTROPY_LOSS = "actor/entropy_loss"
KL_LOSS = "actor/kl_loss"
POSITIVE_LOSS = "actor/positive_loss"
REWARD_MEAN = "critic/rewards/mean"
ADVANTAGE_MEAN = "critic/advantages/mean"
ADVANTAGE_MAX = "critic/advantages/max"
ADVANTAGE_MIN = "critic/advantages/min"
LENGTH_MEAN = "response_length/mean"
LENGTH_MAX = "response_length/max"
LENGTH_MIN = "response_length/min"
LENGTH_CLIPPED = "response_length/clip_ratio"
"""Share of responses cut at the token limit."""
GROUPS_MIXED = "train/mixed_groups"
"""Share of generated groups whose rewards differ, before filtering."""
GROUPS_TRAINED = "train/trained_groups"
GENERATION_BATCHES = "train/num_gen_batches"
OPTIMIZER_STEPS = "train/optimizer_steps"
LEDGER_CLASSES = (
    *("pa_hp_in", "pa_hp_out", "pa_lp_in", "pa_lp_out"),
    *("na_hp_in", "na_hp_out", "na_lp_in", "na_lp_out"),
)
"""The token ledger's classes (:mod:`cegppo_lab.diagnostics`); its numbers are sums over a step."""
LEDGER_TOKENS = "tokens"
LEDGER_MASS = "grad_mass"
"""Sum of ``c |F A|``, c being the aggregation's factor."""
LEDGER_ENTROPY = "entropy_change"
"""First-order change of entropy under plain gradient steps on the logits, nats over all contexts
together: for a network its sign and its share of the sum mean something, its size does not."""
LEDGER_COVARIANCE = "entropy_covariance"
"""Eq. 7's covariance for the class, from log-probabilities alone, per unit of learning rate."""
LEDGER_PREDICTED = "ledger/entropy_change_predicted"
"""Sum of ``LEDGER_ENTROPY`` over the classes."""
LEDGER_MEASURED = "ledger/entropy_change_measured"
"""Mean token entropy now minus that in the rollout, nats per token, over the contexts of the step's
last mini-batch: what all optimizer steps but the last did to contexts they were not made from."""
LEDGER_RATCHET = "ledger/ratchet"
"""Share of the tokens with negative advantage that had a high probability in the rollout and whose
ratio is far below the lower edge (:data:`cegppo_lab.diagnostics.FAR`)."""
TIME_PREFIX = "timing_s/"
TIME_STEP = "timing_s/step"
TIME_GENERATE = "timing_s/gen"
TIME_UPDATE = "timing_s/update_actor"
TIME_EVAL = "timing_s/testing"
THROUGHPUT = "perf/throughput"
"""Tokens trained and generated a second, whole step."""


def accuracy(benchmark: str, samples: int) -> str:
    """verl's validation name: mean over problems of the mean over ``samples`` responses."""
    return f"val-core/{benchmark}/acc/mean@{samples}"


def coefficient(key: str) -> str:
    """The name of a coefficient's value in force, where it changes, e.g. ``algorithm/beta1``."""
    return f"algorithm/{key}"


def ledger(kind: str, quantity: str) -> str:
    """The name of a class's number in the token ledger, e.g. ``ledger/pa_hp_in/tokens``."""
    return f"ledger/{kind}/{quantity}"


def is_volatile(name: str) -> bool:
    """Whether a metric measures the machine, so that two equal runs may differ in it."""
    return name.startswith((TIME_PREFIX, "perf/"))
