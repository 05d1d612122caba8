"""What every quality gate is made of: its answer, and the generated messages that it looks at.

Knows no gate, no configuration and no file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from music_ray.schema import Rollout

_TEXT_SHOWN = 80
_WORD = re.compile(r"[^\W_]+")
_APOSTROPHES = str.maketrans("", "", "'\u2019")

Check = Callable[[Rollout], str]
"""A gate that is on: empty when the rollout passes, else what is wrong with it, for the reader."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a rollout gives no pair: the reason is counted, the detail is for the reader."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Off:
    """Why a gate looks at nothing: it was switched off, or its input is missing."""

    why: str
    is_missing_input: bool = False


@dataclass(frozen=True, slots=True)
class Generated:
    """One generated message, and where it stands."""

    branch: str
    role: str
    where: str
    text: str


def generated(rollout: Rollout) -> Iterator[Generated]:
    """The messages that were generated, chosen side first; the seed's are not among them."""
    first = len(rollout.context)
    for branch, messages in (("chosen", rollout.chosen), ("rejected", rollout.rejected)):
        for offset, message in enumerate(messages[first:]):
            turn = offset // 2 + 1
            what = "the reply of" if message["role"] == "assistant" else "the user message after"
            yield Generated(branch, message["role"], f"{what} turn {turn} ({branch})", message["content"])


def words(text: str) -> list[str]:
    """Words as gates compare them: lower case, apostrophes gone, every other sign a space."""
    return _WORD.findall(text.lower().translate(_APOSTROPHES))


def runs(listed: list[str], length: int) -> list[tuple[str, ...]]:
    """Every run of so many words, in order; none where there are fewer."""
    return list(zip(*(listed[start:] for start in range(length)), strict=False))


def shorten(text: str, length: int = _TEXT_SHOWN) -> str:
    """The text, or its start and an ellipsis."""
    return text if len(text) <= length else text[: length - 1] + "…"
