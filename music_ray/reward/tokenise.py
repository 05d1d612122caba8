"""Preference pairs as token ids: what makes a pair usable, and who does the work.

Rows of the mix go in, rows with the token ids of both sides come out, or with the reason why there are
none. This module does not know where the result is kept (music_ray.reward.token_file does).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from music_ray.chat import ChatFormat
from music_ray.config import TrainConfig
from music_ray.ray_session import ensure_ray, read_parquet_in_tasks
from music_ray.reward.truncate import cut_to_fit
from music_ray.rundir import RunDir
from music_ray.schema import Message

TOKENS_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("origin", pa.string()),
        ("chosen", pa.list_(pa.int32())),
        ("rejected", pa.list_(pa.int32())),
        ("margin", pa.float32()),
    ]
)
"""A pair that can be trained on. The last token of each side is pooled; the margin may be empty."""
DROPPED = "dropped"
"""The column beside these: why a pair can't be trained on, empty where it can."""

_HERE_AT_MOST = 5_000
"""So many pairs are tokenised by this process: at 500 a second (one core took 2,071 pairs of 478 tokens at
535 and 605 a second) they take ten seconds, and starting Ray takes 18."""
_ROWS_AT_ONCE = 256
"""Pairs in one task: with fewer, Ray's own work would count; with more, few CPUs would share a small mix."""
_COLUMNS = ["id", "source", "origin", "chosen", "rejected", "margin"]
_TABLE_SCHEMA = TOKENS_SCHEMA.append(pa.field(DROPPED, pa.string()))


@dataclass(frozen=True)
class TokenRules:
    """What becomes of a pair, as the train section says it."""

    max_tokens: int
    over_length: str
    margins: bool
    """Whether margins are used, and must be numbers from 0."""

    @classmethod
    def of(cls, train: TrainConfig) -> TokenRules:
        """The rules of a configuration."""
        return cls(train.max_tokens, train.over_length, train.loss.margin)


def tokenised(run: RunDir, chat: ChatFormat, files: list[str]) -> Iterator[pa.Table]:
    """All pairs of some Parquet files: TOKENS_SCHEMA and the column `dropped`, in any order.

    Few pairs are tokenised here, many by Ray; the rows are the same.

    Raises:
        InputError: a file is damaged, or was written by a newer music_ray.
        EnvironmentLacksError: the Ray cluster can't be reached.
    """
    num_pairs = 0
    for path in files:
        with run.open_parquet(path) as file:
            num_pairs += file.metadata.num_rows
    return (tokenised_here if num_pairs <= _HERE_AT_MOST else tokenised_by_ray)(run, chat, files)


def tokenised_here(run: RunDir, chat: ChatFormat, files: list[str]) -> Iterator[pa.Table]:
    """As `tokenised`, in this process."""
    rules = TokenRules.of(run.config.train)
    for path in files:
        with run.open_parquet(path) as file:
            # A mix without margins has no such column; what is not there is not read.
            for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=_COLUMNS):
                yield tokenise_rows(chat, rules, batch.to_pylist())


def tokenised_by_ray(run: RunDir, chat: ChatFormat, files: list[str]) -> Iterator[pa.Table]:
    """As `tokenised`, by stateless tasks of Ray Data on all CPUs of the cluster."""
    ensure_ray(run.config)
    import ray

    context = ray.data.DataContext.get_current()
    read_parquet_in_tasks(context)
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.label_selector = None  # an engine's, of a job before in this process
    with run.open_parquet(files[0]) as file:
        columns = [name for name in _COLUMNS if name in file.schema_arrow.names]
    rows = ray.data.read_parquet(files, filesystem=run.fs).select_columns(columns)
    # strict: else a task is a whole file.
    tasks = rows.repartition(target_num_rows_per_block=_ROWS_AT_ONCE, strict=True)
    # The chat format goes along as it is, so that workers need no model folder and no hub. In a list, for
    # Ray would unpack a bare reference for every task, and a tokenizer takes a second to unpack.
    work = functools.partial(_tokenise_task, shared=[ray.put(chat)], rules=TokenRules.of(run.config.train))
    done = tasks.map_batches(
        work,
        batch_size=None,
        batch_format="pyarrow",
        zero_copy_batch=True,
    )
    yield from done.iter_batches(batch_size=None, batch_format="pyarrow")


def _tokenise_task(table: pa.Table, *, shared: list[Any], rules: TokenRules) -> pa.Table:
    return tokenise_rows(_chat_of_this_process(shared[0]), rules, table.to_pylist())


@functools.lru_cache(maxsize=1)
def _chat_of_this_process(reference: Any) -> ChatFormat:
    import ray

    return ray.get(reference)


def tokenise_rows(chat: ChatFormat, rules: TokenRules, rows: list[dict[str, Any]]) -> pa.Table:
    """Rows of PreferencePair as TOKENS_SCHEMA and the column `dropped`, in their order."""
    return pa.Table.from_pylist([_tokenise_row(chat, rules, row) for row in rows], schema=_TABLE_SCHEMA)


def _tokenise_row(chat: ChatFormat, rules: TokenRules, row: dict[str, Any]) -> dict[str, Any]:
    kept = {name: row[name] for name in ("id", "source", "origin")}
    margin = row.get("margin") if rules.margins else None
    if margin is not None and not 0 <= margin < math.inf:
        return kept | {DROPPED: "bad_margin"}
    sides = tokenise_pair(
        chat, row["chosen"] or [], row["rejected"] or [], rules.max_tokens, rules.over_length
    )
    if isinstance(sides, str):
        return kept | {DROPPED: sides}
    return kept | {"chosen": sides[0], "rejected": sides[1], "margin": margin}


def tokenise_pair(
    chat: ChatFormat,
    chosen: list[Message],
    rejected: list[Message],
    max_tokens: int,
    over_length: str,
) -> tuple[list[int], list[int]] | str:
    """Token ids of both sides, or why the pair can't be trained on.

    Returns:
        (chosen ids, rejected ids) or one of empty_side, sides_equal, template_refused, over_length.
    """
    from jinja2 import TemplateError

    if not (_has_reply(chosen) and _has_reply(rejected)):
        return "empty_side"
    if chosen == rejected:
        return "sides_equal"
    encoded: list[list[int]] = []

    def fits(left: list[Message], right: list[Message]) -> bool:
        encoded[:] = [chat.conversation_ids(left), chat.conversation_ids(right)]
        return max(map(len, encoded)) <= max_tokens

    try:
        cut = over_length == "cut"
        fitting = cut_to_fit(chosen, rejected, fits) is not None if cut else fits(chosen, rejected)
    except TemplateError:  # Gemma-2's template refuses roles that do not alternate, for one.
        return "template_refused"
    if not fitting:
        return "over_length"
    return "sides_equal" if encoded[0] == encoded[1] else (encoded[0], encoded[1])


def _has_reply(messages: list[Message]) -> bool:
    """Whether a side ends on a reply that says something and has a user message before it."""
    return (
        len(messages) >= 2
        and messages[-1]["role"] == "assistant"
        and bool(messages[-1]["content"].strip())
        and any(message["role"] == "user" for message in messages)
    )
