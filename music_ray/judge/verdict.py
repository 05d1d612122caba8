"""What a judge can say of two conversations, how its answer is read, and what two orders say together.

Knows nothing of engines, prompts or rows.
"""

from __future__ import annotations

import re
from enum import StrEnum

_OPENING = re.compile("<verdict>", re.IGNORECASE | re.ASCII)
_FINAL = re.compile(r"<verdict>\s*(A|B|tie)\s*</verdict>[\s*_`.]*", re.IGNORECASE | re.ASCII)
"""The tag, and after it at most what Markdown wraps it in."""


class Verdict(StrEnum):
    """A judge's answer: A is the conversation that it was shown first."""

    A = "A"
    B = "B"
    TIE = "tie"
    INVALID = "invalid"
    """No answer that can be read. It is counted, and never averaged with the others."""

    @property
    def swapped(self) -> Verdict:
        """The same verdict where the two conversations have changed names."""
        return {Verdict.A: Verdict.B, Verdict.B: Verdict.A}.get(self, self)


def read_verdict(answer: str) -> Verdict:
    """The verdict in the tag that ends an answer; INVALID where it does not end on one.

    Only the last tag counts: an earlier one may be a quotation of what was judged.
    """
    tags = [tag.start() for tag in _OPENING.finditer(answer)]
    found = _FINAL.fullmatch(answer, tags[-1]) if tags else None
    if found is None:
        return Verdict.INVALID
    said = found[1].upper()
    return Verdict.TIE if said == "TIE" else Verdict(said)


def both_orders(first: Verdict, second: Verdict) -> Verdict:
    """What two answers say together of the conversation that the first of them called A.

    Args:
        second: the answer to the other order, in which that conversation was called B.

    Returns:
        INVALID when either is; their verdict when they agree; a tie when they do not.
    """
    if Verdict.INVALID in (first, second):
        return Verdict.INVALID
    return first if first == second.swapped else Verdict.TIE
