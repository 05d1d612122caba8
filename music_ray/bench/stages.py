"""What the stages of one process take with growing sets: seeds, pairs and mix, by rows.

    python -m music_ray.bench.stages [--rows N ...] [--turns T] [--out FILE.json]

They run in the driver, so their memory is the head's. Rollouts are made here by the scripted engine, without
Ray, and written as shards; every stage is then a process of its own, which says what it took. Messages are
short (about ten words): time grows with the texts, memory with the rows.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from music_ray.bench.record import write_facts
from music_ray.config import RunConfig
from music_ray.config.load import resolve_config
from music_ray.progress import say
from music_ray.rundir import RunDir
from music_ray.schema import ROLLOUT_SCHEMA, seed_from_row, to_table

STAGES = ("seeds", "pairs", "mix")
_GIB = 2**20
"""ru_maxrss counts KiB."""
_PER_SHARD = 10_000


def config_of(folder: str, turns: int) -> RunConfig:
    """A run whose gates all look, as users have it."""
    return resolve_config(
        {
            "name": "stages",
            "runs_dir": folder,
            "data": {"sources": [{"path": f"{folder}/pairs.jsonl"}], "held_out_fraction": 0.02},
            "engine": {"kind": "scripted"},
            "user": {"mode": "template"},
            "contrast": {"mode": "resample"},
            "generate": {"turns": turns},
        }
    )


def write_preferences(folder: str, number: int) -> None:
    """So many pairs of D, all with a first message of their own."""
    with Path(folder, "pairs.jsonl").open("w", encoding="utf-8") as handle:
        for one in range(number):
            prompt = f"Please tell me about topic {one}."
            row = {"prompt": prompt, "chosen": f"Topic {one} is good.", "rejected": "No idea."}
            handle.write(json.dumps(row) + "\n")


def write_rollouts(run: RunDir) -> None:
    """A rollout of every seed, in shards."""
    from music_ray.engines.base import RoleEngines
    from music_ray.engines.scripted import ScriptedEngine
    from music_ray.generate.rollout import Cast, roll_out

    cast = Cast.of(run.config, RoleEngines.same(ScriptedEngine()), None, 1)
    made: list[Any] = []
    shard = 0

    def flush() -> None:
        nonlocal shard
        table = to_table(made, ROLLOUT_SCHEMA)
        run.write_table(table, "rollouts", "shards", f"e0001-{shard:06d}.parquet")
        shard += 1
        made.clear()

    async def roll(seeds: list[Any]) -> list[Any]:
        return await asyncio.gather(*(roll_out(seed, cast) for seed in seeds))

    waiting: list[Any] = []
    for row in run.read_rows("seeds", "contexts"):
        waiting.append(seed_from_row(row))
        if len(waiting) == 128:
            made += asyncio.run(roll(waiting))
            waiting.clear()
        if len(made) >= _PER_SHARD:
            flush()
    made += asyncio.run(roll(waiting))
    flush()


def child(stage: str, folder: str, turns: int) -> None:
    """One stage; prints what it took as its last line."""
    run = RunDir(config_of(folder, turns))
    if stage == "rollouts":
        write_rollouts(run)
        return
    from music_ray.generate.mix import run_mix
    from music_ray.generate.pairs import run_pairs
    from music_ray.generate.seeds import run_seeds

    work: dict[str, Callable[[RunDir], Any]] = {"seeds": run_seeds, "pairs": run_pairs, "mix": run_mix}
    started = time.perf_counter()
    work[stage](run)  # without what a run looks at afterwards: the plan, the audit
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _GIB
    say("FACTS " + json.dumps({"seconds": time.perf_counter() - started, "peak_gib": peak}))


def measure(rows: int, turns: int) -> dict[str, Any]:
    """Every stage over so many rows of D: seconds, and GiB at the peak."""
    with tempfile.TemporaryDirectory(prefix="music-ray-stages-") as folder:
        write_preferences(folder, rows)
        found = {}
        for stage in ("seeds", "rollouts", "pairs", "mix"):
            command = [sys.executable, "-m", "music_ray.bench.stages", "child", stage, folder, str(turns)]
            output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            lines = [line for line in output.splitlines() if line.startswith("FACTS ")]
            if lines:
                found[stage] = json.loads(lines[-1].removeprefix("FACTS "))
        run = RunDir(config_of(folder, turns))
        found["rollouts_bytes"] = sum(
            info.size for info in run.fs.get_file_info(run.parquet_files("rollouts"))
        )
        return {"rows": rows, **found}


def main() -> None:
    """Measures, prints and writes JSON."""
    parser = argparse.ArgumentParser(description="What the stages of one process take.")
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 100_000])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", default="runs/bench/stages.json")
    options = parser.parse_args()
    found = []
    for rows in options.rows:
        found.append(measure(rows, options.turns))
        for stage in STAGES:
            took = found[-1][stage]
            say(
                f"{stage:6} {rows:9,} rows: {took['seconds']:7.1f} s, {rows / took['seconds']:8,.0f} rows/s, "
                f"{took['peak_gib']:.2f} GiB"
            )
        say(f"a rollout takes {found[-1]['rollouts_bytes'] / rows:,.0f} bytes on disk")
    write_facts(options.out, {"options": vars(options), "measured": found})


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        child(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        main()
