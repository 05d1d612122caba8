"""The train stage's steps beside TRL's RewardTrainer, and what packing and sharing prefixes buy, in one run.

    python -m music_ray.bench.train [--pairs FILE.parquet …] [--rounds N] [--out FILE.json] …

All contenders have the same model (the demo model's first layers, a random head), float32, all cores, the
same pairs in the same global batches (but where TRL sorts them by length) and the same AdamW. TRL runs at
its default batch of 8 pairs, at the micro-batch that is fastest here, and with lengths sorted. Rounds
alternate, each with pairs of its own. The first steps' losses are compared with TRL's on identical
batches before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from dataclasses import asdict
from importlib import resources
from typing import Any

from music_ray.bench.record import write_facts
from music_ray.bench.replay import Ratio, speed_ratio
from music_ray.bench.trainers import Contender, Done, Work, serve_ours, serve_trl
from music_ray.models import DEMO_MODEL, resolve_model
from music_ray.progress import quieten_libraries, say

Pairs = list[tuple[list[int], list[int]]]

SHARED = "ours: packed, prefix shared"
PACKED = "ours: packed"
PADDED = "ours: padded"
TWO_RANKS = "ours: packed, prefix shared, 2 workers"
DEFAULT = "TRL, 8 pairs a batch (its default)"
BEST = "TRL, its fastest micro-batch"
SORTED = "TRL, 8 pairs a batch, lengths sorted"
TARGETS = {DEFAULT: 2.5, "best of TRL": 1.4}
"""Least speed of ours over TRL's on preference pairs."""
CHECKED_STEPS, CHECKED_PAIRS = 20, 8
LOSS_BOUND = 1e-4
"""Largest relative difference of the first steps' losses."""


def token_pairs(path: str | None, model: str, longest: int) -> Pairs:
    """Pairs of a Parquet file (chosen, rejected as messages), or of the shipped sample, as token ids.

    Pairs with a side above `longest` tokens are left out.
    """
    from music_ray.chat import ChatFormat

    if path is None:
        files = sorted(resources.files("music_ray.samples").iterdir(), key=lambda one: one.name)
        lines = [line for one in files if one.name.endswith(".jsonl") for line in one.read_text().split("\n")]
        rows = [json.loads(line) for line in lines if line]
    else:
        import pyarrow.parquet as pq

        rows = pq.read_table(path, columns=["chosen", "rejected"]).to_pylist()
    chat = ChatFormat.load(model)
    pairs = []
    for row in rows:
        chosen, rejected = (chat.conversation_ids(row[side]) for side in ("chosen", "rejected"))
        if max(len(chosen), len(rejected)) <= longest and chosen != rejected:
            pairs.append((chosen, rejected))
    return pairs


def cut_into_steps(pairs: Pairs, start: int, steps: int, size: int) -> list[Pairs]:
    """Steps of pairs from `start` on, beginning again where the pairs end."""
    return [
        [pairs[(start + step * size + place) % len(pairs)] for place in range(size)] for step in range(steps)
    ]


class Field:
    """All contenders, started."""

    def __init__(self, options: argparse.Namespace) -> None:
        model = resolve_model(options.model)
        common: dict[str, Any] = {"num_layers": options.layers, "micro_tokens": options.micro_tokens}
        ours = {
            SHARED: {"packing": "shared_prefix"},
            PACKED: {"packing": "packed"},
            PADDED: {"packing": "padded", "micro_pairs": options.micro_pairs},
        }
        self.ours = {name: Contender(serve_ours, model, common | extra) for name, extra in ours.items()}
        self.ours[TWO_RANKS] = Contender(serve_ours, model, common | ours[SHARED], ranks=2)
        self.trl = {name: Contender(serve_trl, model, common) for name in (DEFAULT, BEST, SORTED)}
        self.settings: dict[str, dict[str, Any]] = {
            DEFAULT: {},
            BEST: {},
            SORTED: {"train_sampling_strategy": "group_by_length"},
        }

    def run(self, name: str, steps: list[Pairs]) -> Done:
        """One contender's work."""
        contender = self.ours.get(name) or self.trl[name]
        return contender.run(Work(steps, self.settings.get(name, {})))

    def find_best_batch(self, steps: list[Pairs], sizes: list[int]) -> dict[int, float]:
        """Seconds of TRL by micro-batch; BEST takes the fastest from here on."""
        tried = {}
        for size in sizes:
            self.settings[BEST] = {"per_device_train_batch_size": size}
            tried[size] = sum(self.run(BEST, steps).seconds)
        best = min(tried, key=tried.__getitem__)
        self.settings[BEST] = {"per_device_train_batch_size": best}
        return tried

    def close(self) -> None:
        """Ends all of them."""
        for one in (*self.ours.values(), *self.trl.values()):
            one.close()


