"""A quality gate: users may write out lists of their own split only.

The language model plays the user in rollouts, and writes out any list. A pair with a list of the suites is
not trained on. `pairs.gates.plugins: ["music_ray.miniature.split_gate:list_of_another_split"]`
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
    """The lists that users write out, as letters; a message that is not understood has none."""
    for message in messages:
        ask = parse(message["content"]) if message["role"] == "user" else None
        if ask is not None:
            for source in (ask.instruction.x, ask.instruction.y):
                if source is not None and source.kind == "list":
                    yield source.value
