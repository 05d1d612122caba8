"""Files of rows: which there are at a place, what their rows are, and how damage is told."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from music_ray.data_files import RawRow, file_rows, find_files, json_lines, naming_damage, parquet_columns
from music_ray.errors import InputError


def read(path: Path, *columns: str) -> list[RawRow]:
    [file] = find_files(str(path), "look again")
    with naming_damage(file.name):
        return list(file_rows(file, columns))


def values(path: Path, *columns: str) -> list[Any]:
    return [row.value for row in read(path, *columns)]


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read(path, "a")
    return str(caught.value).replace(str(path), "FILE")


# -- which files there are -----------------------------------------------------------------------------


def test_a_folder_gives_its_files_in_the_order_of_names(tmp_path: Path) -> None:
    for name in (
        "b.jsonl", "a.parquet", "deep/c.json", "d.jsonl.gz", ".hidden.jsonl", "_done/x.jsonl", "notes.txt",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = find_files(f"{tmp_path}/", "look again")
    names = ["a.parquet", "b.jsonl", "d.jsonl.gz", "deep/c.json"]
    assert (
        [file.name for file in found]
        == [file.path for file in found]
        == [f"{tmp_path}/{one}" for one in names]
    )
    assert [file.is_parquet for file in found] == [True, False, False, False]
    by_uri = find_files(f"file://{tmp_path}", "look again")
    assert [file.name for file in by_uri] == [f"file://{tmp_path}/{one}" for one in names]
    assert [file.path for file in by_uri] == [file.path for file in found]


def test_a_place_without_data_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.jsonl") == "no file or folder at FILE: look again"
    assert refusal(tmp_path) == (
        "the folder FILE holds no .parquet, .jsonl, .json, .jsonl.gz, .json.gz file: name another one"
    )
    (tmp_path / "data.csv").write_text("a,b")
    assert refusal(tmp_path / "data.csv") == (
        "FILE has none of the suffixes .parquet, .jsonl, .json, .jsonl.gz, .json.gz: convert or rename it"
    )


# -- JSON lines ----------------------------------------------------------------------------------------


def test_lines_end_at_newlines_only_and_blank_ones_are_counted_and_left_out(tmp_path: Path) -> None:
    text = "one\u2028two\u2029three\x85four\x0bfive\rsix"
    path = tmp_path / "data.jsonl"
    line = json.dumps({"a": text}, ensure_ascii=False).encode()
    path.write_bytes(line + b"\r\n\n  \n" + line)
    rows = read(path)
    assert [(row.place, row.number, row.value) for row in rows] == [
        (str(path), 1, {"a": text}),
        (str(path), 4, {"a": text}),
    ]


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert values(tmp_path / "data.json") == [{"a": 1}]


def test_gzipped_lines_are_read(tmp_path: Path) -> None:
    (tmp_path / "data.json.gz").write_bytes(gzip.compress(b'{"a": 1}\n{"a": 2}'))
    assert values(tmp_path / "data.json.gz") == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("line", "reason", "detail"),
    [
        (b'{"a": oops}', "not_json", "Expecting value: line 1 column 7 (char 6)"),
        (b"[" * 200_000, "not_json", "maximum recursion depth exceeded"),
        (b'{"a": "\xff"}', "not_utf8", "invalid start byte at byte 7 of the line"),
        (b"[1]", "wrong_type", "a JSON list, expected an object"),
        (b"null", "wrong_type", "a JSON NoneType, expected an object"),
    ],
)
def test_a_broken_line_is_a_row_with_its_reason(line: bytes, reason: str, detail: str) -> None:
    good, bad, after = json_lines("here", io.BytesIO(b'{"a": 1}\n' + line + b'\n{"a": 2}\n'))
    assert (good.value, after.value) == ({"a": 1}, {"a": 2})
    assert (bad.place, bad.number, bad.value, bad.reason) == ("here", 2, None, reason)
    assert bad.detail.startswith(detail) and bad.text == line.decode("utf-8", "replace")


@given(st.lists(st.binary(max_size=12).filter(lambda line: b"\n" not in line), max_size=6))
def test_any_bytes_are_rows(lines: list[bytes]) -> None:
    rows = list(json_lines("here", io.BytesIO(b"\n".join(lines))))
    assert all((row.value is None) == bool(row.reason) for row in rows)
    assert len(rows) <= len(lines) and [row.number for row in rows] == sorted({row.number for row in rows})


# -- Parquet -------------------------------------------------------------------------------------------


def test_of_parquet_only_the_columns_that_are_asked_for_are_read(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    pq.write_table(pa.table({"a": [1, 2], "b": ["x", None], "c": [[1], []]}), path)
    rows = read(path, "b", "missing", "a")
    assert [(row.number, row.value) for row in rows] == [(1, {"b": "x", "a": 1}), (2, {"b": None, "a": 2})]
    [file] = find_files(str(path), "look again")
    assert parquet_columns(file) == ["a", "b", "c"]


def test_text_that_is_not_utf8_costs_its_row_only_wherever_it_lies(tmp_path: Path) -> None:
    """600 rows are three batches; Parquet's writer does not look at the bytes of a text."""
    texts = [b"text %d" % number for number in range(600)]
    bad = (0, 255, 256, 411, 599)
    for number in bad:
        texts[number] = b"bad \xff%d" % number
    path = tmp_path / "data.parquet"
    pq.write_table(pa.table({"a": pa.array(texts).view(pa.string()), "n": list(range(600))}), path)
    rows = read(path, "a", "n")
    assert [row.number for row in rows] == list(range(1, 601))
    assert [row.number - 1 for row in rows if row.reason] == list(bad)
    assert {(row.reason, row.detail) for row in rows if row.value is None} == {
        ("not_utf8", "invalid start byte at byte 4")
    }
    assert rows[411].text == "bad \ufffd411"
    assert all(
        row.value == {"a": f"text {number}", "n": number}
        for number, row in enumerate(rows)
        if number not in bad
    )


