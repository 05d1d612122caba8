"""The train stage as users run it: Ray Train's TorchTrainer with two ZeRO-3 workers."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForSequenceClassification

from music_ray.chat import ChatFormat
from music_ray.errors import ConfigError
from music_ray.reward.data import PairTokens, prepare_tokens
from music_ray.reward.logbook import count_pairs, read_log
from music_ray.reward.tell import step_line
from music_ray.reward.train import prepare, run_train
from music_ray.reward_model import score
from music_ray.schema import PAIR_SCHEMA, to_table
from tests.reward.reference import losses_of, train_plainly
from tests.reward.test_data import bad_pair
from tests.security.watching import watching

LINE = {"step": 3, "loss": 0.61234, "accuracy": 0.75, "margin": 0.0567, "tokens": 300, "seconds": 2.0}


def test_progress_line() -> None:
    assert step_line([LINE, LINE], 8) == (
        "train: step 3/8 · loss 0.6123 · accuracy 0.75 · margin +0.057 · 150 tokens/s · 10 s left"
    )
    assert step_line([LINE], 3).endswith("150 tokens/s")


def test_pairs_that_are_left_out_are_told_by_reason(
    make_run: Any, gemma2_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(gemma2_folder, pairs=9)
    bad = [bad_pair(number) for number in range(5)]  # equal, one side too long, one empty, and again
    run.write_table(to_table(bad, PAIR_SCHEMA), "mix", "train-00001.parquet")
    _, tokens = prepare(run)
    assert tokens.num_pairs == 9
    assert (
        f"train: 9 pairs, {tokens.num_tokens} tokens, dropped: empty_side 1, over_length 2, sides_equal 2\n"
    ) in capsys.readouterr().out


@pytest.fixture
def ray_session() -> Iterator[None]:
    yield
    import ray

    ray.shutdown()


@pytest.mark.slow
def test_two_workers_train_like_plain_torch_and_the_export_scores_the_same(
    make_run: Any, gemma2_folder: Path, ray_session: None
) -> None:
    losses, _, plain = train_plainly(make_run(gemma2_folder, name="plain", steps=2))
    run = make_run(gemma2_folder, steps=2)
    with watching(os.getpid()) as seen:
        facts = run_train(run)
    assert len(seen.listening) > 3 and seen.listening_elsewhere == set()
    assert losses_of(run) == pytest.approx(losses, abs=1e-5)
    counts = facts["counts"]
    assert {name: counts[name] for name in ("pairs", "dropped", "steps", "pairs_seen")} == {
        "pairs": 17,
        "dropped": {},
        "steps": 2,
        "pairs_seen": 12,
    }
    assert facts["tokens"]["trained"] == sum(line["tokens"] for line in read_log(run))
    model = AutoModelForSequenceClassification.from_pretrained(run.path("model"), attn_implementation="eager")
    pairs = PairTokens.open(run, prepare_tokens(run, ChatFormat.load(str(gemma2_folder))).name)
    sides = [side for index in range(len(pairs)) for side in pairs.sides(index)]
    assert score(model, sides) == pytest.approx(score(plain, sides), abs=1e-3)
    # The same call again goes on from the last step: nothing is trained twice, the model is the same.
    again = run_train(run)
    assert again["output"] == facts["output"]
    assert losses_of(run) == pytest.approx(losses, abs=1e-5)
    too_many = make_run(gemma2_folder, name="many", num_workers=3)
    with pytest.raises(ConfigError, match=r"train\.num_workers \(3\) x train\.cpus_per_worker \(1\) exceeds"):
        run_train(too_many)


@pytest.mark.slow
@pytest.mark.faults
def test_a_worker_killed_mid_step_is_replaced_by_itself(
    make_run: Any, gemma2_folder: Path, ray_session: None
) -> None:
    settings = {"steps": 40, "checkpoint_every": 5, "learning_rate": 1e-4}
    losses, _, _ = train_plainly(make_run(gemma2_folder, name="plain", **settings))
    run = make_run(gemma2_folder, **settings)
    killed: list[int] = []
    killer = threading.Thread(target=_kill_a_worker, args=(run, killed), daemon=True)
    killer.start()
    run_train(run)
    assert len(killed) == 1
    assert losses_of(run) == pytest.approx(losses, abs=1e-4)
    # 40 steps of 6 pairs: 14 epochs of 17 pairs, and the first 2 of the next.
    assert Counter(count_pairs(run).values()) == {14: 15, 15: 2}


def _kill_a_worker(run: Any, killed: list[int]) -> None:
    """Kills one training worker of this process's Ray once some steps are done."""
    import psutil

    while len(read_log(run)) < 8:
        time.sleep(0.02)
    for process in psutil.Process().children(recursive=True):
        if "RayTrainWorker" in " ".join(process.cmdline()):
            os.kill(process.pid, signal.SIGKILL)
            killed.append(process.pid)
            return
