"""What stands in D_MUSIC's place in each arm, made from run folders as the stages leave them."""

import functools
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from music_ray.chat import ChatFormat
from music_ray.config import RunConfig
from music_ray.errors import StageError
from music_ray.judge.verdict import Verdict
from music_ray.miniature.check import compare, wrong_turns
from music_ray.miniature.mistakes import OUTSIDE_CONTRAST, mistaken
from music_ray.miniature.place import reply_at, spoil
from music_ray.miniature.preferences import write_rows
from music_ray.miniature.split_gate import first_foreign_list
from music_ray.miniature.word_tokenizer import make_tokenizer
from music_ray.miniature.world import Split, conversation, split_of
from music_ray.replicate.arms import tokens_a_pair, write_arms
from music_ray.replicate.rollouts import PLAIN_RUNS, Recipe
from music_ray.replicate.scale import ARMS, SMOKE
from music_ray.replicate.world import PREFERENCES, write_world
from music_ray.rundir import RunDir
from music_ray.schema import PAIR_SCHEMA, ROLLOUT_SCHEMA, Message, content_id, count_user_turns, to_table
from tests.report.report_folder import make_pair, make_rollout

SEEDS = range(1, 211)
ID = {seed: content_id(["seed", seed]) for seed in SEEDS}
"""As seeds have them: hashes."""
IN_ORDER = sorted(SEEDS, key=lambda seed: ID[seed])
COMMON = [seed for seed in IN_ORDER if seed % 7 and seed % 5]
"""Of every seventh the run music has no pair, of every fifth the run last."""
MUSIC = 120
ALL = 420
"""More than any arm has pairs."""
ERROR, SHORT, FOREIGN, EQUAL = (range(start, 211, 20) for start in (1, 2, 3, 4))
"""Seeds of which plain-2 holds no sample, one of 3 turns, one with a list of the suites, and music's own."""

Row = dict[str, Any]
Runs = dict[str, RunDir]


@functools.cache
def said(seed: int, run: str, first: int = 0) -> list[Message]:
    """What a careless model says in a run: the same request as in every run, one reply perhaps wrong."""
    rng = random.Random(f"{run} {seed}")
    messages = conversation(first + seed, 4)
    turn = rng.randint(1, 4)
    reply = mistaken(rng.choice(OUTSIDE_CONTRAST), messages, turn, rng)
    return messages if reply is None else spoil(messages, turn, reply)


def with_list(messages: list[Message], split: Split) -> list[Message]:
    """The conversation whose last message is about a list of this split."""
    letters = next(one for one in ("abd", "abe", "abf", "abg", "abh", "abi", "abj") if split_of(one) == split)
    reply = " ".join(reversed(letters))
    last: list[Message] = [
        {"role": "user", "content": f"Reverse {' '.join(letters)}."},
        {"role": "assistant", "content": reply},
    ]
    return [*messages[:-2], *last]


def run_folder(folder: Path, name: str, rollouts: dict[int, Row], pairs: dict[int, Row]) -> RunDir:
    """A run with rollouts in two shards and accepted pairs, both in no order."""
    run = RunDir(RunConfig(name=name, runs_dir=str(folder / "rollouts")))
    rows = [replace(make_rollout(seed), id=ID[seed], **values) for seed, values in rollouts.items()]
    random.Random(name).shuffle(rows)
    for number in range(2):
        table = to_table(rows[number::2], ROLLOUT_SCHEMA)
        run.write_table(table, "rollouts", "shards", f"e0001-{number}.parquet")
    accepted = [
        replace(make_pair(seed), id=f"{name}-{seed}", seed_id=ID[seed], **values)
        for seed, values in pairs.items()
    ]
    random.Random(name).shuffle(accepted)
    run.write_table(to_table(accepted, PAIR_SCHEMA), "pairs", "train-00000-of-00001.parquet")
    return run


def contrast(seed: int, name: str, first: int = 0) -> Row:
    """Both sides of a seed in music or last: in last they part at turn 4."""
    chosen = said(seed, name, first)
    return {"chosen": chosen, "rejected": spoil(chosen, 4 if name == "last" else 1 + seed % 4, "c c c")}


