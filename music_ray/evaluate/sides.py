"""Both sides of pairs through a scorer of files, so that an interrupted evaluation goes on where it was.

The scorer is lent by the command line (music_ray.score): it takes a model's folder, a Parquet file with `id`,
`chosen` and `rejected`, and a folder for its scores. Knows that contract, not what the scores mean.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from music_ray.errors import StageError
from music_ray.evaluate.pair_sets import HubRows
from music_ray.rundir import RunDir, digest
from music_ray.schema import MESSAGES, Message, content_id

RESULT = "scores"
"""Where below its folder a scorer leaves its rows."""
_SCHEMA = pa.schema([("id", pa.string()), ("chosen", MESSAGES), ("rejected", MESSAGES)])
_ALONE = pa.schema([("id", pa.string()), ("messages", MESSAGES)])


@dataclass(frozen=True)
class Tools:
    """What other stages lend the evaluation; no stage imports another."""

    check_model: Callable[[str], Any]
    """Refuses a folder that is no reward model; what it returns has a `digest` of the model."""
    check_scoring: Callable[[Any, str, Sequence[str]], Any]
    """Refuses what can't be scored: (what check_model returned, a folder, overrides). It may take seconds."""
    score: Callable[[str, str, str, Sequence[str]], RunDir]
    """Scores conversations: (model's folder, data, out, overrides); the folder of its files comes back."""
    hub_rows: HubRows
    """Reads a data set of the hub."""


@dataclass(frozen=True, slots=True)
class Model:
    """A reward model that was named on the command line."""

    name: str
    """As the user wrote it."""
    folder: str
    digest: str
    """Of the files that decide its scores."""

    @property
    def slug(self) -> str:
        """The last part of the name and the beginning of the digest, as part of a file's name.

        So a model that has moved, or is named from elsewhere, finds its scores, and one that was trained anew
        in the same place does not find those of the former. Its place counts where there is no digest.
        """
        last = self.name.rstrip("/").rpartition("/")[2][-40:]
        which = self.digest or digest(self.folder)
        return re.sub(r"[^A-Za-z0-9_]+", "-", f"{last}-{which[:8]}").strip("-")


@dataclass(frozen=True, slots=True)
class Sides:
    """A pair as it goes to the scorer."""

    id: str
    chosen: list[Message]
    rejected: list[Message]


@dataclass(frozen=True)
class Scored:
    """What a scorer gave, in the order of the pairs; columns are chosen and rejected."""

    scores: np.ndarray
    """[n, 2]; not a number where there is none."""
    num_tokens: np.ndarray
    """[n, 2]; 0 of a conversation that was not tokenised."""
    reasons: list[str]
    """Why a pair has a side without a score; empty where it has none such."""
    content: str
    """A digest of the pairs."""
    scorer: dict[str, Any] = field(default_factory=dict)
    """What the scorer had decided: engine, dtype, max_model_len."""

    def counts(self) -> dict[str, int]:
        """Pairs by the reason why they have no score."""
        return dict(sorted(Counter(reason for reason in self.reasons if reason).items()))


def score_sides(
    run: RunDir, name: str, sides: Sequence[Sides], model: Model, tools: Tools, words: Sequence[str]
) -> Scored:
    """Scores of pairs by one model; what an earlier start has scored is not scored again.

    Args:
        run: the evaluation's folder.
        name: subfolder for these pairs.
        words: overrides for the scorer.

    Raises:
        MusicRayError: as the scorer.
    """
    # Named by what they hold: other pairs or another model are scored beside these, not mixed with them.
    content = digest([[one.id, one.chosen, one.rejected] for one in sides])[:12]
    file = f"pairs-{content}.parquet"
    if not run.exists(name, file):
        columns = {field: [getattr(one, field) for one in sides] for field in _SCHEMA.names}
        run.write_table(pa.table(columns, schema=_SCHEMA), name, file)
    out = run.display(name, f"scored-{content}-{model.slug}")
    scored = tools.score(model.folder, run.display(name, file), out, words)
    return _read(scored, (len(sides), 2), content)


def score_conversations(
    run: RunDir,
    name: str,
    conversations: Sequence[list[Message]],
    model: Model,
    tools: Tools,
    words: Sequence[str],
) -> Scored:
    """score_sides of conversations that are no pairs: the result has one column."""
    content = digest([content_id(one) for one in conversations])[:12]
    file = f"conversations-{content}.parquet"
    if not run.exists(name, file):
        numbers = [str(number) for number in range(len(conversations))]
        table = pa.table({"id": numbers, "messages": list(conversations)}, schema=_ALONE)
        run.write_table(table, name, file)
    out = run.display(name, f"scored-{content}-{model.slug}")
    scored = tools.score(model.folder, run.display(name, file), out, words)
    return _read(scored, (len(conversations), 1), content)


def _read(run: RunDir, shape: tuple[int, int], content: str) -> Scored:
    scores = np.full(shape, np.nan)
    num_tokens = np.zeros(shape, dtype=int)
    reasons = [""] * shape[0]
    seen = np.zeros(shape, dtype=bool)
    for row in run.read_rows(RESULT, columns=["row", "column", "score", "num_tokens", "reason"]):
        place = row["row"], int(row["column"] == "rejected")
        seen[place] = True
        num_tokens[place] = row["num_tokens"]
        if row["score"] is not None:
            scores[place] = row["score"]
        else:
            reasons[place[0]] = reasons[place[0]] or row["reason"]
    if not seen.all():
        missing = int((~seen).sum())
        raise StageError(f"{missing} conversations have no row in {run.display(RESULT)}: name another --out")
    engine = run.config.engine
    scorer = {
        "engine": run.config.score.engine,
        "dtype": engine.dtype,
        "max_model_len": engine.max_model_len,
    }
    return Scored(scores, num_tokens, reasons, content, scorer)
