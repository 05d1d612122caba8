"""Killed training goes on as if nothing had happened: the same losses, every pair once an epoch."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from music_ray.reward.logbook import PAIRS, read_log
from music_ray.rundir import RunDir
from tests.reward.reference import losses_of
from tests.reward.zero3_ranks import KILLED, outcome, train

pytestmark = [pytest.mark.slow, pytest.mark.faults]
PAIRS_OF_RUN, STEPS = 17, 9


def ids_in_order(run: RunDir) -> list[str]:
    """Ids of all pairs that were trained on, as the log has them."""
    return [one for line in read_log(run, PAIRS) for one in line["ids"]]


def check_every_pair_once_an_epoch(seen: list[str]) -> None:
    """Whole epochs hold every pair once; what is left of the last one holds none twice."""
    for start in range(0, len(seen), PAIRS_OF_RUN):
        epoch = seen[start : start + PAIRS_OF_RUN]
        assert len(set(epoch)) == len(epoch)
    assert len(set(seen[:PAIRS_OF_RUN])) == PAIRS_OF_RUN


def test_one_checkpoint_goes_on_at_one_two_and_three_workers(
    make_run: Any, gemma2_folder: Path, record_property: Any
) -> None:
    settings = {"steps": STEPS, "checkpoint_every": 4, "learning_rate": 1e-3}
    whole = make_run(gemma2_folder, name="whole", **settings)
    assert train(whole, 2) == [0, 0]
    expected, order = losses_of(whole), ids_in_order(whole)
    assert len(order) == STEPS * 6
    check_every_pair_once_an_epoch(order)

    killed = make_run(gemma2_folder, name="killed", **settings)
    assert train(killed, 2, kill_at_step=6) == [KILLED, KILLED]
    assert len(read_log(killed)) == 6  # two steps beyond the checkpoint are made again
    largest = {}
    for world_size in (1, 2, 3):
        run = make_run(gemma2_folder, name=f"resumed-{world_size}", **settings)
        shutil.copytree(killed.path(), run.path(), dirs_exist_ok=True)
        assert train(run, world_size) == [0] * world_size
        assert outcome(run)["resumed_from"] == 4
        largest[world_size] = max(abs(a - b) for a, b in zip(losses_of(run), expected, strict=True))
        assert ids_in_order(run) == order
    record_property("largest difference of a loss, by workers after the resume", largest)
    assert max(largest.values()) <= 1e-4
