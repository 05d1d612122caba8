"""Reading pair sets: two shapes, what is set aside, what is refused, and the hub's splits."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from music_ray.data_files import RawRow
from music_ray.errors import InputError
from music_ray.evaluate.pair_sets import read_pair_set, read_pair_sets
from music_ray.schema import conversation_hash
from tests.evaluate.conftest import messages, write_jsonl

PARTIAL = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "rewardbench" / "partial.parquet"


def no_hub(*_):
    raise AssertionError("the hub was asked")
    yield


def read(path):
    return read_pair_set(str(path), no_hub)


def refusal(path) -> str:
    with pytest.raises(InputError) as caught:
        read(path)
    return str(caught.value).replace(str(path), "FILE")


def test_messages_and_what_is_known_of_them(tmp_path: Path) -> None:
    shared = ("Hi", "Hello", "More?")
    path = write_jsonl(
        tmp_path / "my pairs.jsonl",
        {"id": 1, "source": "s", "chosen": messages(*shared, "Yes."), "rejected": messages(*shared, "No!!")},
        {"id": "b", "chosen": messages("Hi", "A"), "rejected": messages("Hi", "B", "c", "d")},
        {"id": "c", "chosen": messages("Yo", "A"), "rejected": messages("Yo", "A")},
    )
    found = read(path)
    assert found.name == "my-pairs" and [one.id for one in found.pairs] == ["1", "b", "c"]
    facts = found.facts()
    assert facts.sources.tolist() == ["s", "my-pairs", "my-pairs"]
    assert facts.num_turns.tolist() == [2, 1, 1] and facts.branch_turns.tolist() == [2, 1, 0]
    hi = conversation_hash(messages("Hi"))
    assert facts.contexts.tolist() == [hi, hi, conversation_hash(messages("Yo"))]
    assert found.characters().tolist() == [[16, 16], [3, 5], [3, 3]]
    assert found.subsets().tolist() == ["", "", ""]


@pytest.mark.parametrize(
    ("prompt", "opening"),
    [
        ("Why?", messages("Why?")),
        (messages("Hi", "Hello", "Why?"), messages("Hi", "Hello", "Why?")),
        ([{"role": "system", "content": "Be brief."}, *messages("Why?")], messages("Be brief.\n\nWhy?")),
    ],
)
def test_rewardbench_s_columns(prompt, opening, tmp_path: Path) -> None:
    row = {"id": 7, "subset": "hep-go", "prompt": prompt, "chosen": "Because.", "rejected": "No."}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "bench.parquet")
    (pair,) = read(tmp_path / "bench.parquet").pairs
    assert (pair.id, pair.subset, pair.source) == ("7", "hep-go", "hep-go")
    assert pair.chosen == [*opening, {"role": "assistant", "content": "Because."}]
    assert pair.rejected == [*opening, {"role": "assistant", "content": "No."}]


def test_a_prompt_that_the_sides_repeat_stands_once(tmp_path: Path) -> None:
    row = {"id": 1, "prompt": "Why?", "chosen": messages("Why?", "So."), "rejected": messages("Why?", "No.")}
    (pair,) = read(write_jsonl(tmp_path / "p.jsonl", row)).pairs
    assert pair.chosen == messages("Why?", "So.")


SYSTEM = {"role": "system", "content": "Be brief."}
LONG = ("Hi", "Hello", "How are you?", "Well.")


@pytest.mark.parametrize(
    ("prompt", "chosen", "expected"),
    [
        ("Why?", [SYSTEM, *messages("Why?", "So.")], messages("Be brief.\n\nWhy?", "So.")),
        ("How are you?", messages(*LONG), messages(*LONG)),  # the last question beside the whole
        (messages("Hi"), messages(*LONG), messages(*LONG)),
        ([SYSTEM, *messages("Why?")], messages("Why?", "So."), messages("Be brief.\n\nWhy?", "So.")),
        ("Why?", messages("Why?", "So.")[1:], messages("Why?", "So.")),
        (messages("Hi", "Hello"), messages(*LONG)[2:], messages(*LONG)),
        (messages("Hi", "Hello"), messages(*LONG), messages(*LONG)),
    ],
)
def test_whole_conversations_beside_a_prompt_stay_as_they_are(
    prompt, chosen, expected, tmp_path: Path
) -> None:
    row = {"id": 1, "prompt": prompt, "chosen": chosen, "rejected": chosen[:-1] + messages("x", "No.")[1:]}
    (pair,) = read(write_jsonl(tmp_path / "p.jsonl", row)).pairs
    assert pair.chosen == expected
    assert pair.rejected == [*expected[:-1], {"role": "assistant", "content": "No."}]


def test_a_prompt_of_another_conversation_is_no_prompt(tmp_path: Path) -> None:
    good = {"id": 1, "chosen": messages("a", "b"), "rejected": messages("a", "c")}
    found = read(write_jsonl(tmp_path / "p.jsonl", good, good | {"id": 2, "prompt": "Something else"}))
    assert [one.id for one in found.pairs] == ["1"] and found.set_aside == {"prompt_not_in_side": 1}


def test_rows_that_are_no_pairs_are_counted(tmp_path: Path) -> None:
    good = {"id": 1, "chosen": messages("a", "b"), "rejected": messages("a", "c")}
    path = write_jsonl(
        tmp_path / "p.jsonl",
        good,
        b"{no json",
        {"id": 2, "chosen": messages("a", "b")},
        {"id": 3, "chosen": "text", "rejected": "text"},
        {"id": 4, "chosen": [{"role": "tool", "content": "x"}], "rejected": messages("a", "c")},
        {"id": 5, "chosen": messages("a", "\ud800"), "rejected": messages("a", "c")},
        {"id": 6, "chosen": [{"role": "assistant", "content": "x"}], "rejected": messages("a", "c")},
        {"id": 7, "chosen": [], "rejected": messages("a", "c")},
    )
    found = read(path)
    assert len(found.pairs) == 1
    assert found.set_aside == {
        "not_json": 1, "missing_field": 1, "wrong_type": 2, "unknown_role": 1, "not_utf8": 1,
        "no_user_message": 1,
    }  # fmt: skip


def test_files_without_pairs_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1], "prompt": ["x"]}), tmp_path / "prompts.parquet")
    assert refusal(tmp_path / "prompts.parquet") == (
        "FILE holds no pairs: its columns are `id`, `prompt`, but expected are `chosen` and `rejected` as "
        "lists of {role, content} messages, or RewardBench's `subset`, `prompt`, `chosen` and `rejected`"
    )
    (tmp_path / "empty.jsonl").touch()
    assert refusal(tmp_path / "empty.jsonl").startswith("FILE holds no pairs: it has no rows; expected are")
    path = write_jsonl(tmp_path / "p.jsonl", {"id": 1, "messages": messages("a", "b")}, b"[")
    assert refusal(path).startswith(
        "FILE holds no pairs: missing_field 1, not_json 1 (row 1: `chosen` is missing); expected are"
    )
    assert refusal(tmp_path / "none.jsonl").startswith("no file or folder at FILE: name a file of pairs")
    assert refusal("./a/b").startswith("no file or folder at FILE")  # no id of the hub


def test_a_pair_without_an_id_is_refused(tmp_path: Path) -> None:
    sides = {"chosen": messages("a", "b"), "rejected": messages("a", "c")}
    path = write_jsonl(tmp_path / "p.jsonl", {"id": 1, **sides}, sides)
    assert refusal(path) == (
        "FILE row 2 has no id: its scores could not be told from those of other pairs; give every row an "
        "`id`, text or a whole number"
    )


def test_a_rewardbench_row_without_a_subset_is_refused(tmp_path: Path) -> None:
    row = {"id": 1, "subset": "hep-go", "prompt": "x", "chosen": "a", "rejected": "b"}
    path = write_jsonl(tmp_path / "p.jsonl", row, row | {"subset": None})
    assert refusal(path).startswith("FILE row 2 has no subset: RewardBench's scores are made of subsets;")


def test_sets_have_names_of_their_own(tmp_path: Path) -> None:
    row = {"id": 1, "chosen": messages("a", "b"), "rejected": messages("a", "c")}
    for folder in ("one", "two", "three"):
        (tmp_path / folder).mkdir()
        write_jsonl(tmp_path / folder / "dev.jsonl", row)
    places = [str(tmp_path / folder / "dev.jsonl") for folder in ("one", "two", "three")]
    assert [one.name for one in read_pair_sets(places, no_hub)] == ["dev", "dev-2", "dev-3"]


def test_the_first_pairs_are_the_same_ones_in_any_order(tmp_path: Path) -> None:
    rows = [
        {"id": f"p{number}", "chosen": messages("a", "b"), "rejected": messages("a", "c")}
        for number in range(20)
    ]
    found = read(write_jsonl(tmp_path / "p.jsonl", *rows))
    ids = [one.id for one in found.first(6).pairs]
    turned = read(write_jsonl(tmp_path / "q.jsonl", *rows[::-1])).first(6)
    assert len(ids) == 6 and sorted(one.id for one in turned.pairs) == sorted(ids)
    assert ids == [row["id"] for row in rows if row["id"] in ids]
    assert found.first(None) is found and found.first(20) is found


# -- the hub ---------------------------------------------------------------------------------------


def hub(rows, asked):
    def read(dataset, revision, split, key):
        asked.append((dataset, revision, split))
        for number, row in enumerate(rows, start=1):
            yield RawRow(dataset, number, dict(row))

    return read


ROW = {"id": 1, "subset": "other", "prompt": messages("x"), "chosen": "a", "rejected": "b"}


@pytest.mark.parametrize(
    ("place", "asked", "subsets"),
    [
        ("allenai/reward-bench", [("allenai/reward-bench", None, "filtered")], ["other"]),
        ("a/b", [("a/b", None, "train")], ["other"]),
        ("a/b@v1.0:test", [("a/b", "v1.0", "test")], ["other"]),
        ("allenai/pref-test-sets:shp", [("allenai/pref-test-sets", None, "shp")], ["shp"]),
        ("allenai/preference-test-sets:shp", [("allenai/preference-test-sets", None, "shp")], ["shp"]),
        (
            "allenai/preference-test-sets",
            [("allenai/preference-test-sets", None, split) for split in
             ("anthropic_helpful", "anthropic_hhh", "shp", "summarize")],
            ["anthropic_helpful", "anthropic_hhh", "shp", "summarize"],
        ),
    ],
)  # fmt: skip
def test_ids_of_the_hub(place, asked, subsets) -> None:
    seen = []
    found = read_pair_set(place, hub([ROW], seen))
    assert seen == asked and [one.subset for one in found.pairs] == subsets
    assert found.name == place.partition("/")[2].partition("@")[0].partition(":")[0]


def test_the_prior_sets_files_are_known_by_their_names(tmp_path: Path) -> None:
    row = ROW | {"subset": None}
    for split, subset in (("shp", None), ("anthropic_helpful", "helpful-base"), ("summarize", None)):
        rows = pa.Table.from_pylist([row | {"subset": subset}])
        pq.write_table(rows, tmp_path / f"{split}-00000-of-00001.parquet")
    found = read(tmp_path)
    assert sorted(one.subset for one in found.pairs) == ["anthropic_helpful", "shp", "summarize"]
    write_jsonl(tmp_path / "summarize.jsonl", row)  # perhaps somebody's own
    assert "summarize.jsonl row 1 has no subset" in refusal(tmp_path)


@pytest.mark.skipif(not PARTIAL.exists(), reason=f"needs {PARTIAL}")
def test_the_partial_set_is_read_whole() -> None:
    found = read(PARTIAL)
    assert len(found.pairs) == 1647 and not found.set_aside and found.name == "partial"
    assert set(found.facts().num_turns.tolist()) == {1}
