"""What samples give: S2, natural preferences and error rates."""

import random
from collections import Counter, defaultdict

import pytest

from music_ray.judge.verdict import Verdict
from music_ray.miniature.check import compare, wrong_turns
from music_ray.miniature.mistakes import OUTSIDE_CONTRAST, mistaken
from music_ray.miniature.natural import error_rates, natural_errors, natural_final_errors, natural_preferences
from music_ray.miniature.place import reply_at, spoil
from music_ray.miniature.suites import EARLY, FINAL, counts
from music_ray.miniature.world import conversation
from music_ray.replicate.shortcuts import lengths
from tests.miniature.surface import auc


def sample(seed, split="suites"):
    """A conversation as a careless model would hold it: each reply is wrong one time in five."""
    rng = random.Random(seed)
    messages = conversation(seed, rng.choice((3, 4)), split=split)
    for turn in range(1, len(messages) // 2 + 1):
        reply = mistaken(rng.choice(OUTSIDE_CONTRAST), messages, turn, rng) if rng.random() < 0.2 else None
        if reply is not None:
            messages = spoil(messages, turn, reply)
    return messages


@pytest.fixture(scope="module")
def samples():
    return [sample(seed) for seed in range(4_000)]


@pytest.fixture(scope="module")
def pairs(samples):
    return natural_errors(samples)


def test_rejected_is_a_sample_and_chosen_has_its_errors_corrected(samples, pairs):
    assert len(pairs) > 200
    for pair in pairs:
        assert pair.rejected == samples[pair.seed]
        assert wrong_turns(pair.chosen) == []
        wrong = wrong_turns(pair.rejected)
        assert wrong[0] == pair.error_turn and wrong[-1] < pair.num_turns
        assert pair.chosen[::2] == pair.rejected[::2]
        assert pair.chosen[: reply_at(pair.error_turn)] == pair.rejected[: reply_at(pair.error_turn)]


def test_cells_need_not_be_equally_full(samples):
    equal = Counter(pair.num_turns for pair in natural_final_errors(samples))
    found = natural_final_errors(samples, equally_full=False)
    more = Counter(pair.num_turns for pair in found)
    assert len(set(equal.values())) == 1
    assert min(more.values()) == equal[1] and sum(more.values()) > sum(equal.values())
    seen = defaultdict(Counter)
    for pair in found:
        (chosen, rejected, _), _ = counts(pair.chosen, pair.rejected)
        seen[pair.num_turns][chosen[:2], rejected[:2]] += 1
    assert all(cell[two, one] == number for cell in seen.values() for (one, two), number in cell.items())


def test_cells_and_lengths_are_balanced(pairs):
    found = defaultdict(Counter)
    for pair in pairs:
        (chosen, rejected, _), _ = counts(pair.chosen, pair.rejected)
        found[pair.num_turns, pair.error_turn][chosen[:2], rejected[:2]] += 1
    assert set(found) == set(EARLY)
    assert len({sum(cell.values()) for cell in found.values()}) == 1
    for cell in found.values():
        # A cell that was cut to the size of the scarcest may have lost one half of one match.
        assert sum(abs(cell[two, one] - number) for (one, two), number in cell.items()) <= 2
    assert auc(pairs, lengths) == pytest.approx(0.5, abs=0.05)
    assert len(natural_errors([])) == 0


def test_a_cell_can_be_bounded(samples):
    assert len(natural_errors(samples, per_cell=10)) == 10 * len(EARLY)


def test_final_errors_are_samples_up_to_their_first_wrong_reply(samples):
    pairs = natural_final_errors(samples)
    cells = Counter((pair.num_turns, pair.error_turn) for pair in pairs)
    assert set(cells) == set(FINAL) and len(set(cells.values())) == 1 and len(pairs) > 200
    for pair in pairs:
        assert pair.rejected == samples[pair.seed][: 2 * pair.error_turn]
        assert wrong_turns(pair.rejected) == [pair.num_turns] and wrong_turns(pair.chosen) == []
        assert pair.chosen[:-1] == pair.rejected[:-1]
    assert auc(pairs, lengths) == pytest.approx(0.5, abs=0.05)
    assert len(natural_final_errors(samples, per_cell=10)) == 40


def test_what_can_not_be_understood_is_left_out():
    user, reply = {"role": "user", "content": "Tell me a joke."}, {"role": "assistant", "content": "a b"}
    sorted_list = [{"role": "user", "content": "Sort b a."}, {"role": "assistant", "content": "a b"}]
    assert natural_errors([[user, reply, *sorted_list, *sorted_list]]) == []


def test_preferences_are_the_judges(samples):
    rows = natural_preferences([*samples[:300], *(conversation(seed, 4) for seed in range(20))])
    twice = natural_preferences([one for seed in range(300) for one in (sample(seed), right(seed))])
    assert len(twice) > 80
    assert all(compare(row["chosen"], row["rejected"]) is Verdict.A for row in [*rows, *twice])
    assert all(row["chosen"][0] == row["rejected"][0] for row in twice)


def right(seed):
    return conversation(seed, len(sample(seed)) // 2, split="suites")


def test_error_rates_are_counted_by_turn():
    wrong = [{"role": "user", "content": "Sort b a."}, {"role": "assistant", "content": "b a"}]
    strange = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "b a"}]
    assert error_rates([wrong, [*wrong, *strange], strange]) == {
        1: {"right": 0, "wrong": 2, "not_understood": 1},
        2: {"right": 0, "wrong": 0, "not_understood": 1},
    }
