"""Files, folders and datasets: what is read, what is set aside, and what stops the stage."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from music_ray.config import DataConfig, SourceConfig
from music_ray.errors import InputError
from music_ray.generate.read_preferences import SetAside, read_preferences
from music_ray.schema import PreferencePair


def pair_row(text: str = "Hi", **other: Any) -> dict[str, Any]:
    opening = {"role": "user", "content": text}
    return {
        "chosen": [opening, {"role": "assistant", "content": "Hello!"}],
        "rejected": [opening, {"role": "assistant", "content": "Go away."}],
        **other,
    }


def read(*paths: str, **source: Any) -> list[PreferencePair | SetAside]:
    return list(read_preferences(DataConfig(sources=[SourceConfig(path=path, **source) for path in paths])))


def pairs_of(*paths: str, **source: Any) -> list[PreferencePair]:
    return [row for row in read(*paths, **source) if isinstance(row, PreferencePair)]


def set_aside_of(*paths: str, **source: Any) -> list[SetAside]:
    return [row for row in read(*paths, **source) if isinstance(row, SetAside)]


def test_a_json_lines_pair_has_all_its_fields(write_jsonl: Callable[..., str]) -> None:
    [pair] = pairs_of(write_jsonl(pair_row(id="a-1", source="mine")))
    assert (pair.id, pair.source, pair.origin, pair.num_turns, pair.branch_turn) == ("a-1", "mine", "D", 1, 1)
    assert pair.conversation == 4308041647526597252
    assert pair.seed_id is None and pair.contrasts == []


def test_without_columns_of_their_own_rows_get_the_files_name_and_a_content_hash(
    write_jsonl: Callable[..., str],
) -> None:
    [pair] = pairs_of(write_jsonl(pair_row(), name="some.pairs.jsonl"))
    assert (pair.id, pair.source) == ("7786accc9762c2f2", "some.pairs")
    [pair] = pairs_of(write_jsonl(pair_row()), name="given")
    assert pair.source == "given"


def test_integer_ids_are_kept_as_text(write_jsonl: Callable[..., str]) -> None:
    assert [pair.id for pair in pairs_of(write_jsonl(pair_row(id=0), pair_row("B", id=17)))] == ["0", "17"]


def test_a_margin_is_what_the_row_says(write_jsonl: Callable[..., str]) -> None:
    margins = [None, 0, 2, 0.125, -1.5, True, "3", [1], 10**400]
    found = pairs_of(write_jsonl(*(pair_row(str(number), margin=one) for number, one in enumerate(margins))))
    assert [pair.margin for pair in found[:5]] == [None, 0.0, 2.0, 0.125, -1.5]
    # What is no number stays apart from what is not there. The rows are pairs all the same.
    assert all(math.isnan(pair.margin) for pair in found[5:8] if pair.margin is not None)
    assert len(found) == 9 and found[5].margin is not None and found[8].margin == math.inf


def test_a_margin_is_read_from_parquet(tmp_path: Path) -> None:
    rows = [pair_row(str(number), margin=margin) for number, margin in enumerate([1.5, None, 2.0])]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data.parquet")
    assert [pair.margin for pair in pairs_of(str(tmp_path / "data.parquet"))] == [1.5, None, 2.0]


def test_clashing_ids_of_two_sources_are_told_apart(write_jsonl: Callable[..., str]) -> None:
    first = write_jsonl(pair_row("A", id=0), name="a.jsonl")
    second = write_jsonl(pair_row("B", id=0), name="b.jsonl")
    ids = [pair.id for pair in pairs_of(first, second)]
    assert ids[0] == "0" and ids[1].startswith("0-") and len(ids[1]) == 18


def test_a_pair_that_occurs_twice_is_kept_once(write_jsonl: Callable[..., str]) -> None:
    path = write_jsonl(pair_row(id=1), pair_row(id=2))
    assert [pair.id for pair in pairs_of(path)] == ["1"]
    [again] = set_aside_of(path)
    assert (again.source, again.row, again.reason) == (path, 2, "duplicate_pair")


def test_broken_lines_are_set_aside_with_their_line_number(write_jsonl: Callable[..., str]) -> None:
    path = write_jsonl(
        pair_row(), b"", b'{"chosen": ', b"\xff\xfe", [1], {"chosen": "\ud800", "x": "y" * 900}
    )
    rows = set_aside_of(path)
    assert [(row.row, row.reason) for row in rows] == [
        (3, "not_json"),
        (4, "not_utf8"),
        (5, "wrong_type"),
        (6, "missing_field"),
    ]
    assert rows[0].text == '{"chosen":'
    assert rows[1].detail == "invalid start byte at byte 0 of the line"
    assert rows[2].detail == "a JSON list, expected an object"
    assert len(rows[3].text) == 500 and rows[3].text.startswith('{"chosen": "?"')


def test_gzipped_lines_are_read(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(pair_row()).encode()))
    [pair] = pairs_of(str(path))
    assert pair.source == "data"


MESSAGES = pa.list_(pa.struct([("content", pa.string()), ("role", pa.string())]))


def write_parquet(path: Path, rows: list[dict[str, Any]], messages: pa.DataType = MESSAGES) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = pa.schema([("chosen", messages), ("rejected", messages), ("source", pa.string())])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    return str(path)


def test_parquet_of_the_skywork_shape(tmp_path: Path) -> None:
    """Skywork/Skywork-Reward-Preference-80K-v0.2: chosen, rejected, source; content comes before role."""
    rows = [
        pair_row("A", source="magpie_ultra"),
        pair_row("B", source="wildguard"),
        pair_row("C", source=None),
    ]
    rows.append({"chosen": None, "rejected": None, "source": "x"})
    path = write_parquet(tmp_path / "train-00000-of-00001.parquet", rows)
    assert [(pair.source, pair.chosen[0]["content"]) for pair in pairs_of(path)] == [
        ("magpie_ultra", "A"),
        ("wildguard", "B"),
        ("train-00000-of-00001", "C"),
    ]
    [row] = set_aside_of(path)
    assert (row.row, row.reason) == (4, "missing_field")


def test_parquet_text_that_is_not_utf8_costs_its_row_only(tmp_path: Path) -> None:
    rows = [
        {"prompt": b"Hi", "chosen": b"yes", "rejected": b"\xff"},
        {"prompt": b"Hi", "chosen": b"a", "rejected": b"b"},
    ]
    table = pa.Table.from_pylist(rows)
    unchecked = pa.table(
        {name: table[name].combine_chunks().view(pa.string()) for name in table.column_names}
    )
    pq.write_table(unchecked, tmp_path / "data.parquet")
    found = read(str(tmp_path / "data.parquet"))
    assert isinstance(found[0], SetAside) and (found[0].row, found[0].reason) == (1, "not_utf8")
    assert isinstance(found[1], PreferencePair)


def test_a_folder_is_read_in_the_order_of_names(tmp_path: Path, write_jsonl: Callable[..., str]) -> None:
    write_jsonl(pair_row("B"), name="set/b.jsonl")
    write_jsonl(pair_row("C"), name="set/deep/c.json")
    write_jsonl(pair_row("hidden"), name="set/.cache/x.jsonl")
    (tmp_path / "set" / "README.md").write_text("not data")
    write_parquet(tmp_path / "set" / "a.parquet", [pair_row("A")])
    found = pairs_of(str(tmp_path / "set"))
    assert [(pair.chosen[0]["content"], pair.source) for pair in found] == [
        ("A", "set"),
        ("B", "set"),
        ("C", "set"),
    ]


def test_limit_counts_rows_of_one_source(write_jsonl: Callable[..., str]) -> None:
    path = write_jsonl(pair_row("A"), b"broken", pair_row("B"))
    assert len(read(path, limit=2)) == 2


def test_the_sample_is_well_formed() -> None:
    found = read("sample")
    assert len(found) >= 40 and all(isinstance(row, PreferencePair) for row in found)


def refusal(*paths: str, **source: Any) -> str:
    with pytest.raises(InputError) as error:
        read(*paths, **source)
    assert error.value.exit_code == 2
    return str(error.value)


def test_no_source_is_refused() -> None:
    assert refusal() == (
        "data.sources is empty: name the preference set, e.g. data.sources=[{path: my-pairs.jsonl}] "
        "or [{path: sample}]"
    )


def test_a_missing_file_is_named() -> None:
    assert (
        refusal("nowhere/x.jsonl") == "no file or folder at nowhere/x.jsonl: check the path in data.sources"
    )


@pytest.mark.parametrize("name", ["empty.jsonl", "empty.parquet", "empty.json"])
def test_an_empty_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    assert refusal(str(tmp_path / name)) == (
        f"{tmp_path / name} is empty: name a file with preference pairs in data.sources"
    )


def test_a_parquet_file_without_rows_is_empty(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "data.parquet", [])
    assert refusal(path) == f"{path} is empty: name a file with preference pairs in data.sources"


EXPECTED = (
    "but expected are `chosen` and `rejected` as lists of {role, content} messages or as "
    "'\\n\\nHuman: … \\n\\nAssistant: …' strings, or `prompt` with `chosen` and `rejected`"
)


def test_wrong_columns_are_named(tmp_path: Path, write_jsonl: Callable[..., str]) -> None:
    path = write_jsonl({"question": "a", "answer": "b"}, {"text": "c"})
    has = "has no preference pairs: it has the columns"
    assert refusal(path) == f"{path} {has} `answer`, `question`, `text`, {EXPECTED}"
    pq.write_table(pa.table({"winner": ["a"], "loser": ["b"]}), tmp_path / "data.parquet")
    assert refusal(str(tmp_path / "data.parquet")) == (
        f"{tmp_path / 'data.parquet'} {has} `loser`, `winner`, {EXPECTED}"
    )


def test_a_source_without_any_usable_row_is_refused(write_jsonl: Callable[..., str]) -> None:
    path = write_jsonl({"chosen": "a", "rejected": "b"}, {"chosen": 1, "rejected": 2}, b"{")
    assert refusal(path) == (
        f"no row of {path} can be used: unknown_shape 1, wrong_type 1, not_json 1 "
        "(row 1: `chosen` is text that does not begin with '\\n\\nHuman:', and there is no `prompt`); "
        "correct the file, or name another source in data.sources"
    )


def test_a_json_array_over_many_lines_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text(json.dumps([pair_row()], indent=2))
    assert refusal(str(path)).endswith("write one JSON object a line, e.g. with jq -c '.[]'")


def test_a_damaged_parquet_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    path.write_bytes(b"PAR1 this is not one")
    message = refusal(str(path))
    assert message.startswith(f"cannot read {path}: Parquet magic bytes not found in footer")
    assert message.endswith("; restore it or name another file")


def read_hub(dataset: str, **source: Any) -> list[PreferencePair | SetAside]:
    return list(read_preferences(DataConfig(sources=[SourceConfig(hub=dataset, **source)])))


def test_a_dataset_is_streamed_through_the_datasets_library(tmp_path: Path) -> None:
    """A folder stands in for a repository of the hub: the library treats them alike."""
    write_parquet(tmp_path / "set" / "train-00000-of-00001.parquet", [pair_row("A"), pair_row("B")])
    found = read_hub(str(tmp_path / "set"), limit=1)
    assert [row.chosen[0]["content"] for row in found if isinstance(row, PreferencePair)] == ["A"]
    with pytest.raises(
        InputError, match=r"cannot read the nope split of the Hugging Face dataset .*; check the id"
    ):
        read_hub(str(tmp_path / "set"), split="nope")


def test_a_hub_out_of_reach_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError) as error:
        read_hub("Skywork/Skywork-Reward-Preference-80K-v0.2", revision="main")
    assert str(error.value).startswith(
        "cannot read the train split of the Hugging Face dataset "
        "Skywork/Skywork-Reward-Preference-80K-v0.2 at revision main: "
    )
    assert error.value.exit_code == 2
