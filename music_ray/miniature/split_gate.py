"""A quality gate: users may write out lists of their own split only.

The language model plays the user in rollouts, and writes out any list. A pair with a list of the suites is
not trained on. `pairs.gates.plugins: ["music_ray.miniature.split_gate:list_of_another_split"]`
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from music_ray.miniature.language import ALPHABET, tokens
from music_ray.miniature.reading import parse
from music_ray.miniature.world import Split, split_of
from music_ray.schema import Message, Rollout


def list_of_another_split(rollout: Rollout) -> str:
    """The gate: names the first list, in either branch, that is not of the training split."""
    for branch in (rollout.chosen, rollout.rejected):
        foreign = first_foreign_list(branch, "train")
        if foreign:
            return f"a user writes out {' '.join(foreign)}, which is of the split {split_of(foreign)}"
    return ""


def first_foreign_list(messages: Sequence[Message], split: Split) -> str:
    """The first list, as letters, that a user writes out and that is of another split; empty without any."""
    return next((letters for letters in lists(messages) if split_of(letters) != split), "")


def lists(messages: Sequence[Message]) -> Iterator[str]:
    """The lists that users write out, as letters; of a message that is not understood all runs of letters."""
    for message in messages:
        if message["role"] != "user":
            continue
        ask = parse(message["content"])
        if ask is None:
            yield from _runs(message["content"])
            continue
        for source in (ask.instruction.x, ask.instruction.y):
            if source is not None and source.kind == "list":
                yield source.value


def _runs(text: str) -> Iterator[str]:
    """Two single letters and more in a row."""
    run = ""
    for token in [*tokens(text), ""]:
        if len(token) == 1 and token.lower() in ALPHABET:
            run += token.lower()
            continue
        if len(run) > 1:
            yield run
        run = ""
