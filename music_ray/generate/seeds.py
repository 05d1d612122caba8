"""The seeds stage: D's training and held-out parts, and the contexts that rollouts start from.

Reads D (read_preferences) as a stream and writes seeds/. It knows the split, the cut and the order of the
seeds; it does not know engines.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from music_ray.config import RunConfig, SeedsConfig
from music_ray.errors import InputError
from music_ray.generate.compact import CompactRows
from music_ray.generate.licences import Key, licence_records
from music_ray.generate.read_preferences import TEXT_LIMIT, SetAside, read_preferences
from music_ray.generate.staging import PartWriter, StagedFolder
from music_ray.rundir import RunDir, digest_ids
from music_ray.schema import (
    MARGIN_PAIR_SCHEMA,
    SEED_SCHEMA,
    Message,
    PreferencePair,
    content_id,
    pair_content,
    unit_interval,
)

TokenCounter = Callable[[list[Message]], int]


@dataclass
class _Survey:
    """What one pass over D found."""

    counts: Counter[str] = field(default_factory=Counter)
    """Rows of each part of D."""
    set_aside: list[SetAside] = field(default_factory=list)
    contexts: CompactRows = field(default_factory=CompactRows)
    """All distinct contexts of the training part, by hash order."""
    context_ids: set[int] = field(default_factory=set)
    refused: Counter[str] = field(default_factory=Counter)
    """Contexts that are no seeds, by reason."""
    licences: Counter[Key] = field(default_factory=Counter)
    digest: list[str] = field(default_factory=list)


def run_seeds(run: RunDir, count_tokens: TokenCounter | None = None) -> dict[str, Any]:
    """Writes seeds/preferences, seeds/contexts and seeds/set_aside.jsonl; a rerun replaces them.

    Args:
        count_tokens: tokens of a prompt, for seeds.max_tokens; the engine model's chat format when None.

    Returns:
        counts and licences (see docs/reference/run-folder.md), notes for the reader, and a digest of the
        output.

    Raises:
        InputError: a source can't be read or holds no usable row, or there is no seed at all.
    """
    config = run.config
    with StagedFolder(run, "seeds", owned=("contexts/*", "preferences/*", "set_aside.jsonl")) as folder:
        survey = _survey(config, folder)
        num_seeds = _write_seeds(config, survey, folder, count_tokens)
        lines = [json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in survey.set_aside]
        folder.write_text("".join(lines), "set_aside.jsonl")
        _check_any_seed(config, survey, num_seeds)
        folder.publish()
    return {
        "counts": _counts(survey, num_seeds),
        "licences": licence_records(survey.licences),
        "notes": _notes(config, survey, num_seeds),
        "output": digest_ids(survey.digest),
    }


def is_held_out(config: RunConfig, conversation: int) -> bool:
    """Whether a conversation of D, with all its pairs, is kept for evaluation."""
    return unit_interval("held_out", config.seed, conversation) < config.data.held_out_fraction


def cut_context(messages: list[Message], cut: str, run_seed: int, pair_id: str) -> list[Message]:
    """A conversation up to one of its user messages (SeedsConfig.cut)."""
    ends = [index for index, message in enumerate(messages) if message["role"] == "user"]
    if cut == "first_user":
        # Alone: what stands before it could only be a system message, and that was folded in.
        return [messages[ends[0]]]
    if cut == "random":
        return messages[: ends[int(unit_interval("cut", run_seed, pair_id) * len(ends))] + 1]
    return messages[: ends[-1] + 1]


def _survey(config: RunConfig, folder: StagedFolder) -> _Survey:
    survey = _Survey()
    train = PartWriter(folder, MARGIN_PAIR_SCHEMA, "preferences", "train")
    held_out = PartWriter(folder, MARGIN_PAIR_SCHEMA, "preferences", "held_out")
    for row in read_preferences(config.data, survey.licences):
        survey.counts["rows_read"] += 1
        if isinstance(row, SetAside):
            survey.set_aside.append(row)
            continue
        part = "held_out" if is_held_out(config, row.conversation) else "train"
        pair = asdict(row)
        (held_out if part == "held_out" else train).add(pair)
        survey.digest.append(f"{part} {row.id} {row.source} {pair_content(pair)}")
        if part == "train":
            _add_context(config, survey, row)
    train.close()
    held_out.close()
    survey.counts["train_pairs"], survey.counts["held_out_pairs"] = train.num_rows, held_out.num_rows
    return survey


def _add_context(config: RunConfig, survey: _Survey, pair: PreferencePair) -> None:
    messages = cut_context(pair.chosen, config.seeds.cut, config.seed, pair.id)
    context_id = content_id(messages)
    if context_id in survey.context_ids:
        survey.refused["duplicate_context"] += 1
        return
    survey.context_ids.add(context_id)
    row = {
        "id": context_id,
        "source": pair.source,
        "pair_id": pair.id,
        "conversation": pair.conversation,
        "messages": messages,
    }
    # The order is a function of the id alone, so the first n seeds are among the first n + 1.
    survey.contexts.add((content_id(["seed_order", config.seed, context_id]), context_id), row)


def _write_seeds(
    config: RunConfig, survey: _Survey, folder: StagedFolder, count_tokens: TokenCounter | None
) -> int:
    limit = config.seeds.max_tokens
    if limit is not None and count_tokens is None:
        count_tokens = _token_counter(config)
    writer = PartWriter(folder, SEED_SCHEMA, "contexts")
    for row in survey.contexts.in_order():
        if (
            limit is not None
            and count_tokens is not None
            and (tokens := count_tokens(row["messages"])) > limit
        ):
            survey.refused["context_too_long"] += 1
            survey.set_aside.append(_too_long(row, tokens, config.seeds))
            continue
        writer.add(row)
        survey.digest.append(f"seed {row['id']}")
        if writer.num_rows == config.seeds.num_seeds:
            break
    writer.close()
    return writer.num_rows


def _token_counter(config: RunConfig) -> TokenCounter:
    from music_ray.chat import ChatFormat
    from music_ray.models import resolve_model

    return ChatFormat.load(resolve_model(config.engine.tokenizer), config.engine.revision).num_prompt_tokens


def _too_long(row: dict[str, Any], tokens: int, seeds: SeedsConfig) -> SetAside:
    return SetAside(
        source=row["source"],
        row=0,
        reason="context_too_long",
        detail=f"the context of pair {row['pair_id']} has {tokens} tokens, above seeds.max_tokens "
        f"({seeds.max_tokens})",
        text=row["messages"][-1]["content"][:TEXT_LIMIT],
    )


def _check_any_seed(config: RunConfig, survey: _Survey, num_seeds: int) -> None:
    if num_seeds:
        return
    if survey.refused["context_too_long"]:
        raise InputError(
            f"all {survey.refused['context_too_long']} seed contexts are longer than seeds.max_tokens "
            f"({config.seeds.max_tokens}): raise it"
        )
    raise InputError(
        f"all {survey.counts['held_out_pairs']} pairs fall into the held-out part "
        f"(data.held_out_fraction is {config.data.held_out_fraction}), so there is no seed: lower it, or "
        "name more data in data.sources"
    )


def _counts(survey: _Survey, num_seeds: int) -> dict[str, Any]:
    reasons = Counter(row.reason for row in survey.set_aside)
    # A pair whose context is too long is still a pair of D: it is counted with the contexts.
    del reasons["context_too_long"]
    train, held_out = survey.counts["train_pairs"], survey.counts["held_out_pairs"]
    return {
        "rows_read": survey.counts["rows_read"],
        "pairs": train + held_out,
        "train_pairs": train,
        "held_out_pairs": held_out,
        "contexts": len(survey.contexts),
        "seeds": num_seeds,
        "set_aside": dict(sorted(reasons.items())),
        "contexts_set_aside": dict(sorted(survey.refused.items())),
    }


def _notes(config: RunConfig, survey: _Survey, num_seeds: int) -> list[str]:
    notes = []
    asked = config.seeds.num_seeds
    if asked is not None and num_seeds < asked:
        notes.append(
            f"seeds.num_seeds asks for {asked} seeds, but D gives {num_seeds}: all of them are taken"
        )
    if config.data.held_out_fraction and not survey.counts["held_out_pairs"]:
        notes.append(
            "no pair fell into the held-out part (data.held_out_fraction is "
            f"{config.data.held_out_fraction}): there is nothing of D to evaluate on"
        )
    return notes
