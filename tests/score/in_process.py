"""A scoring job in this process instead of on Ray: the real worker, and a scripted scorer."""

import asyncio

import numpy as np

from music_ray.errors import StageError
from music_ray.jobs.metrics import Metrics
from music_ray.rundir import RunDir
from music_ray.schema import to_table
from music_ray.score.rows import shard_schema
from music_ray.score.scorers import Scored
from music_ray.score.worker import ScoreWorker


class Lengths:
    """Scores a conversation by its length."""

    def describe(self) -> str:
        return "lengths"

    async def score(self, token_ids: list[int]) -> Scored:
        return Scored(float(len(token_ids)))

    def close(self) -> None: ...


class Job:
    """Takes the place of the job on Ray."""

    def __init__(self) -> None:
        self.taken: list[list[int]] = []
        """Rows of the input that each start worked on."""
        self.stop_after: int | None = None

    def __call__(self, run: RunDir, epoch: int, facts: dict[str, str], done: np.ndarray, total: int) -> None:
        worker = ScoreWorker(run.config, epoch, {}, Metrics("t"), scorer=Lengths())
        waiting = [row for row in run.read_rows("in") if row["id"] not in done][: self.stop_after]
        made = [asyncio.run(worker.work(row)) for row in waiting]
        run.write_table(to_table(made, shard_schema(facts)), "shards", f"s{epoch:05d}.parquet")
        self.taken.append([row["id"] // 2 for row in waiting])
        if self.stop_after is not None:
            raise StageError("interrupted")
