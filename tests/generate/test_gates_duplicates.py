"""near_duplicate: what is near, who stays, and that the order of rollouts decides nothing."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from music_ray.config import GatesConfig
from music_ray.generate.gates.duplicates import NearDuplicates, Verdicts, rows_per_band
from music_ray.generate.gates.sides import shingles
from music_ray.schema import Rollout

Maker = Callable[..., Rollout]
GATES = GatesConfig()


def sentence(number: int, length: int = 40) -> list[str]:
    rng = random.Random(number)
    return [f"w{rng.randrange(10**6)}" for _ in range(length)]


def says(make_rollout: Maker, one: int, words: list[str]) -> Rollout:
    return make_rollout(one, chosen=[" ".join(words)])


def judge(rollouts: list[Rollout], standing: dict[int, bool] | None = None) -> Verdicts:
    gate = NearDuplicates(GATES)
    for rollout in rollouts:
        gate.add(rollout, stands=(standing or {}).get(rollout.id, True))
    return gate.verdicts()


def test_the_first_by_id_stays(make_rollout: Maker) -> None:
    """One word of 400 changed: 3 of 398 runs of three on each side, so a similarity of 395/401."""
    words = sentence(1, 400)
    near, other = [*words], sentence(2, 400)
    near[200] = "changed"
    one, two = shingles(" ".join(words)), shingles(" ".join(near))
    assert (len(one & two), len(one | two)) == (395, 401)
    rollouts = [says(make_rollout, 9, words), says(make_rollout, 4, near), says(make_rollout, 7, other)]
    found = judge(rollouts)
    assert found.refused == found.alone
    assert found.refused.keys() == {9}
    assert found.refused[9] == "the chosen side is about 0.98 like that of music-4"


def test_half_the_words_make_no_duplicate(make_rollout: Maker) -> None:
    words = sentence(1)
    rollouts = [says(make_rollout, 1, words), says(make_rollout, 2, words[:20] + sentence(2)[20:])]
    assert judge(rollouts) == Verdicts()


def test_the_threshold_is_estimated_within_its_error(make_rollout: Maker) -> None:
    """400 pairs of texts of a known similarity, well away from 0.8 on either side: 3 standard errors."""
    for similarity, length, expected in ((0.9, 400, 1.0), (0.7, 400, 0.0)):
        shared = round(2 * similarity / (1 + similarity) * length)
        hits = 0
        for number in range(200):
            start = sentence(number, shared)
            one = start + sentence(1000 + number, length - shared)
            other = start + sentence(2000 + number, length - shared)
            hits += bool(judge([says(make_rollout, 1, one), says(make_rollout, 2, other)]).refused)
        assert abs(hits / 200 - expected) <= 0.02


def test_a_rollout_that_gives_no_pair_makes_no_duplicate(make_rollout: Maker) -> None:
    words = sentence(1)
    rollouts = [says(make_rollout, one, words) for one in (1, 2, 3)]
    found = judge(rollouts, {1: False})
    assert found.refused == {3: "the chosen side is about 1.00 like that of music-2"}
    assert found.alone.keys() == {2, 3}
    assert found.alone[2] == "the chosen side is about 1.00 like that of music-1"


def test_the_seed_and_the_rejected_side_are_not_looked_at(make_rollout: Maker) -> None:
    plain = make_rollout(1, chosen=[" ".join(sentence(1))], rejected=[" ".join(sentence(2))])
    other = replace(plain, id=2, rejected=plain.rejected[:1])
    assert judge([plain, other]).refused.keys() == {2}
    seeded = make_rollout(3, chosen=[" ".join(sentence(3))])
    assert judge([plain, seeded]).refused == {}


def test_texts_without_a_word_take_no_part(make_rollout: Maker) -> None:
    rollouts = [make_rollout(one, chosen=[text]) for one, text in ((1, ""), (2, " ... "), (3, "\U0001f642"))]
    assert judge(rollouts) == Verdicts()
    assert judge([make_rollout(one, chosen=["Yes."]) for one in (1, 2)]).refused.keys() == {2}


def test_a_thousand_equal_texts_leave_one(make_rollout: Maker) -> None:
    words = sentence(1)
    found = judge([says(make_rollout, one, words) for one in range(1000)])
    assert found.refused.keys() == set(range(1, 1000))
    assert set(found.refused.values()) == {"the chosen side is about 1.00 like that of music-0"}


def test_memory_is_512_bytes_a_rollout(make_rollout: Maker) -> None:
    gate = NearDuplicates(GATES)
    for one, length in ((1, 10), (2, 10_000)):
        gate.add(says(make_rollout, one, sentence(one, length)), stands=True)
    assert len(gate) == 2 and len(gate._signatures) == 2 * 512


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(st.data())
def test_the_order_of_rollouts_decides_nothing(make_rollout: Maker, data: st.DataObject) -> None:
    """Texts near one another in chains, some of which give no pair."""
    texts = [sentence(kind)[: 40 - cut] + sentence(kind + 10)[:cut] for kind in range(2) for cut in range(8)]
    rollouts = [says(make_rollout, one, words) for one, words in enumerate(texts)]
    standing = dict(enumerate(data.draw(st.lists(st.booleans(), min_size=16, max_size=16))))
    shuffled = data.draw(st.permutations(rollouts))
    found = judge(shuffled, standing)
    assert found == judge(rollouts, standing)
    assert all(standing[one] for one in found.refused)
    assert judge(rollouts).refused == judge(rollouts).alone


@pytest.mark.parametrize("permutations", [16, 64, 128, 256])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.9, 0.95, 1.0])
def test_bands_overlook_one_in_a_thousand_at_most(threshold: float, permutations: int) -> None:
    rows = rows_per_band(threshold, permutations)
    overlooked = (1 - threshold**rows) ** (permutations // rows)
    # 16 permutations can't do better at 0.3 than a band for each.
    assert 1 <= rows <= permutations and overlooked <= (
        0.004 if (threshold, permutations) == (0.3, 16) else 0.001
    )
