"""How long texts are, before any has been written: from the configuration and the seeds.

Without a tokenizer: four characters are taken for a token, and five tokens for a message's markers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from music_ray import prompts
from music_ray.config import RunConfig
from music_ray.errors import MusicRayError
from music_ray.planning.calls import Lengths
from music_ray.planning.plan import Bounds
from music_ray.prompts import own
from music_ray.rundir import RunDir

CHARACTERS_A_TOKEN = 4.0
MARKERS = 5.0
"""Tokens around a message, such as <|im_start|>user … <|im_end|>."""
HEADER = 3.0
"""Those of them that open it."""
TAGS = 24.0
"""What joint and two_step write around their texts."""
_SAMPLED_FILES = 4
"""Of at most 5,000 rows each."""
_EXAMPLE = "x"


@dataclass(frozen=True)
class SeedLengths:
    """The seeds of a run, or what is taken for them."""

    tokens: np.ndarray
    """Of each seed, or of a sample of them; a single guess where there is none."""
    last: float
    """Mean tokens of the last user message."""
    basis: str
    """Where these come from, for the reader."""

    @property
    def mean(self) -> float:
        """Mean tokens of a seed."""
        return float(self.tokens.mean())


def guessed_seeds(config: RunConfig) -> SeedLengths:
    """What the configuration says of seeds that are not there yet."""
    tokens = min(config.costs.seed_tokens, config.seeds.max_tokens or config.costs.seed_tokens)
    return SeedLengths(np.array([float(tokens)]), float(tokens), "costs.seed_tokens, a guess")


def read_seeds(run: RunDir) -> SeedLengths:
    """Lengths of the seeds in the run folder, from their characters."""
    tokens, last = [], []
    for batch in _sampled_batches(run, ("seeds", "contexts"), ["messages"]):
        conversation, message = conversation_tokens(batch.column("messages"))
        tokens.append(conversation)
        last.append(message)
    lengths = np.concatenate(tokens)
    basis = f"{len(lengths):,} seeds that are there, 4 characters a token"
    return SeedLengths(lengths, float(np.concatenate(last).mean()), basis)


def read_preferences(run: RunDir, part: str) -> np.ndarray:
    """Tokens of both sides of pairs of D, float[pairs, 2], from their characters.

    Args:
        part: train or held_out.
    """
    pairs = [
        np.stack([conversation_tokens(batch.column(side))[0] for side in ("chosen", "rejected")], axis=1)
        for batch in _sampled_batches(run, ("seeds", "preferences", part), ["chosen", "rejected"])
    ]
    return np.concatenate(pairs) if pairs else np.zeros((0, 2))


def conversation_tokens(column: pa.ListArray) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of each conversation of a column, and of its last message."""
    contents = pc.struct_field(column.flatten(), "content")
    characters = pc.utf8_length(contents).to_numpy(zero_copy_only=False)
    tokens = characters / CHARACTERS_A_TOKEN + MARKERS
    lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
    rows = np.repeat(np.arange(len(column)), lengths)
    return np.bincount(rows, tokens, len(column)), tokens[np.cumsum(lengths) - 1]


def _sampled_batches(run: RunDir, folder: tuple[str, ...], columns: list[str]) -> Iterator[pa.RecordBatch]:
    """All files of a small folder, a few of a large one, evenly over all of them."""
    paths = run.parquet_files(*folder)
    wanted = np.linspace(0, len(paths) - 1, min(len(paths), _SAMPLED_FILES)).round().astype(int)
    for path in (paths[number] for number in wanted):
        with run.open_parquet(path) as file:
            yield from file.iter_batches(columns=columns)


def fills(fill: float) -> Bounds:
    """The share of max_tokens that texts fill in the plan's three cases."""
    return fill / 2, fill, 1.0


def planned_lengths(config: RunConfig, seeds: SeedLengths, fill: float) -> Lengths:
    """Lengths of all pieces, if every text fills so much of its max_tokens."""
    reply = fill * config.assistant.sampling.max_tokens
    question = fill * config.user.sampling.max_tokens
    return Lengths(
        before=max(0.0, seeds.mean - seeds.last),
        opening=seeds.last,
        question=question + MARKERS,
        reply=reply + MARKERS,
        hint=len(config.assistant.hint or "") / CHARACTERS_A_TOKEN,
        user_prompt=len(_user_prompt(config)) / CHARACTERS_A_TOKEN + MARKERS,
        contrast_prompt=_contrast_prompt_characters(config) / CHARACTERS_A_TOKEN,
        header=HEADER,
        completions={
            "assistant": reply,
            "user": question,
            "contrast": _contrast_completion(config, reply, question, fill),
        },
    )


def _contrast_completion(config: RunConfig, reply: float, question: float, fill: float) -> float:
    """An instruction is as long as a user message, a contrasted reply as long as any reply."""
    contrast = config.contrast
    if not contrast.plugin and contrast.mode == "resample":
        return question
    longest = float(contrast.sampling.max_tokens)
    if fill == 1.0:
        return longest
    wanted = {"joint": reply + question + TAGS, "two_step": question + TAGS}
    return min(longest, reply if contrast.plugin else wanted.get(contrast.mode, reply))


def _user_prompt(config: RunConfig) -> str:
    words = round(config.user.sampling.max_tokens * 0.6)
    return prompts.render("user_prompted.j2", has_history=True, max_words=words)


def _contrast_prompt_characters(config: RunConfig) -> int:
    """Of the instruction after the user message, without a chosen reply."""
    contrast = config.contrast
    if contrast.plugin or contrast.mode not in ("joint", "two_step", "direct"):
        return 0
    values: dict[str, Any] = {
        "message": _EXAMPLE,
        "history": [],
        "chosen_reply": None,
        "turn": 1,
        "num_turns": 1,
    }
    if contrast.template is None:
        return len(prompts.render(f"contrast_{contrast.mode}.j2", **values))
    try:
        return len(own.template_text(contrast.template))
    except MusicRayError:
        return 0
