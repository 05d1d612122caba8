"""The training pairs as token ids: made once by the driver, read by every worker.

The driver writes `checkpoints/tokens-KEY.arrow`. KEY is a hash of the mix files' bytes, the
tokenizer, the chat template and the length rules, so a file that is there is the right one. Workers
map it into memory: all ranks of a node share one copy.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from music_ray.chat import ChatFormat
from music_ray.errors import InputError
from music_ray.reward.truncate import cut_to_fit
from music_ray.rundir import RunDir
from music_ray.schema import Message, content_id

TOKENS_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("origin", pa.string()),
        ("chosen", pa.list_(pa.int32())),
        ("rejected", pa.list_(pa.int32())),
    ]
)
_BATCH = 256
_VERSION = 1
"""Raise it when the same mix gives other tokens, so that old files are not used."""


@dataclass(frozen=True)
class TokenisedPair:
    """Both sides of a pair as token ids; the last token of each is pooled."""

    id: str
    source: str
    origin: str
    chosen: list[int]
    rejected: list[int]


@dataclass(frozen=True)
class TokenFile:
    """Where the tokenised pairs lie, and what became of the pairs of the mix."""

    name: str
    """File name inside checkpoints/."""
    key: str
    num_pairs: int
    num_tokens: int
    dropped: dict[str, int]
    """Number of pairs that were left out, by reason."""


class PairTokens:
    """The tokenised pairs, read by index."""

    def __init__(self, table: pa.Table) -> None:
        # Chunks stay as they are: joining them would copy the mapped file into every rank's memory.
        batches = [batch for batch in table.to_batches() if batch.num_rows]
        self.ids: list[str] = table.column("id").to_pylist()
        self._starts = list(itertools.accumulate((batch.num_rows for batch in batches), initial=0))
        self._sides = [(batch.column("chosen"), batch.column("rejected")) for batch in batches]
        longest = [np.maximum(*(np.diff(side.offsets.to_numpy()) for side in sides)) for sides in self._sides]
        self.lengths: np.ndarray = np.concatenate(longest) if longest else np.zeros(0, np.int32)
        """Tokens of each pair's longer side."""

    @classmethod
    def open(cls, run: RunDir, name: str) -> PairTokens:
        """Opens `checkpoints/NAME`; a local file is mapped into memory.

        Raises:
            InputError: this node doesn't see the file.
        """
        path = run.path("checkpoints", name)
        try:
            source = pa.memory_map(path) if run.is_local else run.fs.open_input_file(path)
        except OSError as error:
            raise InputError(
                f"a training worker cannot read {path} ({error}): with several nodes runs_dir must be a "
                "shared file system or a URI such as s3://…"
            ) from None
        return cls(pa.ipc.open_file(source).read_all())

    def __len__(self) -> int:
        return len(self.ids)

    def sides(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Token ids of the chosen and the rejected side, int32."""
        batch = bisect.bisect_right(self._starts, index) - 1
        chosen, rejected = self._sides[batch]
        row = index - self._starts[batch]
        return chosen[row].values.to_numpy(), rejected[row].values.to_numpy()


def prepare_tokens(run: RunDir, chat: ChatFormat) -> TokenFile:
    """Tokenises the mix, or finds the file of an earlier start.

    Raises:
        InputError: the mix is empty, or no pair of it can be trained on.
    """
    train = run.config.train
    files = run.parquet_files("mix")
    files = [path for path in files if "/held_out/" not in path[len(run.root) :]]
    if not files:
        raise InputError(f"{run.display('mix')} holds no pairs to train on: run the mix stage first")
    key = tokens_key(run, chat, files)
    name = f"tokens-{key}.arrow"
    if not run.exists("checkpoints", f"{name}.json"):
        dropped: Counter[str] = Counter()
        pairs = _tokenised(run, chat, files, dropped)
        _write(run, name, pairs, dropped)
    found = _describe(run, name, key)
    if found.num_pairs == 0:
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(found.dropped.items()))
        raise InputError(
            f"no pair of {run.display('mix')} can be trained on (dropped: {reasons or 'none'}): where it is "
            f"over_length, raise train.max_tokens ({train.max_tokens}) or set train.over_length=cut"
        )
    return found


def tokens_key(run: RunDir, chat: ChatFormat, files: list[str]) -> str:
    """Hash of all that the tokenised pairs depend on."""
    digest = hashlib.sha256()
    for path in files:
        with run.fs.open_input_stream(path) as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    train = run.config.train
    tokenizer = hashlib.sha256(chat.tokenizer.backend_tokenizer.to_str().encode()).hexdigest()
    rules = [_VERSION, tokenizer, chat.tokenizer.chat_template, train.max_tokens, train.over_length]
    return f"{content_id([digest.hexdigest(), *rules]):016x}"


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
        fitting = fits(chosen, rejected)
        if not fitting and over_length == "cut":
            fitting = cut_to_fit(chosen, rejected, fits) is not None
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


def _tokenised(
    run: RunDir, chat: ChatFormat, files: list[str], dropped: Counter[str]
) -> Iterator[TokenisedPair]:
    train = run.config.train
    columns = ["id", "source", "origin", "chosen", "rejected"]
    for path in files:
        with run.open_parquet(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH, columns=columns):
                for row in batch.to_pylist():
                    result = tokenise_pair(
                        chat, row["chosen"] or [], row["rejected"] or [], train.max_tokens, train.over_length
                    )
                    if isinstance(result, str):
                        dropped[result] += 1
                    else:
                        yield TokenisedPair(row["id"], row["source"], row["origin"], *result)


def _write(run: RunDir, name: str, pairs: Iterator[TokenisedPair], dropped: Counter[str]) -> None:
    """Streams the pairs into an Arrow file, and the counts beside it."""
    num_pairs = num_tokens = 0
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / name
        with pa.OSFile(str(local), "wb") as sink, pa.ipc.new_file(sink, TOKENS_SCHEMA) as writer:
            rows: list[dict[str, Any]] = []
            for pair in pairs:
                num_pairs += 1
                num_tokens += len(pair.chosen) + len(pair.rejected)
                rows.append(vars(pair))
                if len(rows) == _BATCH:
                    writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=TOKENS_SCHEMA))
                    rows = []
            writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=TOKENS_SCHEMA))
        # The counts come last: a token file without them was not finished, and is made again.
        run.write_bytes(local.read_bytes(), "checkpoints", name)
    facts = {"num_pairs": num_pairs, "num_tokens": num_tokens, "dropped": dict(sorted(dropped.items()))}
    run.write_text(json.dumps(facts) + "\n", "checkpoints", f"{name}.json")


def _describe(run: RunDir, name: str, key: str) -> TokenFile:
    facts = json.loads(run.read_text("checkpoints", f"{name}.json"))
    return TokenFile(name=name, key=key, **facts)
