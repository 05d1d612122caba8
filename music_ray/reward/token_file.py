"""The file of tokenised pairs in the run folder: written once, found again by what it was made from.

`checkpoints/tokens-KEY.arrow` holds the rows, sorted by id, and `tokens-KEY.arrow.json` the counts. KEY
is a hash of the mix files' bytes, the tokenizer, the chat template and the rules, so a sound file under
the right name is the right one. This module does not know how pairs become tokens.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs

from music_ray.chat import ChatFormat
from music_ray.reward.tokenise import DROPPED, TOKENS_SCHEMA, TokenRules
from music_ray.rundir import RunDir
from music_ray.schema import content_id
from music_ray.storage import open_input

_KEY = b"music_ray.tokens"
_ROWS_PER_BATCH = 256
_VERSION = 1
"""Raise it when the same mix gives other tokens, so that old files are not used."""
_NAMES = {
    "mix": "another mix",
    "tokenizer": "another tokenizer",
    "template": "another chat template",
    "max_tokens": "another train.max_tokens",
    "over_length": "another train.over_length",
    "margins": "another train.loss.margin",
}


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
    num_margins: int = 0
    """Number of pairs that have a margin; 0 unless margins are used."""
    origins: dict[str, int] = field(default_factory=dict)
    """Number of pairs by origin."""


def tokens_made_from(run: RunDir, chat: ChatFormat, files: list[str]) -> dict[str, Any]:
    """All that the tokenised pairs depend on, as hashes and values of the configuration."""
    digest = hashlib.sha256()
    for path in files:
        with open_input(run.fs, path) as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    tokenizer = hashlib.sha256(chat.tokenizer.backend_tokenizer.to_str().encode()).hexdigest()
    rules = asdict(TokenRules.of(run.config.train))
    return {
        "mix": digest.hexdigest(),
        "tokenizer": tokenizer,
        "template": chat.tokenizer.chat_template,
    } | rules


def tokens_key(made_from: dict[str, Any]) -> str:
    """Hash of all that the tokenised pairs depend on."""
    names = ("tokenizer", "template", "max_tokens", "over_length")
    parts = [made_from["mix"], _VERSION, *(made_from[name] for name in names)]
    return f"{content_id([*parts, *(['margins'] if made_from['margins'] else [])]):016x}"


def file_name(key: str) -> str:
    """Name of the file of a key inside checkpoints/."""
    return f"tokens-{key}.arrow"


# -- reading ---------------------------------------------------------------------------------------


def open_table(run: RunDir, name: str) -> pa.Table:
    """The rows of a token file; one that lies here is mapped into memory.

    Raises:
        OSError: it can't be read.
        ValueError: it is damaged, of another key, or of another version.
    """
    path = run.path("checkpoints", name)
    table = pa.ipc.open_file(pa.memory_map(path) if run.is_local else open_input(run.fs, path)).read_all()
    if not table.schema.equals(TOKENS_SCHEMA):
        raise ValueError("another version of music_ray made it")
    key = (table.schema.metadata or {}).get(_KEY, b"").decode()
    if file_name(key) != name:
        raise ValueError(f"it holds the tokens of {key}, made with another tokenizer, mix or limit")
    return table


def find_tokens(run: RunDir, key: str) -> tuple[TokenFile | None, str]:
    """The token file of a key, or None and why it must be made again (empty when it never was)."""
    name = file_name(key)
    if not run.exists("checkpoints", f"{name}.json"):
        return None, ""
    try:
        facts = json.loads(run.read_text("checkpoints", f"{name}.json"))
        facts.pop("made_from", None)
        found = TokenFile(name=name, key=key, **facts)
        table = open_table(run, name)
        table.validate(full=True)
        if table.num_rows != found.num_pairs:
            raise ValueError(f"it has {table.num_rows} pairs instead of {found.num_pairs}")
    except (OSError, ValueError, TypeError, AttributeError) as error:  # pa.ArrowInvalid is a ValueError
        return None, f"{name} cannot be used ({' '.join(str(error).split())})"
    return found, ""


def nearest_other(run: RunDir, made_from: dict[str, Any]) -> str:
    """Which token file is there instead, and what it was made with; empty when there is none."""
    selector = pafs.FileSelector(run.path("checkpoints"), allow_not_found=True)
    names = [info.base_name for info in run.fs.get_file_info(selector)]
    others = []
    for name in sorted(name for name in names if name.startswith("tokens-") and name.endswith(".json")):
        try:
            before = json.loads(run.read_text("checkpoints", name))["made_from"]
            others.append((name, [what for one, what in _NAMES.items() if before[one] != made_from[one]]))
        except (ValueError, KeyError, TypeError):  # damaged, or of an older music_ray: nothing to say of it
            continue
    if not others:
        return ""
    name, differences = min(others, key=lambda other: len(other[1]))
    return f"{name.removesuffix('.json')} is of {' and '.join(differences)}"


# -- writing ---------------------------------------------------------------------------------------


def write_tokens(run: RunDir, made_from: dict[str, Any], tables: Iterable[pa.Table]) -> TokenFile:
    """Writes a token file from the rows of `tokenise.tokenised`, in whatever order they come."""
    key = tokens_key(made_from)
    dropped: Counter[str] = Counter()
    origins: Counter[str] = Counter()
    num_tokens = num_margins = 0
    with tempfile.TemporaryDirectory() as folder:
        arrived, ordered = Path(folder, "arrived"), Path(folder, "ordered")
        with pa.OSFile(str(arrived), "wb") as sink, pa.ipc.new_file(sink, TOKENS_SCHEMA) as writer:
            for table in tables:
                reasons = table.column(DROPPED)
                dropped.update(reasons.drop_null().to_pylist())
                kept = table.filter(reasons.is_null()).select(TOKENS_SCHEMA.names)
                origins.update(kept.column("origin").to_pylist())
                num_margins += len(kept) - kept.column("margin").null_count
                num_tokens += sum(_count_tokens(kept.column(side)) for side in ("chosen", "rejected"))
                writer.write_table(kept)
        _write_by_id(arrived, ordered, key)
        # The counts come last: a token file without them was not finished, and is made again.
        run.write_bytes(pa.memory_map(str(ordered)).read_buffer(), "checkpoints", file_name(key))
    facts: dict[str, Any] = {
        "num_pairs": sum(origins.values()),
        "num_tokens": num_tokens,
        "dropped": dict(sorted(dropped.items())),
        "num_margins": num_margins,
        "origins": dict(sorted(origins.items())),
    }
    run.write_text(
        json.dumps(facts | {"made_from": made_from}) + "\n", "checkpoints", f"{file_name(key)}.json"
    )
    return TokenFile(name=file_name(key), key=key, **facts)


def _count_tokens(side: pa.ChunkedArray) -> int:
    return pc.sum(pc.list_value_length(side)).as_py() or 0


def _write_by_id(arrived: Path, ordered: Path, key: str) -> None:
    """Copies the rows in the order of their ids, so that the file does not tell who came first.

    Rows are picked one by one from the mapped file: `take` would join it into memory as a whole.
    """
    schema = TOKENS_SCHEMA.with_metadata({_KEY: key})
    batches = pa.ipc.open_file(pa.memory_map(str(arrived))).read_all().to_batches()
    places = [(id, number, row) for number, batch in enumerate(batches) for row, id in _ids(batch)]
    places.sort()
    with pa.OSFile(str(ordered), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for start in range(0, len(places), _ROWS_PER_BATCH):
            rows = [
                batches[number].slice(row, 1) for _, number, row in places[start : start + _ROWS_PER_BATCH]
            ]
            writer.write_table(
                pa.Table.from_batches(rows).combine_chunks().replace_schema_metadata(schema.metadata)
            )


def _ids(batch: pa.RecordBatch) -> Iterable[tuple[int, str]]:
    return enumerate(batch.column("id").to_pylist())
