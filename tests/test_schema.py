"""The rows that stages hand to one another: ids, splits, round trips."""

from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from music_ray.errors import InputError
from music_ray.schema import (
    MARGIN_PAIR_SCHEMA,
    PAIR_SCHEMA,
    ROLLOUT_SCHEMA,
    SEED_SCHEMA,
    Call,
    Contrast,
    Message,
    PreferencePair,
    Rollout,
    SeedContext,
    Writer,
    check_version,
    content_id,
    conversation_hash,
    count_user_turns,
    first_difference,
    pair_from_row,
    rollout_from_row,
    seed_from_row,
    to_table,
    unit_interval,
)

CONTEXT: list[Message] = [{"role": "user", "content": "Grüße\n\u2028 𐀀 \x00"}]
CHOSEN: list[Message] = [*CONTEXT, {"role": "assistant", "content": "good"}]
REJECTED: list[Message] = [*CONTEXT, {"role": "assistant", "content": "bad"}]
CONTRAST = Contrast(1, "asked", "instead", "neighbour", 2)


def test_ids_are_the_same_on_every_machine() -> None:
    # Pinned: another value would renumber every run that exists.
    assert content_id(["a", 1, None, 0.5]) == 4824766903702415724
    assert content_id({"b": 1, "a": "é"}) == content_id({"a": "é", "b": 1}) == 6137418742291435999
    assert unit_interval("held_out", 0, 1) == 0.9352639145399807
    assert content_id("\ud800") == content_id("\ud800")


@given(st.text(), st.integers())
def test_ids_fit_a_signed_64_bit_column(text: str, number: int) -> None:
    assert 0 <= content_id([text, number]) < 2**63
    assert 0.0 <= unit_interval(text, number) < 1.0


def test_the_unit_interval_has_no_1(monkeypatch: pytest.MonkeyPatch) -> None:
    # One hash in 2**54 would be rounded up, and index a list past its end.
    monkeypatch.setattr("music_ray.schema.content_id", lambda _: 2**63 - 1)
    assert unit_interval() == 1 - 2**-53


def test_a_conversation_goes_by_its_first_user_message() -> None:
    assert conversation_hash(CHOSEN) == conversation_hash(REJECTED) == conversation_hash(CONTEXT)
    spaced: list[Message] = [{"role": "user", "content": " a  b\n"}]
    plain: list[Message] = [{"role": "system", "content": "x"}, {"role": "user", "content": "a b"}]
    assert conversation_hash(spaced) == conversation_hash(plain) != conversation_hash(CONTEXT)
    assert count_user_turns(plain) == 1


@pytest.mark.parametrize(
    ("chosen", "rejected", "turn"),
    [
        ("uaua", "uaua", 0),
        ("uA", "ua", 1),
        ("Ua", "ua", 1),
        ("uauA", "uaua", 2),
        ("uaUa", "uaua", 2),
        ("uAua", "uauA", 1),
        ("ua", "uaua", 2),
        ("uaua", "ua", 2),
        ("", "", 0),
        ("", "u", 1),
    ],
)
def test_the_first_turn_that_differs(chosen: str, rejected: str, turn: int) -> None:
    def messages(signs: str) -> list[Message]:
        return [{"role": "user" if sign in "uU" else "assistant", "content": sign} for sign in signs]

    assert first_difference(messages(chosen), messages(rejected)) == turn


ROLLOUT = Rollout(
    id=1, source="s", conversation=5, status="ok", reason="", detail="", context=CONTEXT, chosen=CHOSEN,
    rejected=REJECTED, num_generated_turns=1, first_contrast_turn=1, contrasts=[CONTRAST],
    calls=[Call(1, "shared", "assistant", 2**63 - 1, 10, 4, 3, "stop", True, 0.25)],
    engine="vllm", model="m", model_revision="r", prompt_hash="h", run_epoch=1, seconds=0.5,
    writers=[Writer("assistant", "vllm", "m", "r", "{}")],
)  # fmt: skip


def test_rows_survive_parquet(tmp_path: Path) -> None:
    seed = SeedContext(2**63 - 1, "s", "p", 5, CONTEXT)
    rollout = ROLLOUT
    error = Rollout(
        id=2, source="s", conversation=5, status="error", reason="bad_seed", detail="x", context=[],
        chosen=[], rejected=[], num_generated_turns=0, first_contrast_turn=0, contrasts=[], calls=[],
        engine="vllm", model="m", model_revision="", prompt_hash="h", run_epoch=1, seconds=0.0,
    )  # fmt: skip
    pair = PreferencePair("music-1", "s", "D_MUSIC", 5, 1, 1, CHOSEN, REJECTED, 1, [CONTRAST])
    of_d = PreferencePair("d-1", "s", "D", 5, 1, 1, CHOSEN, REJECTED)
    for rows, schema, back in (
        ([seed], SEED_SCHEMA, seed_from_row),
        ([rollout, error], ROLLOUT_SCHEMA, rollout_from_row),
        ([pair, of_d], PAIR_SCHEMA, pair_from_row),
        ([pair, of_d, replace(of_d, margin=0.25)], MARGIN_PAIR_SCHEMA, pair_from_row),
    ):
        pq.write_table(to_table(rows, schema), tmp_path / "x.parquet")
        table = pq.read_table(tmp_path / "x.parquet")
        assert table.schema.metadata == schema.metadata
        assert table.schema.equals(schema)
        assert [back(row) for row in table.to_pylist()] == rows


def test_a_file_of_a_newer_program_is_refused() -> None:
    check_version(pa.schema([]), "x")
    check_version(PAIR_SCHEMA, "x")
    newer = PAIR_SCHEMA.with_metadata({"music_ray.version": "4"})
    with pytest.raises(InputError) as caught:
        check_version(newer, "x.parquet")
    assert str(caught.value) == (
        "x.parquet has schema version 4, but this music_ray reads up to 3: upgrade music_ray"
    )


def test_a_rollout_of_version_1_is_still_read() -> None:
    row = asdict(ROLLOUT)
    del row["writers"]
    for call in row["calls"]:
        del call["seconds"]
    old = rollout_from_row(row)
    assert old.writers == [] and [call.seconds for call in old.calls] == [0.0] * len(ROLLOUT.calls)
    assert replace(old, writers=ROLLOUT.writers, calls=ROLLOUT.calls) == ROLLOUT
