"""The pairs stage: what is accepted, what is refused and why, the files, the card, and datasets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from music_ray.errors import InputError, StageError
from music_ray.generate import staging
from music_ray.generate.card import fenced
from music_ray.generate.pairs import run_pairs
from music_ray.rundir import RunDir
from music_ray.schema import PAIR_SCHEMA, SEED_SCHEMA, Call, Rollout, SeedContext, to_table

MakeRun = Callable[..., RunDir]
MakeRollout = Callable[..., Rollout]
WriteShard = Callable[[RunDir, str, list[Rollout]], None]
NO_EVAL_SET = "the gate eval_overlap is off: no evaluation set is named in pairs.gates.eval_sets"
NO_JUDGE = "the gate judge_disagrees is off: no judge is named in pairs.judge.engine"
GATES = (
    "empty", "cut_off", "branches_equal", "branches_alike", "template_leak", "looping", "refusal_in_chosen",
    "length_ratio", "eval_overlap", "judge_disagrees", "near_duplicate",
)  # fmt: skip


def pairs_of(run: RunDir) -> list[dict[str, Any]]:
    return list(run.read_rows("pairs"))


def refusals_of(run: RunDir) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run.read_text("pairs", "gates.jsonl").split("\n") if line]


@pytest.fixture
def mixed_run(
    make_run: MakeRun, make_rollout: MakeRollout, make_call: Callable[..., Call], write_shard: WriteShard
) -> RunDir:
    """Six rollouts in two shards: two good, one error, two that fail gates, one good but repeated."""
    run = make_run()
    error = make_rollout(
        3, chosen=[], rejected=[], status="error", reason="contrast_unparsed", detail="3 calls"
    )
    late = make_rollout(1, rejected=["A first answer.", "And then?", "The second row of an id."], run_epoch=2)
    write_shard(run, "0001-a", [make_rollout(20), make_rollout(1), error])
    write_shard(
        run,
        "0002-b",
        [
            late,
            make_rollout(4, rejected=["A first answer.", "And then?", ""]),
            make_rollout(5, calls=[make_call(1, "shared")]),
        ],
    )
    return run


def test_good_rollouts_become_pairs_and_the_others_have_a_reason(mixed_run: RunDir) -> None:
    result = run_pairs(mixed_run)
    assert result["counts"] == {
        "rollouts": 5,
        "accepted": 2,
        "refused": {"contrast_unparsed": 1, "cut_off": 1, "empty": 1},
        "duplicate_rows": 1,
        "gates": result["counts"]["gates"],
    }
    assert result["notes"] == [
        "1 rows of rollouts/shards repeat an id: the first ok row counts",
        NO_EVAL_SET,
        NO_JUDGE,
    ]
    cut = "the reply of turn 1 (shared) was cut off after 64 tokens"
    assert refusals_of(mixed_run) == [
        {"id": 3, "reason": "contrast_unparsed", "detail": "3 calls", "also": []},
        {"id": 4, "reason": "empty", "detail": "the reply of turn 2 (rejected) is empty", "also": []},
        {"id": 5, "reason": "cut_off", "detail": cut, "also": []},
    ]
    assert [row["id"] for row in pairs_of(mixed_run)] == ["music-1", "music-20"]
    assert sorted(path.name for path in Path(mixed_run.path("pairs")).iterdir()) == [
        "README.md",
        "gates.jsonl",
        "train-00000-of-00001.parquet",
    ]


def test_a_pair_has_all_its_fields(mixed_run: RunDir) -> None:
    run_pairs(mixed_run)
    opening = [
        {"role": "user", "content": "Question 1?"},
        {"role": "assistant", "content": "A first answer."},
        {"role": "user", "content": "And then?"},
    ]
    assert pairs_of(mixed_run)[0] == {
        "id": "music-1",
        "source": "tests",
        "origin": "D_MUSIC",
        "conversation": 1001,
        "num_turns": 2,
        "branch_turn": 2,
        "chosen": [*opening, {"role": "assistant", "content": "A good answer to 1."}],
        "rejected": [*opening, {"role": "assistant", "content": "Something else than 1."}],
        "seed_id": 1,
        "contrasts": [
            {
                "turn": 2,
                "user_message": "And then?",
                "instruction": "Say something else.",
                "mode": "joint",
                "attempts": 1,
            }
        ],
    }


def test_datasets_reads_the_folder_as_it_is(mixed_run: RunDir, tmp_path: Path) -> None:
    """The card, gates.jsonl and excluded.txt beside the Parquet files must not disturb it."""
    import datasets

    mixed_run.write_text("# nothing yet\n", "pairs", "excluded.txt")
    run_pairs(mixed_run)
    folder, cache = mixed_run.path("pairs"), str(tmp_path / "cache")
    read = datasets.load_dataset("parquet", data_dir=folder, cache_dir=cache)
    assert list(read) == ["train"] and read["train"].num_rows == 2
    assert read["train"][0]["chosen"][1] == {"role": "assistant", "content": "A first answer."}
    assert read["train"][0]["rejected"][3]["content"] == "Something else than 1."
    by_card = datasets.load_dataset(folder, cache_dir=cache)
    assert list(by_card) == ["train"] and by_card["train"]["id"][:] == ["music-1", "music-20"]


def test_changed_gates_replace_the_files(mixed_run: RunDir, make_run: MakeRun) -> None:
    first = run_pairs(mixed_run)
    mixed_run.write_table(PAIR_SCHEMA.empty_table(), "pairs", "train-00001-of-00002.parquet")
    mixed_run.write_text("mine", "pairs", "notes.txt")
    lenient = make_run(pairs={"gates": {"cut_off": False}})
    second = run_pairs(lenient)
    assert second["counts"]["accepted"] == 3 and second["output"] != first["output"]
    assert [row["id"] for row in pairs_of(lenient)] == ["music-1", "music-20", "music-5"]
    assert [Path(path).name for path in lenient.parquet_files("pairs")] == ["train-00000-of-00001.parquet"]
    assert lenient.read_text("pairs", "notes.txt") == "mine"
    assert run_pairs(mixed_run) == first
    assert not mixed_run.exists(".pairs-new")


def test_a_crash_before_the_end_leaves_the_old_set(
    mixed_run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_pairs(mixed_run)
    before = {path.name: path.read_bytes() for path in Path(mixed_run.path("pairs")).iterdir()}

    def die(self: staging.StagedFolder) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(staging.StagedFolder, "publish", die)
    with pytest.raises(KeyboardInterrupt):
        run_pairs(mixed_run)
    assert {path.name: path.read_bytes() for path in Path(mixed_run.path("pairs")).iterdir()} == before


def test_many_pairs_go_into_several_files(
    make_run: MakeRun,
    make_rollout: MakeRollout,
    write_shard: WriteShard,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(staging, "ROWS_PER_FILE", 4)
    run = make_run(pairs={"gates": {"near_duplicate": False}})
    write_shard(run, "0001-a", [make_rollout(number) for number in range(10)])
    run_pairs(run)
    assert [Path(path).name for path in run.parquet_files("pairs")] == [
        "train-00000-of-00003.parquet",
        "train-00001-of-00003.parquet",
        "train-00002-of-00003.parquet",
    ]
    assert [row["seed_id"] for row in pairs_of(run)] == list(range(10))


def test_excluded_ids_are_refused(mixed_run: RunDir) -> None:
    text = "# looked at by hand\n music-20  # off topic\n\n5\n77\n"
    mixed_run.write_text(text, "pairs", "excluded.txt")
    result = run_pairs(mixed_run)
    assert result["counts"]["refused"] == {"contrast_unparsed": 1, "empty": 1, "excluded": 2}
    assert result["notes"][0] == "pairs/excluded.txt names 1 ids that no rollout has, e.g. music-77"
    assert [row["id"] for row in pairs_of(mixed_run)] == ["music-1"]
    assert mixed_run.read_text("pairs", "excluded.txt") == text


def test_a_bad_line_of_excluded_txt_is_named(mixed_run: RunDir) -> None:
    mixed_run.write_text("1\nthe second one\n", "pairs", "excluded.txt")
    with pytest.raises(InputError) as error:
        run_pairs(mixed_run)
    assert str(error.value) == (
        f"{mixed_run.display('pairs', 'excluded.txt')} line 2: 'the second one' is no id of a pair: write "
        "one id a line, such as music-123, and comments after '#'"
    )


def test_without_rollouts_the_stage_says_what_to_run(make_run: MakeRun) -> None:
    run = make_run()
    with pytest.raises(StageError) as error:
        run_pairs(run)
    assert str(error.value) == (
        f"no rollouts in {run.display('rollouts', 'shards')}: run `music-ray generate` first"
    )


def test_when_every_rollout_is_refused_the_files_are_there_and_empty(
    make_run: MakeRun, make_rollout: MakeRollout, write_shard: WriteShard
) -> None:
    run = make_run()
    write_shard(run, "0001-a", [make_rollout(1, rejected=["", "", ""])])
    result = run_pairs(run)
    assert result["notes"] == [
        "no rollout passed the quality gates: read pairs/gates.jsonl",
        NO_EVAL_SET,
        NO_JUDGE,
    ]
    assert pairs_of(run) == [] and len(run.parquet_files("pairs")) == 1
    assert "## An example" not in run.read_text("pairs", "README.md")


def test_the_card_says_what_the_hub_needs(mixed_run: RunDir) -> None:
    run_pairs(mixed_run)
    card = mixed_run.read_text("pairs", "README.md")
    _, front, body = card.split("---\n", 2)
    assert yaml.safe_load(front) == {
        "pretty_name": "MUSIC pairs of the run run",
        "license": "unknown",
        "size_categories": ["n<1K"],
        "tags": ["preference", "reward-model", "multi-turn", "synthetic", "music_ray"],
        "configs": [
            {"config_name": "default", "data_files": [{"split": "train", "path": "train-*.parquet"}]}
        ],
    }
    assert "Of 5 rollouts 2 passed the quality gates." in body
    assert "- `a-model` on the engine `scripted`: 5 rollouts" in body
    assert "| `contrast_unparsed` | 1 |" in body and "| `tests` | 2 |" in body
    assert "the licence is marked `unknown`" in body
    assert "```text\n[user]\nQuestion 1?\n\n[assistant]\nA first answer." in body
    assert "```text\nturn 2: Say something else.\n```" in body


def test_text_of_others_cannot_leave_its_fence_or_its_cell(
    make_run: MakeRun, make_rollout: MakeRollout, write_shard: WriteShard
) -> None:
    run = make_run()
    evil = "```\n# A heading\n`````\n<script>alert(1)</script>"
    rollout = make_rollout(
        1, rejected=["A first answer.", "And then?", evil], source="a|b`c\n# d", model="m`x"
    )
    write_shard(run, "0001-a", [rollout])
    run_pairs(run)
    card = run.read_text("pairs", "README.md")
    opening = "[user]\nQuestion 1?\n\n[assistant]\nA first answer.\n\n[user]\nAnd then?\n\n[assistant]\n"
    assert f"\n``````text\n{opening}{evil}\n``````\n" in card
    assert "| `a\\|b'c # d` | 1 |" in card and "- `m'x` on" in card
    assert fenced("plain") == "```text\nplain\n```"


def test_rollouts_of_seeds_that_a_smaller_run_lacks_give_no_pair(
    mixed_run: RunDir, make_rollout: MakeRollout
) -> None:
    seed = SeedContext(20, "s", "p", 2, [{"role": "user", "content": "a"}])
    mixed_run.write_table(to_table([seed], SEED_SCHEMA), "seeds", "contexts", "part-00000.parquet")
    result = run_pairs(mixed_run)
    assert result["counts"]["rollouts"] == result["counts"]["accepted"] == 1
    assert [pair["id"] for pair in pairs_of(mixed_run)] == ["music-20"]
    assert "4 rollouts are of seeds that are not in seeds/ any more" in result["notes"][0]


@pytest.fixture
def failing_rollouts(make_rollout: MakeRollout) -> list[Rollout]:
    """Seven rollouts with status ok, of which only 2 and 3 pass the gates that look at one rollout."""
    opening = ["Here is a first answer of some length.", "And then?"]
    last = "This is the good answer that was asked for, with a few words more than it needs to have."
    worse = [*opening, "Nobody has asked about this, so here are some other words."]
    refusal = [*opening, "I'm sorry, but I can't help you with that."]
    return [
        make_rollout(1, [*opening, last], [*opening, f"{last} {last}", "So?", "x " * 200]),
        make_rollout(2, [*opening, last], worse),
        make_rollout(3, [*opening, f"{last} Indeed."], worse),
        make_rollout(4, refusal),
        make_rollout(5, refusal),
        make_rollout(6, [*opening, last], [*opening, ""]),
        make_rollout(7, ["No.", "Why?", "Because of the weather, I think."], ["x"] * 9),
    ]


def test_every_gate_hears_every_rollout(
    make_run: MakeRun, failing_rollouts: list[Rollout], write_shard: WriteShard
) -> None:
    run = make_run()
    run.write_text("7\n", "pairs", "excluded.txt")
    write_shard(run, "0001-a", failing_rollouts)
    counts = run_pairs(run)["counts"]
    assert {row["id"]: (row["reason"], row["also"]) for row in refusals_of(run)} == {
        1: ("looping", ["length_ratio"]),
        3: ("near_duplicate", []),
        4: ("refusal_in_chosen", []),
        5: ("refusal_in_chosen", ["near_duplicate"]),
        6: ("empty", ["near_duplicate"]),
        7: ("excluded", ["length_ratio"]),
    }
    assert [pair["id"] for pair in pairs_of(run)] == ["music-2"]
    gates = counts["gates"]
    assert tuple(gates) == GATES
    assert gates["eval_overlap"] == {
        "on": False,
        "why_off": "no evaluation set is named in pairs.gates.eval_sets",
        "refused": 0,
        "would_refuse_alone": None,
    }
    assert gates["judge_disagrees"]["why_off"] == "no judge is named in pairs.judge.engine"
    on = {name: gate for name, gate in gates.items() if name not in ("eval_overlap", "judge_disagrees")}
    assert all(gate["on"] and gate["why_off"] == "" for gate in on.values())
    assert {name: (one["refused"], one["would_refuse_alone"]) for name, one in on.items()} == {
        "empty": (1, 1),
        "cut_off": (0, 0),
        "branches_equal": (0, 0),
        "branches_alike": (0, 0),
        "template_leak": (0, 0),
        "looping": (1, 1),
        "refusal_in_chosen": (2, 2),
        "length_ratio": (0, 2),
        "near_duplicate": (1, 4),
    }
    assert counts["refused"] == {"excluded": 1} | {
        name: gate["refused"] for name, gate in sorted(on.items()) if gate["refused"]
    }


def test_a_gate_that_is_switched_off_says_so_and_hears_nothing(
    make_run: MakeRun, failing_rollouts: list[Rollout], write_shard: WriteShard
) -> None:
    run = make_run(pairs={"gates": dict.fromkeys(GATES, False)})
    write_shard(run, "0001-a", failing_rollouts)
    counts = run_pairs(run)["counts"]
    assert (counts["accepted"], counts["refused"]) == (7, {})
    assert counts["gates"] == {
        name: {
            "on": False,
            "why_off": f"switched off by pairs.gates.{name}=false",
            "refused": 0,
            "would_refuse_alone": None,
        }
        for name in GATES
    }


def test_the_order_of_shards_decides_nothing(
    make_run: MakeRun, failing_rollouts: list[Rollout], write_shard: WriteShard
) -> None:
    results = []
    for name, rollouts in (("a", failing_rollouts), ("b", failing_rollouts[::-1])):
        run = make_run(name=name)
        for number, rollout in enumerate(rollouts):
            write_shard(run, f"{number:04d}-x", [rollout])
        results.append((run_pairs(run), refusals_of(run), pairs_of(run)))
    assert results[0] == results[1]


def test_overlaps_are_counted_by_evaluation_set(
    make_run: MakeRun,
    failing_rollouts: list[Rollout],
    write_shard: WriteShard,
    write_jsonl: Callable[..., str],
) -> None:
    text = "this is the good answer that was asked for with a few words"
    sets = [
        {"path": write_jsonl({"q": text}, name="exam.jsonl"), "columns": ["q"]},
        {"path": write_jsonl({"q": f"{text} more"}, name="other.jsonl"), "columns": ["q"]},
        {"path": write_jsonl({"q": "what is this all about then"}, name="none.jsonl"), "columns": ["q"]},
    ]
    run = make_run(pairs={"gates": {"eval_sets": sets}})
    write_shard(run, "0001-a", failing_rollouts)
    result = run_pairs(run)
    assert result["counts"]["eval_overlap"] == {"exam": 4, "other": 4, "none": 0}
    assert result["counts"]["gates"]["eval_overlap"] == {
        "on": True, "why_off": "", "refused": 2, "would_refuse_alone": 4,
    }  # fmt: skip
    assert NO_EVAL_SET not in result["notes"]
    detail = next(row["detail"] for row in refusals_of(run) if row["id"] == 2)
    assert detail == (
        f"message 4 (chosen) shares 13 words with the evaluation set exam: '{text}'; "
        f"message 4 (chosen) shares 13 words with the evaluation set other: '{text}'"
    )


def test_a_missing_evaluation_set_stops_the_stage_before_it_reads_or_writes(
    mixed_run: RunDir, make_run: MakeRun
) -> None:
    first = run_pairs(mixed_run)
    sets = [{"path": "gone.parquet", "columns": ["prompt"]}]
    with pytest.raises(InputError, match=r"no file or folder at gone\.parquet"):
        run_pairs(make_run(pairs={"gates": {"eval_sets": sets}}))
    assert len(pairs_of(mixed_run)) == first["counts"]["accepted"]


@pytest.mark.parametrize(
    "gates",
    [
        {"near_duplicate": False},
        {"near_duplicate_similarity": 0.7},
        {"minhash_permutations": 64},
        {"branches_alike_similarity": 0.5},
        {"refusal_in_chosen": False},
        {"max_length_ratio": 2.0},
        {"eval_sets": [{"path": "exam.parquet", "columns": ["prompt"]}]},
        {"plugins": ["my_gates:polite"]},
    ],
)
def test_changed_gates_make_the_pairs_stage_alone_out_of_date(
    make_run: MakeRun, gates: dict[str, Any]
) -> None:
    before, after = make_run(), make_run(pairs={"gates": gates})
    stages = ("seeds", "generate", "pairs", "mix", "train", "evaluate")
    changed = [stage for stage in stages if before.fingerprint(stage) != after.fingerprint(stage)]
    assert changed == ["pairs"]
