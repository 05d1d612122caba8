"""Memory of training workers on the CPU as it is, beside what the plan says of it.

    python -m music_ray.bench.memory [OUT.json]

Every setting starts its workers as processes of their own, without Ray, on pairs of random tokens that
are all as long as train.max_tokens allows: what the plan calls the most. Measured is the anonymous
memory (RssAnon) of each process, read 200 times a second through two steps; files that are mapped, such as
libraries and the base model's weights, are the kernel's to take back and are not in it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from music_ray.bench.record import write_facts
from music_ray.config import TrainConfig
from music_ray.errors import StageError
from music_ray.memory.fitting import gib
from music_ray.memory.model_size import model_size
from music_ray.memory.training import training_memory
from music_ray.models import DEMO_MODEL, resolve_model
from music_ray.progress import say

STEPS = 2
SAMPLE_SECONDS = 0.005
COMMON: dict[str, Any] = {
    "base_model": DEMO_MODEL, "num_layers": 10, "max_tokens": 256, "micro_tokens": 768, "pairs_per_step": 4,
}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    "1 worker": {"num_workers": 1},
    "2 workers": {"num_workers": 2},
    "2 workers, recomputed": {"num_workers": 2, "activation_checkpointing": True},
    "2 workers, padded": {"num_workers": 2, "packing": "padded", "micro_pairs": 2},
    "2 workers, bfloat16": {"num_workers": 2, "precision": "bfloat16"},
    "2 workers, LoRA": {"num_workers": 2, "lora": {"rank": 16}},
    "2 workers, all 30 layers": {"num_workers": 2, "num_layers": None},
}


def main() -> None:
    """Measures all settings, prints the table, and writes it as JSON where a path is given."""
    model = resolve_model(DEMO_MODEL)
    found = {}
    for name, setting in SETTINGS.items():
        train = TrainConfig.model_validate(COMMON | setting)
        facts = found[name] = measure(train, model)
        say(
            f"{name:32} planned {gib(facts['planned'])}   measured {gib(facts['measured'])}   "
            f"planned/measured {facts['planned'] / facts['measured']:.2f}   "
            f"(before the model {gib(facts['before'])})"
        )
    if len(sys.argv) > 1:
        write_facts(sys.argv[1], found)


def measure(train: TrainConfig, model: str) -> dict[str, float]:
    """Bytes of the largest worker: planned, measured at its peak, and measured before it held a model.

    Args:
        train: how to train; everything runs on the CPU.
        model: the resolved model folder.

    Raises:
        StageError: a worker has died.
    """
    size = model_size(model)
    if size is None:
        raise StageError(f"the size of {model} is not known: name a folder of a dense decoder")
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        ranks = [
            context.Process(
                target=_rank, args=(rank, train.model_dump_json(), model, size.vocabulary, folder)
            )
            for rank in range(train.num_workers)
        ]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join()
        if any(process.exitcode for process in ranks):
            raise StageError("a worker of the measurement has died: see its message above")
        told = [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(train.num_workers)]
    return {
        "planned": training_memory(size, train, train.num_workers).total,
        "measured": max(one["peak"] for one in told),
        "before": max(one["before"] for one in told),
    }


def _rank(rank: int, train_json: str, model: str, vocabulary: int, folder: str) -> None:
    """One worker's steps; writes what it took."""
    train = TrainConfig.model_validate_json(train_json)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(train.num_workers))
    from music_ray.reward.zero3 import build_engine, prepare_process

    prepare_process(train)
    import torch
    import torch.distributed as dist

    from music_ray.reward.passes import Passes, Rank

    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=train.num_workers)
    # What the model will need is part of what a worker takes before it holds one.
    import deepspeed.runtime.engine  # noqa: F401
    import transformers.models.llama.modeling_llama  # noqa: F401

    with _Watch() as watch:
        before = watch.peak
        engine = build_engine(train, model, head_seed=0, pad_token_id=0)
        passes = Passes(train, engine, Rank(rank, train.num_workers, torch.device("cpu")), 0)
        pairs = longest_pairs(train, vocabulary)
        for _ in range(STEPS):
            passes.learn(pairs, list(range(train.pairs_per_step)))
            engine.step()
    Path(folder, f"{rank}.json").write_text(json.dumps({"before": before, "peak": watch.peak}))
    dist.barrier()
    os._exit(0)


def longest_pairs(train: TrainConfig, vocabulary: int) -> Any:
    """A step's pairs (PairTokens) of random tokens, both sides as long as they may be; half of it shared."""
    import numpy as np
    import pyarrow as pa

    from music_ray.reward.data import PairTokens
    from music_ray.reward.tokenise import TOKENS_SCHEMA

    random = np.random.default_rng(0)
    half = train.max_tokens // 2
    rest = train.max_tokens - half
    rows = []
    for number in range(train.pairs_per_step):
        shared, *rests = (random.integers(3, vocabulary, one) for one in (half, rest, rest))
        chosen, rejected = (np.concatenate([shared, one]) for one in rests)
        row = {"id": f"pair-{number}", "source": "random", "origin": "D", "margin": None}
        rows.append(row | {"chosen": chosen, "rejected": rejected})
    return PairTokens(pa.Table.from_pylist(rows, schema=TOKENS_SCHEMA))


class _Watch:
    """The largest anonymous memory of this process while it is entered."""

    def __init__(self) -> None:
        self.peak = anonymous_bytes()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            self.peak = max(self.peak, anonymous_bytes())


def anonymous_bytes() -> int:
    """RssAnon of this process (Linux)."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise StageError("/proc/self/status has no RssAnon: the measurement needs Linux")


if __name__ == "__main__":
    main()
