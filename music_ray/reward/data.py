"""The training pairs as token ids: made once before the workers start, read by every worker.

`prepare_tokens` finds or makes the file of the mix, and refuses what can't be trained on as the
configuration says. Workers map the file into memory: all ranks of a node share one copy.
"""

from __future__ import annotations

import bisect
import itertools
import math
import sys

import numpy as np
import pyarrow as pa

from music_ray.chat import ChatFormat
from music_ray.config import TrainConfig
from music_ray.errors import InputError
from music_ray.progress import say
from music_ray.reward import token_file
from music_ray.reward.order import shares
from music_ray.reward.token_file import TokenFile
from music_ray.reward.tokenise import tokenised
from music_ray.rundir import RunDir


class PairTokens:
    """The tokenised pairs, read by index.

    Args:
        table: rows of tokenise.TOKENS_SCHEMA.
    """

    def __init__(self, table: pa.Table) -> None:
        # Chunks stay as they are: joining them would copy the mapped file into every rank's memory.
        batches = [batch for batch in table.to_batches() if batch.num_rows]
        self.ids: list[str] = table.column("id").to_pylist()
        # Few different names: interned, else every pair would hold a string of its own.
        self.sources: list[str] = [sys.intern(name) for name in table.column("source").to_pylist()]
        self.origins: list[str] = [sys.intern(name) for name in table.column("origin").to_pylist()]
        self.margins: np.ndarray = table.column("margin").fill_null(0.0).to_numpy()
        """By how much each pair's sides should be apart, float32 [n]; 0 where nothing is said of it."""
        self._starts = list(itertools.accumulate((batch.num_rows for batch in batches), initial=0))
        self._sides = [(batch.column("chosen"), batch.column("rejected")) for batch in batches]
        longest = [np.maximum(*(np.diff(side.offsets.to_numpy()) for side in sides)) for sides in self._sides]
        self.lengths: np.ndarray = np.concatenate(longest) if longest else np.zeros(0, np.int32)
        """Tokens of each pair's longer side."""

    @classmethod
    def open(cls, run: RunDir, name: str) -> PairTokens:
        """Opens `checkpoints/NAME`; a local file is mapped into memory.

        Raises:
            InputError: this node doesn't see the file, or it is damaged.
        """
        path = run.path("checkpoints", name)
        try:
            return cls(token_file.open_table(run, name))
        except ValueError as error:  # pyarrow's ArrowInvalid is one
            raise InputError(
                f"{path} cannot be used ({' '.join(str(error).split())}): remove it, it is made again from "
                "the mix"
            ) from None
        except OSError as error:
            raise InputError(
                f"a training worker cannot read {path} ({error}): with several nodes runs_dir must be a "
                "shared file system or a URI such as s3://…"
            ) from None

    def __len__(self) -> int:
        return len(self.ids)

    def sides(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Token ids of the chosen and the rejected side, int32."""
        batch = bisect.bisect_right(self._starts, index) - 1
        chosen, rejected = self._sides[batch]
        row = index - self._starts[batch]
        return chosen[row].values.to_numpy(), rejected[row].values.to_numpy()


def prepare_tokens(run: RunDir, chat: ChatFormat) -> TokenFile:
    """Tokenises the mix, or finds the file of an earlier start. Many pairs are tokenised by Ray.

    Raises:
        InputError: the mix is empty, no pair of it can be trained on, no pair has a margin although
            margins are asked for, or the mix's weights don't fit its pairs.
        EnvironmentLacksError: the Ray cluster can't be reached.
    """
    files = run.parquet_files("mix")
    files = [path for path in files if "/held_out/" not in path[len(run.root) :]]
    if not files:
        raise InputError(f"{run.display('mix')} holds no pairs to train on: run the mix stage first")
    made_from = token_file.tokens_made_from(run, chat, files)
    found, problem = token_file.find_tokens(run, token_file.tokens_key(made_from))
    if found is None:
        if instead := problem or token_file.nearest_other(run, made_from):
            say(f"train: {instead}: tokenising the mix again")
        found = token_file.write_tokens(run, made_from, tokenised(run, chat, files))
    _check_usable(run, found)
    train = run.config.train
    if train.loss.margin and not found.num_margins:
        raise InputError(
            f"train.loss.margin is true, but none of the {found.num_pairs} pairs has a margin: give the rows "
            "of data.sources a number `margin` and run the seeds and mix stages again, or set "
            "train.loss.margin=false"
        )
    if train.mix_weights is not None:
        _check_weights(train, train.mix_weights, found)
    return found


def _check_usable(run: RunDir, found: TokenFile) -> None:
    if found.num_pairs == 0:
        train = run.config.train
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(found.dropped.items()))
        raise InputError(
            f"no pair of {run.display('mix')} can be trained on (dropped: {reasons or 'none'}): where it is "
            f"over_length, raise train.max_tokens ({train.max_tokens}) or set train.over_length=cut"
        )


def _check_weights(train: TrainConfig, weights: dict[str, float], found: TokenFile) -> None:
    """Every origin has a weight and pairs, and enough pairs that no step holds one twice."""
    if unweighted := sorted(found.origins.keys() - weights.keys()):
        raise InputError(
            f"train.mix_weights has no weight for {unweighted[0]}, of which there are "
            f"{found.origins[unweighted[0]]} pairs: give it one, or leave it out of the mix"
        )
    for origin, share in sorted(shares(weights).items()):
        most = math.ceil(train.pairs_per_step * share)
        have = found.origins.get(origin, 0)
        if have < most:
            raise InputError(
                f"train.mix_weights asks for up to {most} pairs of {origin} in a step of "
                f"{train.pairs_per_step}, but {have} of them can be trained on: lower its weight or "
                "train.pairs_per_step, or get more pairs"
            )
