"""The claims ledger: which of the paper's claims hold, at which scale, on what evidence.

``claims.yaml`` has the claims as data, ``evaluate`` asks them of the sweeps of a source.
"""

from analysis.claims.judge import PartVerdict, Verdict
from analysis.claims.ledger import evaluate, evaluate_sweeps, sweeps_asked
from analysis.claims.schema import Claim, load_claims
from analysis.claims.show import explanation, rows_for_page, summary, to_json, to_terminal

__all__ = [
    "Claim",
    "PartVerdict",
    "Verdict",
    "evaluate",
    "evaluate_sweeps",
    "explanation",
    "load_claims",
    "rows_for_page",
    "summary",
    "sweeps_asked",
    "to_json",
    "to_terminal",
]
