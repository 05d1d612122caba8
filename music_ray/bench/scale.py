"""What everything but the model costs: the generate stage with an engine that answers at once.

    python -m music_ray.bench.scale [--seeds N] [--small N] [--turns T] [--rounds N] [--out FILE.json]

Every measurement is a process of its own that says what it took. The bounds are those of the design: a
rate, a flat driver, a quick restart. There is no peer: nobody else does this work.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from music_ray.bench.record import write_facts
from music_ray.config import RunConfig
from music_ray.config.load import resolve_config
from music_ray.jobs.inputs import write_inputs
from music_ray.jobs.shards import read_index
from music_ray.progress import duration, say
from music_ray.rundir import RunDir
from music_ray.schema import SEED_SCHEMA

SHARDS = ("rollouts", "shards")
ROWS_PER_FILE = 5_000
TARGETS = {
    "seeds_per_second": (500.0, "at least"),
    "driver_memory_ratio": (1.2, "at most"),
    "restart_seconds": (20.0, "at most"),
    "index_gib_10m": (2.0, "at most"),
}
IDS_PER_SHARD = 100_000


def config_of(folder: str, turns: int) -> RunConfig:
    """A run with the scripted engine; everything else is as users have it, but for larger tasks."""
    return resolve_config(
        {
            "name": "scale",
            "runs_dir": folder,
            "engine": {"kind": "scripted", "max_num_seqs": 256},
            "user": {"mode": "template"},
            "contrast": {"mode": "resample"},
            "generate": {
                "turns": turns,
                "conversations_per_task": 64,
                "flush_rows": 2048,
                "canary": {"seeds": 0},
            },
        }
    )


def write_seeds(run: RunDir, number: int) -> None:
    """So many seeds of one message, in files as the seeds stage writes them."""
    seeds = (
        {
            "id": one,
            "source": "bench",
            "pair_id": str(one),
            "conversation": one,
            "messages": [{"role": "user", "content": f"Please tell me about topic {one}."}],
        }
        for one in range(number)
    )
    write_inputs(run, ("seeds", "contexts"), seeds, SEED_SCHEMA, ROWS_PER_FILE)


# -- what runs in processes of its own -----------------------------------------------------------------


def generate(folder: str, turns: int, run_epoch: int) -> None:
    """The generate stage; prints what it took as its last line."""
    from music_ray.generate.pipeline import run_generate
    from music_ray.ray_session import ensure_ray

    config = config_of(folder, turns)
    started = time.time()
    ensure_ray(config)
    ray_ready = time.time()
    run = RunDir(config)
    result = run_generate(run, run_epoch)
    ended = time.time()
    from music_ray.jobs.usage import read_usage

    _print_facts(
        {
            "ray_seconds": ray_ready - started,
            "ray_ready": ray_ready,
            "seconds": ended - ray_ready,
            "counts": result["counts"],
            "calls": read_usage(run, "generate")["calls"],
        }
    )


def index(folder: str) -> None:
    """Reads the ledger's index once."""
    run = RunDir(config_of(folder, 1))
    before = _peak_gib()
    started = time.time()
    found = read_index(run, SHARDS)
    _print_facts({"ids": len(found.ids), "seconds": time.time() - started, "gib": _peak_gib() - before})


def in_process(turns: int, number: int = 3000) -> dict[str, float]:
    """Rollouts alone, without Ray and files: what one call costs, in µs."""
    import asyncio

    from music_ray.engines.base import RoleEngines
    from music_ray.engines.scripted import ScriptedEngine
    from music_ray.generate.rollout import Cast, roll_out
    from music_ray.schema import SeedContext

    cast = Cast.of(config_of("unused", turns), RoleEngines.same(ScriptedEngine()), None, 1)
    seeds = [
        SeedContext(one, "bench", str(one), one, [{"role": "user", "content": f"Tell me about topic {one}."}])
        for one in range(number)
    ]

    async def all_of_them() -> int:
        calls = 0
        for start in range(0, number, 128):
            rows = await asyncio.gather(*(roll_out(seed, cast) for seed in seeds[start : start + 128]))
            calls += sum(len(row.calls) for row in rows)
        return calls

    started = time.process_time()
    calls = asyncio.run(all_of_them())
    seconds = time.process_time() - started
    return {"rollouts_per_second": number / seconds, "us_per_call": 1e6 * seconds / calls}


def _print_facts(facts: dict[str, Any]) -> None:
    say("FACTS " + json.dumps({**facts, "peak_gib": _peak_gib()}))


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


# -- what measures ---------------------------------------------------------------------------------------


def child(*words: object) -> subprocess.Popen[str]:
    """One measurement as a process."""
    command = [sys.executable, "-m", "music_ray.bench.scale", "child", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)


