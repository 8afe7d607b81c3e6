"""The one error that a user's mistake raises, and the words it is told in."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LabError(Exception):
    """A mistake that the reader of the message can mend: what was given, what is allowed.

    The command line prints it as one line and exits with status 2, without a traceback.
    """

    def __str__(self) -> str:
        """The message as one line, whatever it quotes: what cannot be printed is escaped."""
        told = super().__str__()
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in told)


def nearest(given: str, allowed: Iterable[str], count: int = 3) -> list[str]:
    """The names in ``allowed`` that look most like ``given``, best first (may be empty)."""
    folded = {name.lower(): name for name in allowed}
    hits = difflib.get_close_matches(given.lower(), folded, n=count, cutoff=0.5)
    return [folded[hit] for hit in hits]


def unknown(kind: str, given: str, allowed: Iterable[str]) -> LabError:
    """A ``LabError`` for an unknown name, naming the nearest valid ones and then all of them."""
    allowed = sorted(allowed)
    close = nearest(given, allowed)
    hint = f" Did you mean {' or '.join(repr(name) for name in close)}?" if close else ""
    return LabError(f"unknown {kind} {given!r}.{hint} Allowed: {', '.join(allowed) or 'none'}.")