def make_runs(folder: Path, first: int = 0) -> Runs:
    """The runs of a replication; `first` gives the same seeds other conversations."""
    runs = {}
    for name, missing in (("music", 7), ("last", 5)):
        rollouts = {seed: contrast(seed, name, first) for seed in SEEDS}
        pairs = {seed: values for seed, values in rollouts.items() if seed % missing}
        runs[name] = run_folder(folder, name, rollouts, pairs)
    for name in PLAIN_RUNS:
        rollouts = {seed: {"chosen": said(seed, name, first), "rejected": []} for seed in SEEDS}
        if name == "plain-2":
            for seed in ERROR:
                rollouts[seed]["status"] = "error"
            for seed in SHORT:
                rollouts[seed]["chosen"] = rollouts[seed]["chosen"][:-2]
            for seed in FOREIGN:
                rollouts[seed]["chosen"] = with_list(rollouts[seed]["chosen"], "suites")
            for seed in EQUAL:
                rollouts[seed]["chosen"] = said(seed, "music", first)
        runs[name] = run_folder(folder, name, rollouts, {})
    return runs


def recipe_of(folder: Path, arms: tuple[str, ...] = ARMS, music: int = MUSIC) -> Recipe:
    scale = replace(SMOKE, arms=arms, preferences=40, music=music, suites=())
    recipe = Recipe(folder, {}, scale)
    write_world(recipe.world, scale)
    return recipe


