from __future__ import annotations

import pytest
from zero3_ranks import outcome, train

from music_ray.reward.logbook import read_log


def test_smoke(make_run, gemma2_folder):
    import time
    for w in (1, 2, 3):
        run = make_run(gemma2_folder, name=f"w{w}")
        t = time.time()
        print(train(run, w), time.time() - t)
        print(outcome(run)["seconds"])
    assert 0