# -- damage --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["empty.jsonl", "empty.parquet"])
def test_a_file_of_no_bytes_has_no_rows(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    assert read(tmp_path / name) == []
    [file] = find_files(str(tmp_path / name), "look again")
    assert file.is_empty()


def test_damage_is_one_message_that_names_the_file(tmp_path: Path) -> None:
    parquet, zipped = tmp_path / "data.parquet", tmp_path / "data.jsonl.gz"
    parquet.write_bytes(b"PAR1 this is not one")
    assert refusal(parquet).startswith("cannot read FILE: Parquet magic bytes not found in footer")
    assert refusal(parquet).endswith("; restore it or name another file") and "\n" not in refusal(parquet)
    zipped.write_bytes(gzip.compress(b'{"a": 1}\n' * 5000)[:-20])
    assert refusal(zipped) == (
        "cannot read FILE: Compressed file ended before the end-of-stream marker was reached; restore it or "
        "name another file"
    )
    zipped.write_bytes(b"plain text")
    assert refusal(zipped).startswith("cannot read FILE: Not a gzipped file")


def test_the_remedy_is_the_readers_and_other_errors_pass() -> None:
    with (
        pytest.raises(InputError, match=r"^cannot read x: EOFError; restore it or leave it out$"),
        naming_damage("x", "leave it out"),
    ):
        raise EOFError
    with pytest.raises(KeyError), naming_damage("x"):
        raise KeyError("a bug")


def test_rows_before_the_damage_come_out(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl.gz"
    whole = gzip.compress(b"".join(b'{"a": %d}\n' % number for number in range(50_000)), mtime=0)
    path.write_bytes(whole[: len(whole) // 2])
    [file] = find_files(str(path), "look again")
    came = []
    with pytest.raises(InputError), naming_damage(file.name):
        for row in file_rows(file, ()):
            came.append(row.value)
    assert came[:2] == [{"a": 0}, {"a": 1}] and 1_000 < len(came) < 50_000
