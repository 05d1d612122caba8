"""eval_overlap: which words are compared, how sets are read, and what is said of an overlap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from music_ray.config import GatesConfig
from music_ray.errors import InputError
from music_ray.generate.gates import Jury, first_refusal
from music_ray.generate.gates.eval_overlap import EvalOverlap
from music_ray.generate.gates.eval_sets import EvalSet, read_eval_sets
from music_ray.schema import Message, Rollout

Maker = Callable[..., Rollout]
LETTERS = list("abcdefghijklmnopqrstuvwxyz")
THIRTEEN = " ".join(LETTERS[:13])


def gates_with(path: str, *columns: str, **values: Any) -> GatesConfig:
    entry = {"path": path, "name": "exam", "columns": list(columns or ["prompt"])}
    return GatesConfig(eval_sets=[entry], length_ratio=False, **values)


def with_seed(rollout: Rollout, text: str) -> Rollout:
    seed: list[Message] = [{"role": "user", "content": text}]
    chosen, rejected = seed + rollout.chosen[1:], seed + rollout.rejected[1:]
    return replace(rollout, context=seed, chosen=chosen, rejected=rejected)


def test_a_leaked_prompt_of_the_seed_is_found(make_rollout: Maker, write_jsonl: Callable[..., str]) -> None:
    path = write_jsonl({"prompt": f"Start. {THIRTEEN}, end!"}, {"prompt": None}, {"other": 1})
    gates = gates_with(path)
    plain = make_rollout(1)
    leaked = with_seed(plain, f"Please: {THIRTEEN.upper()}?!")
    found = first_refusal(leaked, gates)
    assert found is not None and found.reason == "eval_overlap"
    assert found.detail == f"message 1 (seed) shares 13 words with the evaluation set exam: '{THIRTEEN}'"
    assert first_refusal(plain, gates) is None
    twelve = with_seed(plain, "x " + " ".join(LETTERS[1:13]) + " x")
    assert first_refusal(twelve, gates) is None


def test_generated_messages_of_both_sides_are_compared(
    make_rollout: Maker, write_jsonl: Callable[..., str]
) -> None:
    gates = gates_with(write_jsonl({"prompt": THIRTEEN}))
    for side, place in (("chosen", "message 4 (chosen)"), ("rejected", "message 4 (rejected)")):
        rollout = make_rollout(1, **{side: ["A first answer.", "And then?", THIRTEEN]})
        refusal = first_refusal(rollout, gates)
        assert refusal is not None and refusal.detail.startswith(f"{place} shares 13 words")


def test_a_short_prompt_is_compared_as_a_whole(make_rollout: Maker, write_jsonl: Callable[..., str]) -> None:
    path = write_jsonl({"prompt": "How can I bake a cake?"}, {"prompt": "Who is it there?"})
    plain = make_rollout(1)
    gates = gates_with(path)
    same = first_refusal(with_seed(plain, "how can I bake a CAKE"), gates)
    assert same is not None
    assert same.detail == "message 1 (seed) is a text of the evaluation set exam: 'how can i bake a cake'"
    for other in ("How can I bake a cake today?", "Who is it there?"):
        assert first_refusal(with_seed(plain, other), gates) is None


@pytest.mark.parametrize(
    "value",
    [
        THIRTEEN,
        ["short", THIRTEEN],
        [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": THIRTEEN}],
        [{"from": "human", "value": THIRTEEN}],
    ],
)
@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_columns_hold_text_or_lists_of_it(
    value: Any, suffix: str, tmp_path: Path, write_jsonl: Callable[..., str]
) -> None:
    if suffix == "parquet":
        path = str(tmp_path / "exam.parquet")
        pq.write_table(pa.Table.from_pylist([{"prompt": value, "id": 1}]), path)
    else:
        path = write_jsonl({"prompt": value, "id": 1})
    [read] = read_eval_sets(gates_with(path))
    assert (read.name, len(read.ngrams), len(read.whole)) == ("exam", 1, 0)


def test_a_folder_is_read_and_named_after_itself(write_jsonl: Callable[..., str], tmp_path: Path) -> None:
    write_jsonl({"prompt": THIRTEEN}, name="bench/a.jsonl")
    write_jsonl({"prompt": f"{THIRTEEN} n"}, name="bench/b.jsonl")
    gates = GatesConfig(eval_sets=[{"path": str(tmp_path / "bench"), "columns": ["prompt"]}])
    [read] = read_eval_sets(gates)
    assert (read.name, len(read.ngrams)) == ("bench", 2)


def test_a_dataset_of_the_hub_is_read(tmp_path: Path) -> None:
    """A folder stands in for a repository of the hub: the datasets library treats them alike."""
    (tmp_path / "set").mkdir()
    pq.write_table(pa.table({"prompt": [THIRTEEN]}), tmp_path / "set" / "test-00000-of-00001.parquet")
    entry = {"hub": str(tmp_path / "set"), "columns": ["prompt"]}
    [read] = read_eval_sets(GatesConfig(eval_sets=[entry]))
    assert (read.name, len(read.ngrams)) == (str(tmp_path / "set"), 1)
    with pytest.raises(InputError, match=r"revision and split in pairs\.gates\.eval_sets"):
        read_eval_sets(GatesConfig(eval_sets=[{**entry, "split": "nope"}]))


def test_what_is_wrong_with_a_set_is_said(write_jsonl: Callable[..., str], tmp_path: Path) -> None:
    def problem(path: str, *columns: str) -> str:
        with pytest.raises(InputError) as error:
            Jury(gates_with(path, *columns))
        return str(error.value)

    gone = str(tmp_path / "gone.jsonl")
    assert problem(gone) == f"no file or folder at {gone}: check the path in pairs.gates.eval_sets"
    rows = write_jsonl({"prompt": THIRTEEN, "score": 3, "few": "too few words"}, name="rows.jsonl")
    assert problem(rows, "prompt", "question") == (
        f"{rows} has no column `question`, it has `few`, `prompt`, `score`: correct pairs.gates.eval_sets"
    )
    assert problem(rows, "score") == (
        f"{rows} row 1: `score` holds a value of type int, expected text, or a list of texts or of "
        "{role, content} messages: name another column in pairs.gates.eval_sets"
    )
    assert problem(rows, "few") == (
        "the evaluation set exam holds no text of 6 words or more in `few`: name other columns in "
        "pairs.gates.eval_sets"
    )
    broken = write_jsonl(b"{", name="broken.jsonl")
    assert problem(broken).startswith(f"{broken} row 1 is unreadable (")
    damaged = tmp_path / "damaged.parquet"
    damaged.write_bytes(b"PAR1 no")
    assert problem(str(damaged)).startswith(f"cannot read {damaged}: ")
    unchecked = tmp_path / "unchecked.parquet"
    texts = pa.array([THIRTEEN.encode(), b"no \xff"]).view(pa.string())
    pq.write_table(pa.table({"prompt": texts}), unchecked)
    assert problem(str(unchecked)) == (
        f"{unchecked} row 2 is unreadable (invalid start byte at byte 3): mend it or remove it from "
        "pairs.gates.eval_sets"
    )
    table = tmp_path / "table.parquet"
    pq.write_table(pa.table({"id": [1]}), table)
    assert problem(str(table)) == (
        f"{table} has no column `prompt`, it has `id`: correct pairs.gates.eval_sets"
    )


def test_the_configuration_of_a_set_is_checked() -> None:
    for entry, message in (
        ({"columns": ["a"]}, "exactly one of `path`"),
        ({"columns": ["a"], "path": "x", "hub": "y"}, "exactly one of `path`"),
        ({"columns": [], "path": "x"}, "at least 1 item"),
        ({"path": "x"}, "Field required"),
    ):
        with pytest.raises(ValidationError, match=message):
            GatesConfig(eval_sets=[entry])
    with pytest.raises(ValidationError, match="2 evaluation sets are called 'x'"):
        GatesConfig(eval_sets=[{"path": f"{one}/x.jsonl", "columns": ["a"]} for one in "ab"])


TEXT = st.lists(st.sampled_from(["a", "b", "c"]), max_size=14).map(" ".join)


@settings(deadline=None)
@given(TEXT, TEXT, st.integers(6, 8))
def test_overlap_is_symmetric(one: str, other: str, ngram: int) -> None:
    """Whichever of two texts is the evaluation set's, they overlap or they don't."""

    def overlaps(known: str, seen: str) -> bool:
        exam = EvalSet("exam")
        exam.add(known, ngram)
        gates = GatesConfig(eval_ngram=ngram)
        seed: list[Message] = [{"role": "user", "content": seen}]
        rollout = Rollout(1, "s", 1, "ok", "", "", seed, seed, seed, 0, 0, [], [], "e", "m", "", "h", 1, 0.0)
        return bool(EvalOverlap(gates, [exam])(rollout))

    assert overlaps(one, other) == overlaps(other, one)
    assert overlaps(one, one) == (len(one.split()) >= 6)
    inside = f"x {one} x"
    assert overlaps(one, inside) == overlaps(inside, one) == (len(one.split()) >= ngram)


def test_leaks_between_real_sets_are_found(shared_data: Path, make_rollout: Maker) -> None:
    """The hh prompts of best_of_n.parquet open 327 conversations of dev, and none of train."""
    prompts = shared_data / "prompts" / "best_of_n.parquet"
    entry = {"path": str(prompts), "columns": ["prompt"]}
    gates = GatesConfig(eval_sets=[entry])
    overlap = EvalOverlap(gates, read_eval_sets(gates))
    plain, found = make_rollout(1), {}
    for name in ("train", "dev"):
        rows = pq.read_table(shared_data / "preferences" / f"{name}.parquet").to_pylist()
        sides = [{"chosen": row["chosen"], "rejected": row["rejected"]} for row in rows]
        found[name] = sum(bool(overlap(replace(plain, context=[], **side))) for side in sides)
    assert found == {"train": 0, "dev": 324}  # three of the 327 have fewer than 6 words
