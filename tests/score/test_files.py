"""The files that conversations come from: formats, columns, damage."""

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from music_ray.errors import InputError
from music_ray.score.conversations import conversations
from music_ray.score.files import EXPECTED, open_input
from music_ray.score.rows import CONVERSATION_SCHEMA
from tests.reward.conftest import conversation

GOOD = conversation("a", "b")
PAIR = {"id": "p", "chosen": GOOD, "rejected": conversation("a", "c"), "other": 1}


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        source = open_input(str(path))
        list(source.rows())
    return str(caught.value).replace(str(path), "INPUT")


def test_json_lines_keep_their_order_and_say_what_is_wrong_with_a_line(write_rows) -> None:
    path = write_rows(b"{oops", {"id": 5, "messages": GOOD}, b"", b"[1]", b'{"messages": "\xff"}')
    rows = list(open_input(str(path)).rows())
    assert [(row.number, row.reason) for row in rows] == [
        (0, "not_json"),
        (1, ""),
        (2, "wrong_type"),
        (3, "not_utf8"),
    ]
    assert rows[1].value == {"id": 5, "messages": GOOD} and {row.columns for row in rows} == {("messages",)}
    assert rows[2].detail == "line 4: a JSON list, expected an object"


def test_parquet_text_that_is_not_utf8_costs_its_row_only(tmp_path: Path) -> None:
    texts = [b"one", b"two \xff", "drei \u2028".encode(), b"four"]
    rows = [
        {
            "id": f"row-{number}",
            "messages": [{"role": b"user", "content": b"Hi"}, {"role": b"assistant", "content": text}],
        }
        for number, text in enumerate(texts)
    ]
    checked = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    table = pa.Table.from_pylist(rows)
    column = table["messages"].combine_chunks().view(checked)
    path = tmp_path / "data.parquet"
    pq.write_table(table.set_column(table.column_names.index("messages"), "messages", column), path)

    entries = list(conversations(open_input(str(path)).rows()))
    assert [(one["id"], one["key"], one["reason"], one["detail"]) for one in entries] == [
        (0, "row-0", "", ""),
        (2, "1", "not_utf8", "invalid start byte at byte 4"),
        (4, "row-2", "", ""),
        (6, "row-3", "", ""),
    ]
    assert [one["messages"][1]["content"] for one in entries if not one["reason"]] == [
        "one",
        "drei \u2028",
        "four",
    ]
    assert entries[1]["messages"] == []
    assert pa.Table.from_pylist(entries, schema=CONVERSATION_SCHEMA).num_rows == 4


def test_a_folder_of_files_is_numbered_through(tmp_path: Path, write_rows) -> None:
    folder = tmp_path / "in"
    write_rows({"messages": GOOD}, {"messages": GOOD}, name="in/a.jsonl")
    pq.write_table(pa.Table.from_pylist([PAIR, PAIR | {"id": "q"}]), folder / "b.parquet")
    (folder / "c.jsonl.gz").write_bytes(gzip.compress(b'{"chosen": [], "rejected": []}\n'))
    (folder / "_done").mkdir()
    write_rows({"x": 1}, name="in/_done/d.jsonl")
    write_rows({"x": 1}, name="in/.e.jsonl")
    (folder / "notes.txt").write_text("no data")
    rows = list(open_input(str(folder)).rows())
    assert [row.number for row in rows] == [0, 1, 2, 3, 4]
    assert [row.columns for row in rows[1:]] == [("messages",), *([("chosen", "rejected")] * 3)]
    assert rows[2].value == {"id": "p", "chosen": GOOD, "rejected": PAIR["rejected"]}


def test_the_pairs_of_a_run_are_read_without_its_refusals(tmp_path: Path, write_rows) -> None:
    table = pa.table({"id": ["a"], "chosen": [conversation("a", "b")], "rejected": [conversation("a", "c")]})
    (tmp_path / "pairs").mkdir()
    pq.write_table(table, tmp_path / "pairs" / "train-00000-of-00001.parquet")
    for refusals in ([], [{"id": 7, "reason": "looping"}]):
        write_rows(*refusals, name="pairs/gates.jsonl")
        assert [one.value["id"] for one in open_input(str(tmp_path / "pairs")).rows()] == ["a"]


def test_messages_go_before_a_pair(write_rows) -> None:
    path = write_rows(PAIR | {"messages": GOOD})
    assert open_input(str(path)).files[0].columns == ("messages",)


def test_what_cannot_be_read(tmp_path: Path, write_rows) -> None:
    assert refusal(tmp_path / "none.jsonl") == (
        "no file or folder at INPUT: name the conversations that are to be scored"
    )
    (tmp_path / "empty").mkdir()
    assert refusal(tmp_path / "empty") == (
        "the folder INPUT holds no .parquet, .jsonl, .json, .jsonl.gz, .json.gz file: name another one"
    )
    assert refusal(write_rows({}, name="rows.csv")).startswith("INPUT has none of the suffixes .parquet,")
    assert refusal(write_rows(name="e.jsonl")) == "INPUT is empty: name a file that holds conversations"
    assert refusal(write_rows(b"", b" ", name="blank.jsonl")).startswith("INPUT is empty")
    assert refusal(write_rows({"prompt": "x", "chosen": "y"})) == (
        f"INPUT has no conversations: its columns are `chosen`, `prompt`, but expected are {EXPECTED}"
    )
    assert "its columns are none" in refusal(write_rows(b"[1]", b"{"))
    assert refusal(write_rows(b"PAR1 no", name="x.parquet")).startswith("cannot read INPUT: ")
    whole = gzip.compress(b'{"messages": []}\n' * 5000)
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(whole[: len(whole) // 2])
    assert refusal(cut).endswith("; restore it or name another file")


def test_the_digest_is_of_the_contents(tmp_path: Path, write_rows) -> None:
    first = open_input(str(write_rows({"messages": GOOD}))).digest()
    assert open_input(str(write_rows({"messages": GOOD}, name="copy.jsonl"))).digest() == first
    assert open_input(str(write_rows({"messages": GOOD}, {"messages": GOOD}))).digest() != first
