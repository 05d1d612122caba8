"""The mix stage: what is trained on, what is held out, and that nothing is in both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from music_ray.errors import StageError
from music_ray.generate.mix import held_out_conversations, run_mix
from music_ray.generate.pairs import run_pairs
from music_ray.generate.seeds import run_seeds
from music_ray.rundir import RunDir
from music_ray.schema import (
    MARGIN_PAIR_SCHEMA,
    PAIR_SCHEMA,
    Rollout,
    conversation_hash,
    pair_from_row,
    to_table,
)

MakeRun = Callable[..., RunDir]


COUNTS = {
    "preferences": 30,
    "music": 21,
    "held_out_preferences": 14,
    "held_out_music": 11,
    "preferences_left_out": 16,
    "duplicates": 0,
}
"""Of 60 pairs of D and 32 rollouts, with mix.held_out_fraction=0.3."""


def pair_row(number: int, suffix: str = "") -> dict[str, Any]:
    opening = {"role": "user", "content": f"Question {number}?"}
    return {
        "id": f"d-{number}{suffix}",
        "chosen": [opening, {"role": "assistant", "content": f"Good{suffix}."}],
        "rejected": [opening, {"role": "assistant", "content": f"Bad{suffix}."}],
    }


@pytest.fixture
def prepare(
    make_run: MakeRun,
    write_jsonl: Callable[..., str],
    make_rollout: Callable[..., Rollout],
    write_shard: Callable[..., None],
) -> Callable[..., RunDir]:
    """prepare(mix={…}): a run with 60 pairs of D on 40 conversations and a rollout for every seed."""
    rows = [*(pair_row(number) for number in range(40)), *(pair_row(number, "-b") for number in range(20))]
    path = write_jsonl(*rows)

    def make(rejected: str | None = None, **sections: Any) -> RunDir:
        run = make_run(
            data={"sources": [{"path": path}], "held_out_fraction": 0.2},
            pairs={"gates": {"near_duplicate": False}},  # the rollouts below differ in a number alone
            **sections,
        )
        run_seeds(run)
        rollouts = [
            make_rollout(
                seed["id"],
                rejected=None if rejected is None else ["A first answer.", "And then?", rejected],
                conversation=seed["conversation"],
            )
            for seed in run.read_rows("seeds", "contexts")
        ]
        write_shard(run, "0001-a", rollouts)
        run_pairs(run)
        return run

    return make


def train_of(run: RunDir) -> list[dict[str, Any]]:
    files = [path for path in run.parquet_files("mix") if "/held_out/" not in path]
    rows = []
    for path in files:
        with run.open_parquet(path) as file:
            rows += file.read().to_pylist()
    return rows


def suite_of(run: RunDir, name: str) -> list[dict[str, Any]]:
    return [
        row for row in run.read_rows("mix", "held_out") if (row["origin"] == "D") == (name == "preferences")
    ]


def test_d_and_music_are_joined_and_the_suites_written(prepare: Callable[..., RunDir]) -> None:
    run = prepare(mix={"held_out_fraction": 0.3})
    result = run_mix(run)
    assert result["counts"] == COUNTS
    assert result["notes"] == []
    assert sorted(
        str(path.relative_to(run.path("mix"))) for path in Path(run.path("mix")).rglob("*.parquet")
    ) == [
        "held_out/music.parquet",
        "held_out/preferences.parquet",
        "train-00000-of-00001.parquet",
    ]
    train = train_of(run)
    assert len(train) == COUNTS["preferences"] + COUNTS["music"]
    assert len(suite_of(run, "music")) == COUNTS["held_out_music"]
    assert len(suite_of(run, "preferences")) == COUNTS["held_out_preferences"]
    assert all(pair_from_row(row).id == row["id"] for row in train)
    assert not run.exists(".mix-new")


def test_no_conversation_is_trained_on_and_evaluated_on(prepare: Callable[..., RunDir]) -> None:
    run = prepare(mix={"held_out_fraction": 0.3})
    run_mix(run)
    train = {row["conversation"] for row in train_of(run)}
    held_out = {row["conversation"] for row in run.read_rows("mix", "held_out")}
    assert train and held_out and not train & held_out
    assert {row["conversation"] for row in suite_of(run, "music")} == held_out_conversations(run)
    # A conversation is what conversation_hash says, in the text as well as in the column.
    assert all(
        row["conversation"] == conversation_hash(row["chosen"])
        for row in train_of(run)
        if row["origin"] == "D"
    )


def test_the_order_is_mixed_and_the_same_every_time(prepare: Callable[..., RunDir]) -> None:
    run = prepare()
    first = run_mix(run)
    origins = [row["origin"] for row in train_of(run)]
    assert origins != sorted(origins) and origins != sorted(origins, reverse=True)
    before = [row["id"] for row in train_of(run)]
    assert run_mix(run) == first
    assert [row["id"] for row in train_of(run)] == before


def test_the_baseline_trains_on_the_same_part_of_d(prepare: Callable[..., RunDir]) -> None:
    with_music = prepare(name="a", mix={"held_out_fraction": 0.3})
    baseline = prepare(name="b", mix={"held_out_fraction": 0.3, "include_music": False})
    run_mix(with_music)
    counts = run_mix(baseline)["counts"]
    assert (counts["music"], counts["held_out_music"]) == (0, COUNTS["held_out_music"])
    assert [row["id"] for row in train_of(baseline)] == [
        row["id"] for row in train_of(with_music) if row["origin"] == "D"
    ]
    baseline.clear("pairs")
    again = run_mix(baseline)["counts"]
    assert (again["preferences"], again["held_out_music"]) == (counts["preferences"], 0)


def test_music_alone(prepare: Callable[..., RunDir]) -> None:
    run = prepare(mix={"include_preferences": False})
    counts = run_mix(run)["counts"]
    assert counts["preferences"] == 0 and counts["music"] > 0
    assert {row["origin"] for row in train_of(run)} == {"D_MUSIC"}


def test_margins_of_d_come_along_and_only_then_is_there_a_column(prepare: Callable[..., RunDir]) -> None:
    run = prepare(mix={"held_out_fraction": 0.3})
    output = run_mix(run)["output"]
    assert all("margin" not in row for row in [*train_of(run), *run.read_rows("mix", "held_out")])
    for part in ("train", "held_out"):
        rows = [pair_from_row(row) for row in run.read_rows("seeds", "preferences", part)]
        with_margins = [replace(pair, margin=float(pair.id.split("-")[1])) for pair in rows]
        table = to_table(with_margins, MARGIN_PAIR_SCHEMA)
        run.write_table(table, "seeds", "preferences", part, "part-00000.parquet")
    assert run_mix(run)["output"] != output
    for row in [*train_of(run), *run.read_rows("mix", "held_out")]:
        margin = float(row["id"].split("-")[1]) if row["origin"] == "D" else None
        assert row.get("margin") == margin


def test_seeds_of_an_older_version_have_no_margins(prepare: Callable[..., RunDir]) -> None:
    run = prepare()
    expected = run_mix(run)
    for part in ("train", "held_out"):
        rows = [pair_from_row(row) for row in run.read_rows("seeds", "preferences", part)]
        version_2 = PAIR_SCHEMA.with_metadata(PAIR_SCHEMA.metadata | {b"music_ray.version": b"2"})
        run.write_table(to_table(rows, version_2), "seeds", "preferences", part, "part-00000.parquet")
    assert run_mix(run) == expected
    assert all("margin" not in row for row in train_of(run))


def test_an_id_is_taken_once(prepare: Callable[..., RunDir]) -> None:
    run = prepare()
    before = run_mix(run)["counts"]
    rows = list(run.read_rows("seeds", "preferences", "train"))[:3]
    table = to_table([pair_from_row(row) for row in rows], PAIR_SCHEMA)
    run.write_table(table, "seeds", "preferences", "train", "part-00001.parquet")
    result = run_mix(run)
    left = sum(row["conversation"] in held_out_conversations(run) for row in rows)
    assert result["counts"]["duplicates"] == 3 - left
    assert result["counts"]["preferences"] == before["preferences"]
    assert result["notes"][-1] == f"{3 - left} pairs had the id of another pair and were left out"


def refusal(run: RunDir) -> str:
    with pytest.raises(StageError) as error:
        run_mix(run)
    assert error.value.exit_code == 3
    return str(error.value)


def test_no_music_pair_names_the_gates(prepare: Callable[..., RunDir]) -> None:
    run = prepare(rejected="<|im_end|>")
    count = len(list(run.read_rows("seeds", "contexts")))
    assert refusal(run) == (
        f"no MUSIC pair to mix in: {count} rollouts were refused (template_leak {count}); read "
        f"{run.display('pairs', 'gates.jsonl')}, then change the model, the prompts or pairs.gates, or set "
        "mix.include_music=false"
    )
    run.clear("pairs")
    assert f"{run.display('pairs')} is empty, run `music-ray pairs` first" in refusal(run)


def test_all_music_pairs_held_out_is_refused(prepare: Callable[..., RunDir]) -> None:
    run = prepare(mix={"held_out_fraction": 0.999999})
    count = len(list(run.read_rows("pairs", columns=["id"])))
    assert refusal(run) == (
        f"all {count} MUSIC pairs are held out (mix.held_out_fraction is 0.999999): lower it, or make "
        "more seeds"
    )


def test_nothing_of_d_left_is_refused(prepare: Callable[..., RunDir]) -> None:
    run = prepare(mix={"held_out_fraction": 0.999999, "include_music": False})
    assert refusal(run).startswith("no pair of D is left to train on (")


def test_without_seeds_the_stage_says_what_to_run(make_run: MakeRun) -> None:
    run = make_run()
    assert refusal(run) == f"no preference pairs in {run.display('seeds')}: run `music-ray seeds` first"


def test_no_held_out_music_is_a_note(prepare: Callable[..., RunDir]) -> None:
    run = prepare(mix={"held_out_fraction": 0.000001})
    assert run_mix(run)["notes"] == [
        "no MUSIC pair is held out (mix.held_out_fraction is 1e-06): raise it to evaluate on MUSIC pairs"
    ]
