"""Nodes, workers and drivers are killed at random by a seeded schedule; then everything is counted.

    python -m tests.chaos [--minutes 10] [--seed 0] [--scene generate …] [--out FILE.json]

Three scenes, one after the other, each on a fresh local cluster of a head without CPUs and three nodes:
2,000 seeds with the scripted engine; a few seeds with a real vLLM, both slowed so that they last; a training
with ZeRO-3 on as many workers as there are nodes. Exit code 1 where a count is not zero that must be, where
more than a third of the faults found nothing to hit, or where work did not go on after one.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from music_ray.bench.record import write_facts
from music_ray.progress import quieten_libraries, say
from tests.chaos import generation, table, training
from tests.chaos.nodes import Nodes
from tests.chaos.scene import ROOT, Played
from tests.chaos.schedule import make_schedule
from tests.chaos.slow_contrast import FOLDER, set_pace

SCENES = ("generate", "vllm", "train")
NODES = 3
MEAN_GAP = {"generate": 25.0, "vllm": 60.0, "train": 90.0}
"""Seconds between two faults: long enough that some work is done in between."""
TAIL_SECONDS = 900.0
"""How long a scene may go on after its last fault."""
BUSY_SHARE = 0.75
"""Of the time, a guess: the rest goes into starts."""


def generate(folder: Path, options: argparse.Namespace, scene: str) -> Played:
    """The scripted engine, or with scene `vllm` a real one."""
    seconds = 60.0 * (options.vllm_minutes if scene == "vllm" else options.minutes)
    is_real = scene == "vllm"
    seeds = options.vllm_seeds if is_real else options.seeds
    faulty = generation.make_run(folder, seeds, generation.VLLM if is_real else generation.SCRIPTED)
    turns = faulty.values["generate"]["turns"]
    in_flight = generation.ROWS_IN_FLIGHT[scene]
    # The real engine as well: else a fast machine is done before the faults come.
    pace = BUSY_SHARE * seconds * in_flight / (turns * seeds)
    os.environ[FOLDER] = str(folder)  # the nodes inherit it
    subprocess.run(faulty.command("seeds"), check=True, cwd=ROOT)
    faults = make_schedule(options.seed, generation.FAULTS, seconds, MEAN_GAP[scene])
    with Nodes(NODES, cpus=2) as nodes:
        set_pace(folder, seconds=pace, until=time.time() + seconds, ask=is_real)
        kind = generation.VllmGeneration if is_real else generation.Generation
        return kind(nodes, folder, faulty).play(faults, seconds + TAIL_SECONDS)


def train(folder: Path, options: argparse.Namespace) -> Played:
    """ZeRO-3 on CPUs."""
    seconds = 60.0 * options.minutes
    run = training.make_run(folder, "chaos", options.steps)
    faults = make_schedule(options.seed, training.FAULTS, seconds, MEAN_GAP["train"])
    with Nodes(NODES, cpus=1) as nodes:
        return training.Training(nodes, folder, run).play(faults, seconds + TAIL_SECONDS)


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Faults, and a count.")
    parser.add_argument("--minutes", type=float, default=10.0, help="of faults, in each scene")
    parser.add_argument("--seed", type=int, default=0, help="of the schedules")
    parser.add_argument("--scene", choices=SCENES, nargs="+", default=list(SCENES))
    parser.add_argument("--seeds", type=int, default=2000, help="with the scripted engine")
    parser.add_argument("--vllm-seeds", type=int, default=48)
    parser.add_argument("--vllm-minutes", type=float, default=4.0)
    parser.add_argument("--steps", type=int, default=2000, help="of training")
    parser.add_argument("--out", default="runs/bench/chaos.json")
    return parser.parse_args(arguments)


def main() -> int:
    """Plays the scenes, prints the tables, writes JSON; 1 where something is not as it must be."""
    options = parse_options()
    quieten_libraries()
    began = time.monotonic()
    scenes: list[Played] = []
    for scene in options.scene:
        with tempfile.TemporaryDirectory(prefix="music-ray-chaos-") as folder:
            place = Path(folder)
            scenes.append(train(place, options) if scene == "train" else generate(place, options, scene))
        table.show(scenes[-1:])
    say("")
    table.show(scenes)
    found = [problem for played in scenes for problem in table.problems(played)]
    write_facts(
        options.out,
        {
            "options": vars(options),
            "cores": len(os.sched_getaffinity(0)),
            "seconds": time.monotonic() - began,
            "problems": found,
            "scenes": [table.facts(played) for played in scenes],
        },
    )
    for played in scenes:
        say(f"{played.name}: {table.struck(played)}")
    for problem in found:
        say(f"not as it must be: {problem}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
