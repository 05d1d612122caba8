"""Prompts: which rows become prompts, under which ids, and what is set aside."""

import pytest

from music_ray.config.load import resolve_config
from music_ray.errors import ConfigError, InputError
from music_ray.evaluate.best_of_n.prompts import Prompts, read_prompts
from music_ray.schema import content_id
from tests.evaluate.best_of_n.rules import talk


def read(path, **section) -> Prompts:
    config = resolve_config({"name": "t", "best_of_n": {"prompts": path, **section}})
    return read_prompts(config.best_of_n)


def test_texts_and_messages_are_prompts(write_prompts) -> None:
    found = read(
        write_prompts(
            {"id": "a", "prompt": "Hello", "source": "s", "answer": 18},
            {"id": 7, "prompt": talk("Hi", "Hello.", "And?")},
            {"id": "c", "prompt": [{"role": "system", "content": "Be brief."}, *talk("Hi")]},
        )
    )
    rows = {row["prompt_id"]: row for row in found.rows}
    assert rows["a"]["prompt"] == talk("Hello")
    assert (rows["a"]["source"], rows["a"]["answer"]) == ("s", "18")
    assert rows["7"]["prompt"] == talk("Hi", "Hello.", "And?") and rows["7"]["answer"] is None
    assert rows["c"]["prompt"] == talk("Be brief.\n\nHi")
    assert found.set_aside == {} and found.without_id == 0


def test_prompts_without_ids_are_named_by_their_content(write_prompts) -> None:
    found = read(
        write_prompts({"prompt": "one"}, {"id": None, "prompt": "two"}, {"id": "x", "prompt": "three"})
    )
    names = {row["prompt"][0]["content"]: row["prompt_id"] for row in found.rows}
    assert names == {
        "one": f"{content_id(talk('one')):016x}",
        "two": f"{content_id(talk('two')):016x}",
        "three": "x",
    }
    assert found.without_id == 2


def test_what_can_not_be_used_is_counted_by_its_reason(write_prompts) -> None:
    found = read(
        write_prompts(
            {"id": "a", "prompt": "one"},
            {"id": "b", "prompt": "one"},
            {"prompt": "one"},
            {"id": "a", "prompt": "two"},
            {"id": "c"},
            {"id": "d", "prompt": " \n"},
            {"id": "e", "prompt": 5},
            {"id": "f", "prompt": talk("Hi", "ends on a reply")},
            {"id": "g", "prompt": "half \ud83d of a smile"},
            {"id": "h", "prompt": talk("Hi", "Hello.", "half \ud83d")},
            {"id": "i", "prompt": "three", "answer": "\ud83d"},
            {"id": "\ud83d", "prompt": "four"},
            b"{ broken",
        )
    )
    assert [row["prompt_id"] for row in found.rows] == ["a"]
    assert found.set_aside == {
        "duplicate_prompt": 2, "duplicate_id": 1, "no_prompt": 1, "wrong_type": 3, "not_json": 1,
        "not_utf8": 4,
    }  # fmt: skip


def test_a_number_of_prompts_grows_by_adding(write_prompts) -> None:
    path = write_prompts(*({"id": str(number), "prompt": f"p{number}"} for number in range(20)))
    everything = [row["prompt_id"] for row in read(path).rows]
    assert sorted(everything, key=int) == [str(number) for number in range(20)] != everything
    assert [row["prompt_id"] for row in read(path, num_prompts=5).rows][:5] == everything[:5]
    some = {row["id"] for row in read(path, num_prompts=5).rows}
    assert some < {row["id"] for row in read(path, num_prompts=9).rows}


def test_sources_can_be_named(write_prompts) -> None:
    path = write_prompts({"id": "a", "source": "x", "prompt": "1"}, {"id": "b", "source": "y", "prompt": "2"})
    assert [row["prompt_id"] for row in read(path, sources=["y"]).rows] == ["b"]
    with pytest.raises(InputError, match=r"none of the 2 prompts of .* is of best_of_n.sources \(z\)"):
        read(path, sources=["z"])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ((), r"prompts\.jsonl holds no prompts: it has no rows; a row needs `prompt`"),
        (({"id": 1}, {"question": "?"}), r"none of its rows can be used \(no_prompt 2\)"),
    ],
)
def test_a_file_without_prompts_is_refused(write_prompts, rows, message) -> None:
    with pytest.raises(InputError, match=message):
        read(write_prompts(*rows))


def test_no_file_is_a_message(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"best_of_n\.prompts is empty: name a file of prompts"):
        read(None)
    with pytest.raises(InputError, match=r"no file or folder at .*none: name the prompts in best_of_n"):
        read(str(tmp_path / "none"))
