"""The suites hold what they promise, and nothing that can be counted tells their sides apart."""

from collections import Counter, defaultdict

import pytest

from music_ray.miniature.check import examine, wrong_turns
from music_ray.miniature.language import COMPLAINTS, CONTENT
from music_ray.miniature.mistakes import OUTSIDE_CONTRAST
from music_ray.miniature.parts import seeds
from music_ray.miniature.place import is_sound, reply_at
from music_ray.miniature.reading import parse
from music_ray.miniature.suites import CHOICES, EARLY, FINAL, LONG, SUITES, build, counts, replies
from music_ray.replicate.shortcuts import lengths, likeness_features, reply_features, user_features
from tests.miniature.surface import auc

SIZE = 1_000
CELLS = {"S4": CHOICES, "S4_control": CHOICES, "S5": LONG, "S7": FINAL}
MIRRORED = ("S1", "S4", "S5", "S6", "S6_control")


@pytest.fixture(scope="module")
def suites():
    return {name: build(name, SIZE) for name in SUITES}


@pytest.mark.parametrize("name", SUITES)
def test_exactly_one_reply_is_wrong_and_the_final_one_is_right(suites, name):
    for pair in suites[name]:
        assert wrong_turns(pair.chosen) == []
        assert wrong_turns(pair.rejected) == [pair.error_turn]
        assert is_sound(pair.chosen) and is_sound(pair.rejected)
        at = reply_at(pair.error_turn)
        assert pair.chosen[:at] == pair.rejected[:at]
        if not name.startswith("S6"):
            assert pair.chosen[::2] == pair.rejected[::2]
        if name != "S7":
            assert pair.error_turn < pair.num_turns


@pytest.mark.parametrize("name", SUITES)
def test_error_positions_are_balanced(suites, name):
    cells = CELLS.get(name, EARLY)
    found = Counter((pair.num_turns, pair.error_turn) for pair in suites[name])
    assert set(found) == set(cells)
    assert len(set(found.values())) == 1
    assert SIZE <= len(suites[name]) <= SIZE + 2 * len(cells)


@pytest.mark.parametrize("name", SUITES)
def test_lengths_are_exchangeable_exactly(suites, name):
    found = defaultdict(Counter)
    for pair in suites[name]:
        cell = (pair.num_turns, pair.error_turn)
        found[cell][counts(pair.chosen, pair.rejected)] += 1
    for cell in found.values():
        assert all(cell[mirror, count] == number for (count, mirror), number in cell.items())


@pytest.mark.parametrize("name", MIRRORED)
def test_every_reply_text_stands_as_often_on_either_side(suites, name):
    by_seed = defaultdict(list)
    for pair in suites[name]:
        by_seed[pair.seed].append(pair)
    for pairs in by_seed.values():
        assert len(pairs) == 2
        if name == "S4":
            first, second = (
                {tuple(replies(side)) for side in (pair.chosen, pair.rejected)} for pair in pairs
            )
            assert {replies_at(pairs[0], "chosen"), replies_at(pairs[0], "rejected")} == {
                replies_at(pairs[1], "chosen"),
                replies_at(pairs[1], "rejected"),
            }
            assert first != second
        else:
            assert replies(pairs[0].chosen) == replies(pairs[1].rejected)
            assert replies(pairs[0].rejected) == replies(pairs[1].chosen)


def replies_at(pair, side):
    return getattr(pair, side)[reply_at(pair.error_turn)]["content"]


@pytest.mark.parametrize("name", SUITES)
def test_lengths_alone_are_a_coin(suites, name):
    assert auc(suites[name], lengths) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("name", MIRRORED)
def test_replies_without_requests_are_a_coin_where_they_are_mirrored(suites, name):
    assert auc(suites[name], reply_features) == pytest.approx(0.5, abs=0.04 if name == "S4" else 0.01)


@pytest.mark.parametrize(("name", "bound"), [("S3", 0.64), ("S7", 0.58)])
def test_replies_without_requests_tell_little_elsewhere(suites, name, bound):
    assert auc(suites[name], reply_features) < bound


