"""Verdict rows: a folder for each judge, and reading them back."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from music_ray.config import EndpointConfig, EngineConfig, SamplingConfig
from music_ray.config.base import select
from music_ray.config.load import resolve_config
from music_ray.judge import rows
from music_ray.judge.prompt import judge_hash
from music_ray.judge.rows import VERDICT_SCHEMA, VerdictRow, Verdicts, pair_id, verdict_folder
from music_ray.judge.verdict import Verdict
from music_ray.rundir import RunDir, digest
from music_ray.schema import to_table
from tests.judge.test_prompt import talk

ENGINE = EngineConfig(kind="scripted", model="m")
ROW = VerdictRow(
    id=5, seed_id=1, status="ok", reason="", detail="", first="A", second="B", outcome="chosen",
    first_answer="a", second_answer="b", prompt_tokens=10, cached_tokens=4, completion_tokens=3,
    engine="e", model="m", model_revision="", prompt_hash="h", seconds=0.5,
)  # fmt: skip


def test_the_columns_are_the_fields_in_their_order() -> None:
    assert VERDICT_SCHEMA.names == list(VerdictRow.__slots__)


def test_a_judge_has_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = verdict_folder(ENGINE, SamplingConfig())
    assert (folder[0], folder[2]) == ("judge", "shards")
    assert folder != verdict_folder(ENGINE.model_copy(update={"model": "n"}), SamplingConfig())
    assert folder != verdict_folder(ENGINE, SamplingConfig(max_tokens=9))
    assert folder == verdict_folder(ENGINE.model_copy(update={"max_engines": 9}), SamplingConfig())
    here, there = (
        EngineConfig(kind="endpoint", model="m", endpoint=EndpointConfig(base_url=f"http://{host}/v1"))
        for host in ("a", "b")
    )
    assert verdict_folder(here, SamplingConfig()) == verdict_folder(there, SamplingConfig())
    monkeypatch.setattr(rows, "judge_hash", lambda: "another prompt")
    assert folder != verdict_folder(ENGINE, SamplingConfig())


def test_an_id_is_of_what_is_read_and_in_which_roles() -> None:
    good, bad = talk("q", "good"), talk("q", "bad")
    assert pair_id(good, bad) == pair_id([dict(reversed(one.items())) for one in good], bad)  # type: ignore
    assert len({pair_id(good, bad), pair_id(bad, good), pair_id(good, talk("q", "worse"))}) == 3


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., RunDir]:
    """write(shard=[rows], …): a run folder with these shards of verdicts."""

    def go(**shards: list[Any]) -> RunDir:
        run = RunDir(resolve_config({"name": "r", "runs_dir": str(tmp_path)}))
        for name, verdicts in shards.items():
            run.write_table(to_table(verdicts, VERDICT_SCHEMA), "judge", "k", "shards", f"{name}.parquet")
        return run

    return go


def test_verdicts_are_read_back(write: Callable[..., RunDir]) -> None:
    error = replace(ROW, id=2, status="error", reason="rate_limited", second="", outcome="")
    invalid = replace(ROW, id=9, first="tie", second="invalid", outcome="invalid", prompt_tokens=1)
    run = write(e1=[ROW, error], e2=[invalid])
    verdicts = Verdicts(run, ("judge", "k", "shards"))
    assert verdicts.of(5) == (Verdict.A, Verdict.B) and verdicts.of(2) == "error"
    assert verdicts.of(9) == (Verdict.TIE, Verdict.INVALID)
    assert [verdicts.of(one) for one in (0, 3, 10)] == [None] * 3
    assert verdicts.tokens == {"prompt": 21, "cached": 12, "completion": 9}
    assert verdicts.reasons == {"rate_limited": 1}
    assert verdicts.tokens_of([9, 5, 9, 77]) == {"prompt": 11, "cached": 8, "completion": 6}
    assert verdicts.tokens_of([]) == verdicts.tokens_of([1]) == dict.fromkeys(verdicts.tokens, 0)
    metadata = pq.read_schema(run.parquet_files("judge")[0]).metadata
    assert metadata[b"music_ray.schema"] == b"verdict" and metadata[b"music_ray.version"] == b"3"


def test_a_verdict_counts_before_an_earlier_error(write: Callable[..., RunDir]) -> None:
    error = replace(ROW, status="error", reason="rate_limited", first="", second="")
    verdicts = Verdicts(write(e1=[error], e2=[ROW], e3=[error]), ("judge", "k", "shards"))
    assert verdicts.of(5) == (Verdict.A, Verdict.B) and verdicts.ids.tolist() == [5]


def test_without_a_folder_there_are_none(write: Callable[..., RunDir]) -> None:
    verdicts = Verdicts(write(), ("judge", "k", "shards"))
    assert verdicts.of(5) is None and verdicts.tokens == {"prompt": 0, "cached": 0, "completion": 0}


def test_a_key_that_is_not_set_moves_no_verdicts() -> None:
    """Verdicts are paid for: a new key at its default must not begin another folder."""
    engine, sampling = EngineConfig(kind="scripted"), SamplingConfig(temperature=0.0)
    known = {"temperature": 0.0, "top_p": 0.95, "repetition_penalty": 1.0, "max_tokens": 224}
    key = digest({"engine": select(engine, {"identity"}), "sampling": known, "prompt_hash": judge_hash()})
    assert verdict_folder(engine, sampling) == ("judge", key, "shards")
    begun = sampling.model_copy(update={"begin": "<verdict>"})
    assert verdict_folder(engine, begun) != verdict_folder(engine, sampling)