def facts_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What a child said."""
    output, _ = process.communicate()
    lines = [line for line in output.splitlines() if line.startswith("FACTS ")]
    if process.returncode or not lines:
        raise SystemExit(f"a measurement failed ({process.returncode}):\n{output[-2000:]}")
    return json.loads(lines[-1].removeprefix("FACTS "))


def fresh(number: int, turns: int) -> RunDir:
    """A new run folder with so many seeds."""
    run = RunDir(config_of(tempfile.mkdtemp(prefix="music-ray-scale-"), turns))
    write_seeds(run, number)
    return run


def whole_run(number: int, turns: int) -> dict[str, Any]:
    """All seeds to shards, counted."""
    run = fresh(number, turns)
    facts = facts_of(child("generate", run.config.runs_dir, turns, 1))
    assert facts["counts"]["ok"] == number, facts
    facts["seeds_per_second"] = number / facts["seconds"]
    facts["calls_per_second"] = facts["calls"] / facts["seconds"]
    facts["us_per_call"] = 1e6 * facts["seconds"] / facts["calls"]
    run.clear()
    return facts


def restart(number: int, turns: int) -> dict[str, Any]:
    """Killed half-way with kill -9, then started again: seconds to the first new row."""
    run = fresh(number, turns)
    first = child("generate", run.config.runs_dir, turns, 1)
    while len(read_index(run, SHARDS).ids) < number // 2:
        if first.poll() is not None:
            raise SystemExit("the run ended before it could be killed")
        time.sleep(0.5)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    time.sleep(2)
    kept = len(read_index(run, SHARDS).ids)
    second = child("generate", run.config.runs_dir, turns, 2)
    folder = Path(run.path(*SHARDS))
    while not (new := sorted(folder.glob("e0002-*.parquet"), key=os.path.getmtime)):
        time.sleep(0.05)
    first_row = new[0].stat().st_mtime
    facts = facts_of(second)
    rows = facts["counts"]
    assert rows["ok"] == number and rows["duplicate_rows"] == 0, rows
    run.clear()
    return {"kept": kept, "seconds": first_row - facts["ray_ready"], "ray_seconds": facts["ray_seconds"]}


def big_index(number: int) -> dict[str, Any]:
    """The index over so many ids, in shards of two columns."""
    run = RunDir(config_of(tempfile.mkdtemp(prefix="music-ray-scale-"), 1))
    random = np.random.default_rng(0)
    for start in range(0, number, IDS_PER_SHARD):
        size = min(IDS_PER_SHARD, number - start)
        ids = random.integers(0, 2**63 - 1, size=size, dtype=np.int64)
        table = pa.table({"id": ids, "status": pa.array(["ok"] * size)})
        run.write_table(table, *SHARDS, f"e0001-{start:012d}.parquet")
    facts = facts_of(child("index", run.config.runs_dir))
    run.clear()
    return facts


def main() -> None:
    """Measures, prints and writes JSON; exit code 1 where a bound is missed."""
    parser = argparse.ArgumentParser(description="What everything but the model costs.")
    parser.add_argument("--seeds", type=int, default=100_000)
    parser.add_argument("--small", type=int, default=10_000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--index-ids", type=int, default=10_000_000)
    parser.add_argument("--out", default="runs/bench/scale.json")
    options = parser.parse_args()
    alone = [in_process(options.turns) for _ in range(options.rounds)]
    say(f"rollouts alone, one process: {_median(alone, 'us_per_call'):.1f} µs a call")
    small = [whole_run(options.small, options.turns) for _ in range(options.rounds)]
    say(f"{options.small} seeds: {_median(small, 'seeds_per_second'):.0f} seeds/s")
    large = []
    for number in range(options.rounds):
        large.append(whole_run(options.seeds, options.turns))
        say(
            f"{options.seeds} seeds, round {number + 1}/{options.rounds}: "
            f"{large[-1]['seeds_per_second']:.0f} seeds/s, {large[-1]['calls_per_second']:.0f} calls/s, "
            f"driver {large[-1]['peak_gib']:.2f} GiB, {duration(large[-1]['seconds'])}"
        )
    again = [restart(options.seeds, options.turns) for _ in range(options.rounds)]
    ids = big_index(options.index_ids)
    result = {
        "seeds_per_second": _median(large, "seeds_per_second"),
        "driver_memory_ratio": _median(large, "peak_gib") / _median(small, "peak_gib"),
        "restart_seconds": _median(again, "seconds"),
        "index_gib_10m": ids["gib"] * 10_000_000 / ids["ids"],
    }
    for name, value in result.items():
        bound, word = TARGETS[name]
        met = value >= bound if word == "at least" else value <= bound
        say(f"{name:22} {value:9.2f}   {word} {bound:g}: {'met' if met else 'MISSED'}")
    details = {"options": vars(options), "alone": alone, "small": small, "large": large, "restart": again}
    write_facts(options.out, {**result, **details, "index": ids})


def _median(rounds: list[dict[str, Any]], name: str) -> float:
    return statistics.median(one[name] for one in rounds)


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        _, _, what, folder, *rest = sys.argv
        if what == "index":
            index(folder)
        else:
            generate(folder, *map(int, rest))
    else:
        main()
