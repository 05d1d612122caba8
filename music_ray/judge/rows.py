"""A judged pair as a row: its Arrow schema, the folder of a judge's verdicts, and reading them back.

One row a pair, whatever happened to it. Rows of one judge (engine, sampling, prompt) lie in a folder of
its own, so that another judge makes new verdicts and the same one none again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from music_ray.config import EngineConfig, SamplingConfig
from music_ray.config.base import select
from music_ray.jobs.shards import is_among, read_batches, read_index
from music_ray.judge.prompt import judge_hash
from music_ray.judge.verdict import Verdict
from music_ray.rundir import RunDir, digest
from music_ray.schema import MESSAGES, SCHEMA_VERSION, Message, content_id

OUTCOMES = {
    Verdict.A: "chosen",
    Verdict.B: "rejected",
    Verdict.TIE: "tie",
    Verdict.INVALID: "invalid",
}
"""What a verdict of both orders means for a pair whose chosen side is the first conversation."""
_TOKENS = ("prompt_tokens", "cached_tokens", "completion_tokens")


@dataclass(frozen=True, slots=True)
class VerdictRow:
    """What a judge said of one pair."""

    id: int
    """Hash of both conversations (pair_id): a verdict is on what was read, whatever the pair is called."""
    seed_id: int
    status: Literal["ok", "error"]
    reason: str
    detail: str
    first: str
    """A, B, tie or invalid, as answered with chosen as A; empty when the engine did not answer."""
    second: str
    """The same with chosen as B."""
    outcome: str
    """chosen, rejected, tie or invalid; empty in an error row."""
    first_answer: str
    second_answer: str
    prompt_tokens: int
    """Of all requests for the row; those of answers without a verdict as well."""
    cached_tokens: int
    completion_tokens: int
    engine: str
    model: str
    model_revision: str
    prompt_hash: str
    seconds: float


def _versioned(name: str, fields: list[tuple[str, pa.DataType]]) -> pa.Schema:
    return pa.schema(fields, metadata={"music_ray.schema": name, "music_ray.version": str(SCHEMA_VERSION)})


QUESTION_SCHEMA = _versioned(
    "judge_question",
    [("id", pa.int64()), ("seed_id", pa.int64()), ("chosen", MESSAGES), ("rejected", MESSAGES)],
)
VERDICT_SCHEMA = _versioned(
    "verdict",
    [
        ("id", pa.int64()),
        ("seed_id", pa.int64()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("first", pa.string()),
        ("second", pa.string()),
        ("outcome", pa.string()),
        ("first_answer", pa.string()),
        ("second_answer", pa.string()),
        ("prompt_tokens", pa.int64()),
        ("cached_tokens", pa.int64()),
        ("completion_tokens", pa.int64()),
        ("engine", pa.string()),
        ("model", pa.string()),
        ("model_revision", pa.string()),
        ("prompt_hash", pa.string()),
        ("seconds", pa.float64()),
    ],
)


def pair_id(chosen: Sequence[Message], rejected: Sequence[Message]) -> int:
    """The id under which the verdict on two conversations is kept."""
    return content_id([list(chosen), list(rejected)])


def verdict_folder(engine: EngineConfig, sampling: SamplingConfig) -> tuple[str, ...]:
    """Where in a run folder the shards of this judge lie: free keys, such as a URL, change nothing."""
    sampled = select(sampling, {"identity"})
    if not sampling.begin:
        del sampled["begin"]  # verdicts from before there was this key stay where they are
    judge = {"engine": select(engine, {"identity"}), "sampling": sampled}
    return "judge", digest({**judge, "prompt_hash": judge_hash()}), "shards"


def job_name(shards: tuple[str, ...]) -> str:
    """What the job is called that writes this folder: its usage is kept under it, a name for each judge."""
    return "-".join(shards[:-1])


class Verdicts:
    """The verdicts of a folder, by id: 22 bytes a pair in memory."""

    _CODES = ("", *(str(one) for one in Verdict))

    def __init__(self, run: RunDir, folder: tuple[str, ...]) -> None:
        self.folder = folder
        index = read_index(run, folder)
        self.ids = index.ids
        """int64, sorted; error rows are among them."""
        self.is_error = index.is_error
        self.tokens = dict.fromkeys(("prompt", "cached", "completion"), 0)
        """Of the rows that count."""
        self.reasons: Counter[str] = Counter()
        """Of error rows."""
        self._said = np.zeros((2, len(self.ids)), dtype=np.int8)
        self._tokens = {kind: np.zeros(len(self.ids), dtype=np.int32) for kind in self.tokens}
        columns = ["id", "status", "reason", "first", "second", *_TOKENS]
        for batch in read_batches(run, index, columns):
            at = np.searchsorted(self.ids, batch["id"].to_numpy())
            for order, name in enumerate(("first", "second")):
                self._said[order, at] = [self._CODES.index(one) for one in batch[name].to_pylist()]
            for kind, numbers in self._tokens.items():
                numbers[at] = batch[f"{kind}_tokens"].to_numpy()
                self.tokens[kind] += int(numbers[at].sum(dtype=np.int64))
            self.reasons.update(reason for reason in batch["reason"].to_pylist() if reason)

    def of(self, one: int) -> tuple[Verdict, Verdict] | Literal["error"] | None:
        """The answers of both orders, 'error' where an order has none, None for a pair never asked about."""
        at = int(np.searchsorted(self.ids, one))
        if at == len(self.ids) or self.ids[at] != one:
            return None
        first, second = (self._CODES[code] for code in self._said[:, at])
        return "error" if self.is_error[at] else (Verdict(first), Verdict(second))

    def tokens_of(self, ids: Iterable[int]) -> dict[str, int]:
        """Tokens of the rows on these questions, by kind: prompt, cached and completion."""
        wanted = np.array(sorted(set(ids)), dtype=np.int64)
        there = is_among(self.ids, wanted)
        return {kind: int(numbers[there].sum(dtype=np.int64)) for kind, numbers in self._tokens.items()}
