"""Two branches laid side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from music_ray import schema
from music_ray.report.reading import (
    few_of_each_reason,
    first_by_hash,
    pair_ids,
    read_pair,
    read_pairs,
    read_refused,
    read_rollout,
    refusals,
)
from music_ray.rundir import RunDir
from tests.report.report_folder import CONTEXT, make_pair, make_rollout, say


def test_shared_beginning_is_kept_once_and_turns_are_aligned() -> None:
    reading = read_pair(make_pair(1))
    assert reading.parting_turn == 2
    assert reading.shared == say(*CONTEXT[:2])
    assert [turn.number for turn in reading.turns] == [2, 3]
    parting, after = reading.turns
    assert parting.shared == say(CONTEXT[2])
    assert [one["content"] for one in parting.rejected] == ["Store it in a glass jar. "]
    assert after.shared == []
    assert [one["role"] for one in after.chosen] == ["user", "assistant"]
    assert after.rejected[0]["content"] == "But how long on the stove? "


def test_contrast_turns_count_from_the_branch_turn() -> None:
    """Generated turns 3 and 5 of a pair that branches at conversation turn 2 are turns 2 and 4."""
    pair = make_pair(1)
    first, second = pair.contrasts
    pair = replace(pair, contrasts=[replace(first, turn=3), replace(second, turn=4)])
    reading = read_pair(pair)
    assert reading.spoiled_turns == [2, 3]
    assert reading.turns[1].contrast is not None
    assert reading.turns[1].contrast.instruction == "How long does a jar keep? "


def test_a_turn_that_was_not_spoiled_has_no_contrast() -> None:
    pair = make_pair(1)
    reading = read_pair(replace(pair, contrasts=pair.contrasts[:1]))
    assert reading.spoiled_turns == [2]
    assert reading.turns[1].contrast is None


def test_a_difference_before_the_recorded_branch_turn_is_not_hidden() -> None:
    reading = read_pair(replace(make_pair(1), branch_turn=3))
    assert reading.parting_turn == 2
    assert reading.spoiled_turns == [3]


def test_sides_of_unequal_length_are_both_shown() -> None:
    pair = make_pair(1)
    reading = read_pair(replace(pair, rejected=pair.rejected[:4]))
    assert reading.turns[1].rejected == []
    assert len(reading.turns[1].chosen) == 2


def test_a_pair_without_contrasts_is_read() -> None:
    reading = read_pair(replace(make_pair(1), contrasts=[]))
    assert reading.spoiled_turns == []


def test_refused_rollout_with_equal_branches_still_shows_its_contrast() -> None:
    rollout = make_rollout(4)
    reading = read_rollout(replace(rollout, rejected=rollout.chosen), "branches_equal", "turn 1")
    assert reading.parting_turn == 2
    assert reading.spoiled_turns == [2, 3]
    assert reading.turns[0].shared == say(CONTEXT[2])
    assert (reading.reason, reading.detail) == ("branches_equal", "turn 1")


def test_error_row_shows_its_context_alone() -> None:
    reading = read_rollout(
        make_rollout(6, status="error", reason="contrast_unparsed"), "contrast_unparsed", ""
    )
    assert reading.parting_turn == 0
    assert reading.shared == say(*CONTEXT)
    assert reading.turns == []
    assert reading.num_turns == 2


def test_every_reason_comes_before_any_reason_twice() -> None:
    rows = [{"id": number, "reason": reason} for number, reason in enumerate("aaaabbc")]
    assert [row["reason"] for row in few_of_each_reason(rows, 5)] == ["a", "b", "c", "a", "b"]
    assert few_of_each_reason(rows, 5) == few_of_each_reason(rows[::-1], 5)
    assert few_of_each_reason([], 5) == []


def test_sample_does_not_depend_on_the_order() -> None:
    ids = [f"music-{number}" for number in range(50)]
    assert first_by_hash(ids, 3) == first_by_hash(ids[::-1], 3)
    assert set(first_by_hash(ids[:40], 40)) == set(ids[:40])


def test_rows_are_read_from_the_folder(run: RunDir) -> None:
    assert sorted(pair_ids(run)) == ["music-1", "music-2", "music-3"]
    assert [one.id for one in read_pairs(run, ["music-3", "nobody", "music-1"])] == ["music-3", "music-1"]
    refused = read_refused(run, [*refusals(run), {"id": 99, "reason": "gone"}])
    assert [(one.id, one.reason) for one in refused] == [
        ("4", "looping"),
        ("5", "cut_off"),
        ("6", "contrast_unparsed"),
    ]


def test_of_an_id_in_two_shards_the_first_row_counts(run: RunDir) -> None:
    again = replace(make_rollout(4), source="second shard")
    run.write_table(schema.to_table([again], schema.ROLLOUT_SCHEMA), "rollouts", "shards", "b.parquet")
    assert read_refused(run, [{"id": 4, "reason": "looping"}])[0].source == "kitchen "


def test_an_empty_folder_has_nothing_to_read(make_run: Callable[..., RunDir]) -> None:
    run = make_run()
    assert (pair_ids(run), refusals(run), read_pairs(run, ["music-1"])) == ([], [], [])