@pytest.mark.parametrize("name", [name for name in SUITES if not name.startswith("S6")])
def test_users_say_the_same_on_both_sides(suites, name):
    assert auc(suites[name], user_features) == 0.5


@pytest.mark.parametrize(("name", "of_chosen"), [("S6", COMPLAINTS), ("S6_control", CONTENT)])
def test_moods_go_against_the_replies_and_with_them_in_the_control(suites, name, of_chosen):
    of_rejected = CONTENT if of_chosen is COMPLAINTS else COMPLAINTS
    for pair in suites[name]:
        after = reply_at(pair.error_turn) + 1
        moods = [parse(side[after]["content"]).mood for side in (pair.chosen, pair.rejected)]
        assert of_chosen.index(moods[0]) == of_rejected.index(moods[1])
        assert len(pair.chosen[after]["content"].split()) == len(pair.rejected[after]["content"].split())
        rest = [number for number in range(0, 2 * pair.num_turns, 2) if number != after]
        assert [pair.chosen[number] for number in rest] == [pair.rejected[number] for number in rest]
    assert auc(suites[name], user_features) == 1.0


def test_errors_outside_contrast_come_in_all_kinds(suites):
    kinds = Counter(pair.mistake for pair in suites["S3"])
    assert set(kinds) == set(OUTSIDE_CONTRAST)
    assert min(kinds.values()) > SIZE / 30
    final = Counter(pair.mistake for pair in suites["S7"])
    assert final["contrast"] > 0.4 * SIZE
    assert final["self_contradiction"] > 0


def test_contradicting_replies_are_each_right_alone(suites):
    for pair in suites["S4"]:
        at = reply_at(pair.error_turn)
        alone = [pair.rejected[at - 1], pair.rejected[at]]
        constraint = parse(pair.rejected[0]["content"]).constraint
        turn = examine(pair.rejected)[pair.error_turn - 1]
        assert pair.operation == "favourite"
        if constraint is None:
            assert wrong_turns(alone) == []
        assert turn.reply not in turn.expectation.options


def test_repeating_a_choice_is_wrong_in_the_control(suites):
    for pair in suites["S4_control"]:
        at = reply_at(pair.error_turn)
        assert pair.rejected[at]["content"] in replies(pair.rejected[:at])
    assert auc(suites["S4"], likeness_features) > 0.95
    assert auc(suites["S4_control"], likeness_features) > 0.95  # by the opposite sign


def test_a_suite_is_a_function_of_its_run():
    again, other = (build("S3", 60, run=run) for run in (0, 1))
    assert [pair.row() for pair in again] == [pair.row() for pair in build("S3", 60)]
    assert {pair.seed for pair in again}.isdisjoint(pair.seed for pair in other)
    dev = build("S3", 60, dev=True)
    assert {pair.seed for pair in dev}.isdisjoint(pair.seed for pair in again)
    assert {pair.suite for pair in dev} == {"S3"}


def test_rows_have_ids_of_their_own(suites):
    rows = [pair.row() for pairs in suites.values() for pair in pairs]
    assert len({row["id"] for row in rows}) == len(rows)
    assert list(rows[0]) == [
        "id", "source", "seed", "num_turns", "error_turn", "mistake", "operation", "chosen", "rejected",
    ]  # fmt: skip


def test_what_is_no_suite_is_refused():
    with pytest.raises(
        ValueError, match="no suite 'S9': one of S1, S3, S4, S4_control, S5, S6, S6_control, S7, S2"
    ):
        build("S9")
    with pytest.raises(ValueError, match=r"S2 is made of a language model's samples"):
        build("S2")


@pytest.mark.slow
def test_five_thousand_pairs_are_made_of_few_conversations(monkeypatch):
    tried = 0

    def counted(*where):
        nonlocal tried
        for seed in seeds(*where):
            tried += 1
            yield seed

    monkeypatch.setattr("music_ray.miniature.suites.seeds", counted)
    assert len(build("S3")) == 5_000  # the one that takes most
    assert tried <= 30_000  # 24,307 when this was written
