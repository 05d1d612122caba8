"""The benchmark of training: its arithmetic, and ours beside TRL on the same pairs for real."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from music_ray.bench import train
from music_ray.bench.train import BEST, DEFAULT, PACKED, PADDED, SHARED, SORTED, TWO_RANKS, table
from music_ray.bench.trainers import Contender, Done, Work, serve_ours, serve_trl
from tests.reward.conftest import make_model


def test_steps_begin_again_where_the_pairs_end() -> None:
    pairs = [([number], [number, number]) for number in range(5)]
    steps = train.cut_into_steps(pairs, 3, steps=2, size=2)
    assert [[chosen[0] for chosen, _ in step] for step in steps] == [[3, 4], [0, 1]]


def test_ratios_are_to_the_fastest_of_trl_in_each_round() -> None:
    gib = 2**30
    seconds = {
        SHARED: [2.0, 2.0, 4.0], PACKED: [3.0, 3.0, 6.0], PADDED: [6.0, 6.0, 12.0],
        TWO_RANKS: [2.0, 1.0, 4.0],
        DEFAULT: [8.0, 6.0, 12.0], BEST: [4.0, 5.0, 4.0], SORTED: [6.0, 3.0, 8.0],
    }  # fmt: skip
    peaks = {DEFAULT: 4, BEST: 2, SORTED: 3}
    found = {
        name: [Done([one / 2, one / 2], [], 120, [peaks.get(name, 3) * gib]) for one in rounds]
        for name, rounds in seconds.items()
    }
    result = {"found": found, "real_tokens": [200, 200, 200], "tried": {1: 4.0}}
    told = table(result, argparse.Namespace(steps=2, pairs_per_step=8))
    assert told["rows"][SHARED]["pairs_per_second"] == 8.0  # 16 pairs in 2 s
    assert told["rows"][SHARED]["tokens_per_second"] == 100.0
    assert told["rows"][SHARED]["computed_share"] == 0.6
    best, default = told["ratios"]["best of TRL"], told["ratios"][DEFAULT]
    assert (best["median"], best["low"], best["high"], best["met"]) == (1.5, 1.0, 2.0, True)
    assert (default["median"], default["low"], default["high"], default["met"]) == (3.0, 3.0, 4.0, True)
    assert told["memory_over_smallest_trl"] == 1.5


@pytest.mark.faults  # breaks nothing, but takes its minutes
@pytest.mark.slow
def test_losses_are_those_of_trls_reward_trainer(tmp_path: Path) -> None:
    """TRL is an implementation that knows nothing of packs, shared prefixes or ZeRO-3."""
    model = str(make_model(tmp_path / "llama", "llama"))
    pairs = [
        ([2 + (number + place) % 14 for place in range(6 + number % 5)], [2 + number % 14, 3, 4 + number % 9])
        for number in range(24)
    ]
    pairs = [(shared + chosen, shared + rejected) for chosen, rejected in pairs for shared in [[5, 6, 7] * 3]]
    work = Work(train.cut_into_steps(pairs, 0, steps=3, size=8))
    settings = {
        "packed, prefix shared": {"packing": "shared_prefix", "micro_tokens": 64},
        "padded": {"packing": "padded", "micro_pairs": 2},
    }
    peer = Contender(serve_trl, model, {})
    expected = peer.run(work).losses
    peer.close()
    assert len(expected) == 3
    for name, one in settings.items():
        ours = Contender(serve_ours, model, one)
        losses = ours.run(work).losses
        ours.close()
        assert losses == pytest.approx(expected, rel=1e-4), name