def arms_of(recipe: Recipe, runs: Runs) -> dict[str, list[Row]]:
    """The rows of every arm, whose rollouts are these."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("music_ray.replicate.arms.rollouts", lambda _, name: runs[name])
        files = write_arms(recipe)
    return {arm: pq.read_table(file).to_pylist() for arm, file in files.items()}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return make_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("replication")


@pytest.fixture(scope="module")
def arms(folder: Path, runs: Runs) -> dict[str, list[Row]]:
    return arms_of(recipe_of(folder), runs)


def sides(row: Row) -> tuple[list[Message], list[Message]]:
    return row["chosen"], row["rejected"]


def test_every_arm_has_as_many_pairs_and_its_name_as_their_source(arms: dict[str, list[Row]]) -> None:
    assert {arm: len(rows) for arm, rows in arms.items()} == dict.fromkeys(ARMS, MUSIC)
    assert all({row["source"] for row in rows} == {arm} for arm, rows in arms.items())


@pytest.mark.parametrize("arm", ARMS)
def test_no_pair_stands_in_an_arm_twice(arms: dict[str, list[Row]], arm: str) -> None:
    assert len({row["id"] for row in arms[arm]}) == MUSIC
    assert len({str(sides(row)) for row in arms[arm]}) == MUSIC


def test_more_final_turns_for_the_baseline(folder: Path, arms: dict[str, list[Row]]) -> None:
    of_d = pq.read_table(folder / "world" / PREFERENCES).to_pylist()
    assert {str(sides(row)) for row in arms["A0"]}.isdisjoint(str(sides(row)) for row in of_d)
    for chosen, rejected in map(sides, arms["A0"]):
        assert count_user_turns(chosen) == 4
        assert chosen[:-1] == rejected[:-1]
        assert (wrong_turns(chosen), wrong_turns(rejected)) == ([], [4])


def test_pairs_of_the_seeds_that_have_one_in_both_runs(arms: dict[str, list[Row]]) -> None:
    for arm, run in (("A1", "music"), ("A2", "last")):
        assert [row["id"] for row in arms[arm]] == [f"seed-{ID[seed]}" for seed in COMMON[:MUSIC]]
        for seed, row in zip(COMMON, arms[arm], strict=False):
            assert {side: row[side] for side in ("chosen", "rejected")} == contrast(seed, run)


def test_without_the_last_turn_s_arm_every_pair_of_music_counts(tmp_path: Path, runs: Runs) -> None:
    rows = arms_of(recipe_of(tmp_path, ("A1",), ALL), runs)["A1"]
    assert [row["id"] for row in rows] == [f"seed-{ID[seed]}" for seed in IN_ORDER if seed % 7]


def exchanged(arms: dict[str, list[Row]]) -> set[str]:
    """Ids of the pairs of A3 that are A1's the other way round; the others are A1's."""
    found = set()
    for one, other in zip(arms["A1"], arms["A3"], strict=True):
        assert one["id"] == other["id"]
        assert sides(other) in (sides(one), sides(one)[::-1])
        if sides(other) != sides(one):
            found.add(one["id"])
    return found


def test_half_of_the_labels_are_flipped_by_their_ids_alone(
    tmp_path: Path, arms: dict[str, list[Row]]
) -> None:
    found = exchanged(arms)
    assert 0.4 * MUSIC < len(found) < 0.6 * MUSIC
    others = arms_of(recipe_of(tmp_path, ("A1", "A3")), make_runs(tmp_path, first=10_000))
    assert [row["chosen"] for row in others["A1"]] != [row["chosen"] for row in arms["A1"]]
    ids = {row["id"] for row in others["A1"]}
    assert len(ids) == MUSIC
    shared = ids & {row["id"] for row in arms["A1"]}
    assert len(shared) > 80  # without A2 more seeds count
    assert exchanged(others) & shared == found & shared


def test_the_placebo_holds_plain_samples_in_arbitrary_order(tmp_path: Path, runs: Runs) -> None:
    rows = arms_of(recipe_of(tmp_path, ("A4",), ALL), runs)["A4"]
    left_out = {*ERROR, *SHORT, *FOREIGN, *EQUAL}
    by_chance = {seed for seed in SEEDS if said(seed, "music") == said(seed, "plain-2")}
    seeds = [seed for seed in IN_ORDER if seed not in left_out | by_chance]
    assert [row["id"] for row in rows] == [f"plain-{ID[seed]}" for seed in seeds]
    music_is_chosen = 0
    for seed, row in zip(seeds, rows, strict=True):
        plain = (said(seed, "music"), said(seed, "plain-2"))
        assert plain[0] != plain[1]
        assert sides(row) in (plain, plain[::-1])
        music_is_chosen += sides(row) == plain
    assert 0.4 * len(rows) < music_is_chosen < 0.6 * len(rows)


def test_a_foreign_reply_stands_in_one_early_turn(arms: dict[str, list[Row]]) -> None:
    places = Counter()
    for chosen, rejected in map(sides, arms["A5"]):
        [at] = [at for at in range(8) if chosen[at] != rejected[at]]
        places[at] += 1
        assert wrong_turns(chosen) == []
    assert places == {reply_at(turn): MUSIC // 3 for turn in (1, 2, 3)}


def test_natural_pairs_are_labelled_by_the_exact_judge(arms: dict[str, list[Row]]) -> None:
    samples = {name: {str(said(seed, name)) for seed in SEEDS} for name in ("music", *PLAIN_RUNS)}
    for chosen, rejected in map(sides, arms["A6"]):
        assert compare(chosen, rejected) is Verdict.A
        assert chosen[0] == rejected[0]
        assert {str(chosen), str(rejected)} <= set.union(*samples.values())
    # Whichever come first in the arm, they are of all runs.
    first = {str(side) for row in arms["A6"][:40] for side in sides(row)}
    for name, found in samples.items():
        others = set.union(*(one for other, one in samples.items() if other != name))
        assert len(first & (found - others)) > 3


@pytest.mark.parametrize("arm", ["A4", "A6"])
def test_samples_with_a_list_of_the_suites_are_left_out(tmp_path: Path, runs: Runs, arm: str) -> None:
    ids = {ID[seed] for seed in FOREIGN}
    foreign = [row["chosen"] for row in runs["plain-2"].read_rows("rollouts") if row["id"] in ids]
    assert {first_foreign_list(one, "train") != "" for one in foreign} == {True}
    for row in arms_of(recipe_of(tmp_path, (arm,), ALL), runs)[arm]:
        assert [first_foreign_list(side, "train") for side in sides(row)] == ["", ""]


def test_all_arms_get_as_many_as_the_least_and_that_is_said(
    tmp_path: Path, runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    arms = arms_of(recipe_of(tmp_path, ("A0", "A1", "A2"), 200), runs)
    assert {arm: len(rows) for arm, rows in arms.items()} == dict.fromkeys(("A0", "A1", "A2"), 144)
    assert len(COMMON) == 144
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("arms:")]
    assert lines == [
        "arms: A1 has 144 pairs and not 200; all arms get 144",
        "arms: A2 has 144 pairs and not 200; all arms get 144",
        "arms: 144 pairs each of A0 200, A1 144, A2 144",
    ]


def test_an_arm_without_a_pair_stops_it(tmp_path: Path, runs: Runs) -> None:
    refused = run_folder(tmp_path, "last", {}, {})
    recipe = recipe_of(tmp_path, ("A0", "A1", "A2", "A3"))
    with pytest.raises(StageError) as caught:
        arms_of(recipe, runs | {"last": refused})
    assert str(caught.value) == f"no pair for A1, A2, A3: read {tmp_path}/rollouts/*/manifest.json"
    assert not (tmp_path / "arms-data").exists()


def test_samples_that_are_all_right_give_the_judge_no_pair(tmp_path: Path) -> None:
    rollouts = {seed: {"chosen": conversation(seed, 4), "rejected": []} for seed in range(1, 20)}
    alike = {name: run_folder(tmp_path, name, rollouts, {}) for name in ("music", *PLAIN_RUNS)}
    recipe = recipe_of(tmp_path, ("A0", "A4", "A5", "A6"))
    with pytest.raises(StageError, match="no pair for A4, A6: read "):
        arms_of(recipe, alike)


def test_what_is_there_is_not_made_again(folder: Path, arms: dict[str, list[Row]]) -> None:
    assert arms_of(recipe_of(folder), {}) == arms  # no run is asked for


def test_tokens_are_those_of_the_chat_template(tmp_path: Path, arms: dict[str, list[Row]]) -> None:
    chat = ChatFormat.of(make_tokenizer())
    rows = [{side: row[side] for side in ("chosen", "rejected")} for row in arms["A6"][:20]]
    write_rows(rows, tmp_path / "pairs.parquet")
    lengths = [len(chat.conversation_ids(side)) for row in rows for side in sides(row)]
    assert tokens_a_pair({"A0": [tmp_path / "pairs.parquet"]}) == {"A0": round(sum(lengths) / 20, 2)}


def test_ablations_have_the_pairs_of_their_own_run(tmp_path: Path, runs: Runs) -> None:
    rows = arms_of(recipe_of(tmp_path, ("A1", "mode-resample")), runs | {"mode-resample": runs["last"]})
    (last,) = [arms_of(recipe_of(tmp_path / "last", ("A2",)), runs)]
    by_id = {row["id"]: sides(row) for row in rows["mode-resample"]}
    common = [row for row in last["A2"] if row["id"] in by_id]
    assert len(common) > 80 and all(by_id[row["id"]] == sides(row) for row in common)
    assert len(rows["A1"]) == len(rows["mode-resample"]) == MUSIC


@pytest.mark.parametrize(("arm", "share"), [("share-half", 0.5), ("share-quarter", 0.25)])
def test_a_share_of_music_s_pairs_among_final_turn_pairs(
    tmp_path: Path, runs: Runs, arm: str, share: float
) -> None:
    rows = arms_of(recipe_of(tmp_path, ("A0", "A1", arm)), runs)
    music, final = ({row["id"] for row in rows[name]} for name in ("A1", "A0"))
    for count in (MUSIC, MUSIC // 2):
        kinds = [row["id"] in music for row in rows[arm][:count]]
        assert sum(kinds) == share * count
    assert {row["id"] for row in rows[arm]} <= music | final