def compare_losses(field: Field, pairs: Pairs) -> dict[str, Any]:
    """The first steps of ours and of TRL from the same weights on identical batches.

    Raises:
        SystemExit: they differ by more than LOSS_BOUND: speed would mean nothing.
    """
    short = sorted(pairs, key=lambda pair: len(pair[0]) + len(pair[1]))[: CHECKED_STEPS * CHECKED_PAIRS]
    steps = cut_into_steps(short, 0, CHECKED_STEPS, CHECKED_PAIRS)
    losses = {name: field.run(name, steps).losses for name in (SHARED, PACKED, PADDED, TWO_RANKS, DEFAULT)}
    worst = {
        name: max(abs(a - b) / abs(b) for a, b in zip(found, losses[DEFAULT], strict=True))
        for name, found in losses.items()
        if name != DEFAULT
    }
    say(
        f"losses of {CHECKED_STEPS} steps beside TRL's, largest relative difference: "
        + ", ".join(f"{name} {value:.1e}" for name, value in worst.items())
    )
    if max(worst.values()) > LOSS_BOUND:
        raise SystemExit(f"the losses differ by more than {LOSS_BOUND:.0e}: nothing is timed")
    return {"losses": losses, "largest_difference": worst}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All rounds of all contenders on each set of pairs."""
    model = resolve_model(options.model)
    files = options.pairs or [None]
    sets = {path or "shipped sample": token_pairs(path, model, options.max_tokens) for path in files}
    for name, pairs in sets.items():
        tokens = sum(len(side) for pair in pairs for side in pair)
        say(f"{name}: {len(pairs)} pairs within {options.max_tokens} tokens a side, {tokens} tokens")
    field = Field(options)
    checked = compare_losses(field, next(iter(sets.values())))
    results = {name: _rounds(field, name, pairs, options) for name, pairs in sets.items()}
    field.close()
    return {"checked": checked, "sets": results}


def _rounds(field: Field, name: str, pairs: Pairs, options: argparse.Namespace) -> dict[str, Any]:
    size, steps = options.pairs_per_step, options.steps
    sizes = [one for one in options.batch_sizes if size % one == 0]
    tried = field.find_best_batch(cut_into_steps(pairs, 0, max(1, steps // 2), size), sizes)
    say(f"{name}: TRL, seconds by micro-batch: " + ", ".join(f"{k}: {v:.1f}" for k, v in tried.items()))
    contenders = [*field.ours, *field.trl]
    found: dict[str, list[Done]] = {one: [] for one in contenders}
    real = []
    for number in range(options.rounds):
        work = cut_into_steps(pairs, (number + 1) * steps * size, steps, size)
        real.append(sum(len(side) for step in work for pair in step for side in pair))
        for one in contenders if number % 2 == 0 else contenders[::-1]:
            found[one].append(field.run(one, work))
        shown = ", ".join(f"{one} {sum(rounds[-1].seconds):.1f} s" for one, rounds in found.items())
        say(f"{name}, round {number + 1}/{options.rounds}: {shown}")
    return {"tried": tried, "found": found, "real_tokens": real}


def table(result: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """One row a contender, and ours beside the best of TRL."""
    found: dict[str, list[Done]] = result["found"]
    seconds = {name: [sum(one.seconds) for one in rounds] for name, rounds in found.items()}
    pairs = options.steps * options.pairs_per_step
    rows = {
        name: {
            "seconds": took,
            "pairs_per_second": statistics.median(pairs / one for one in took),
            "tokens_per_second": statistics.median(
                tokens / one for tokens, one in zip(result["real_tokens"], took, strict=True)
            ),
            "computed_share": statistics.median(
                one.computed_tokens / tokens
                for tokens, one in zip(result["real_tokens"], found[name], strict=True)
            ),
            "peak_gib": [peak / 2**30 for peak in found[name][-1].peak_bytes],
            "ours_over_it": asdict(speed_ratio(seconds[SHARED], took)),
        }
        for name, took in seconds.items()
    }
    best = [min(took) for took in zip(*(seconds[name] for name in (DEFAULT, BEST, SORTED)), strict=True)]
    ratios = {"best of TRL": speed_ratio(seconds[SHARED], best)}
    ratios[DEFAULT] = speed_ratio(seconds[SHARED], seconds[DEFAULT])
    trl_peak = min(rows[name]["peak_gib"][0] for name in (DEFAULT, BEST, SORTED))
    return {
        "rows": rows,
        "micro_batches_tried": result["tried"],
        "ratios": {
            name: asdict(ratio) | {"target": TARGETS[name], "met": ratio.median >= TARGETS[name]}
            for name, ratio in ratios.items()
        },
        "memory_over_smallest_trl": rows[SHARED]["peak_gib"][0] / trl_peak,
    }


def tell(name: str, told: dict[str, Any]) -> None:
    """Prints one set's table."""
    say(f"{name:44} {'pairs/s':>8} {'tokens/s':>9} {'computed':>9} {'peak GiB':>10}   ours over it")
    for who, row in told["rows"].items():
        computed = f"{row['computed_share']:.2f}" if row["computed_share"] else ""
        peak = "+".join(f"{one:.2f}" for one in row["peak_gib"])
        say(
            f"{who:44} {row['pairs_per_second']:8.2f} {row['tokens_per_second']:9.0f} {computed:>9} "
            f"{peak:>10}   {Ratio(**row['ours_over_it'])}"
        )
    for who, ratio in told["ratios"].items():
        shown = Ratio(ratio["median"], ratio["low"], ratio["high"])
        say(f"ours over {who}: {shown} (target {ratio['target']}: {'met' if ratio['met'] else 'missed'})")
    say(f"peak memory over the smallest of TRL's: {told['memory_over_smallest_trl']:.2f}")


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m music_ray.bench.train")
    parser.add_argument("--model", default=DEMO_MODEL)
    parser.add_argument("--layers", type=int, default=4, help="the model's first layers that are kept")
    parser.add_argument("--pairs", nargs="+", help="Parquet files with chosen and rejected messages")
    parser.add_argument("--max-tokens", type=int, default=768, help="longest side")
    parser.add_argument("--steps", type=int, default=4, help="a round")
    parser.add_argument("--pairs-per-step", type=int, default=16)
    parser.add_argument("--micro-tokens", type=int, default=2048)
    parser.add_argument("--micro-pairs", type=int, default=1, help="of our own padded passes")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 2, 4], help="tried for TRL")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", default="runs/bench/train.json")
    options = parser.parse_args(arguments)
    if options.pairs_per_step % 8:
        parser.error(f"--pairs-per-step ({options.pairs_per_step}) must be a multiple of TRL's batch of 8")
    return options


def main() -> None:
    """Measures, prints the tables, and writes them as JSON."""
    options = parse_options()
    quieten_libraries()
    began = time.perf_counter()
    measured = measure(options)
    tables = {name: table(result, options) for name, result in measured["sets"].items()}
    for name, told in tables.items():
        tell(name, told)
    facts = {
        "options": vars(options),
        "cores": len(os.sched_getaffinity(0)),
        "losses": measured["checked"],
        "sets": tables,
        "seconds": time.perf_counter() - began,
    }
    write_facts(options.out, facts)


if __name__ == "__main__":
    main()
