"""The same command with another longest conversation, and the same command where nothing could be scored.

Rows are made in this process (tests/score/in_process.py); what lies around that is real.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from music_ray.errors import RunFolderError, StageError
from music_ray.rundir import RunDir
from music_ray.score.files import open_input
from music_ray.score.model import open_model
from music_ray.score.run import made_from, run_score
from music_ray.score.settings import scoring_config
from tests.reward.conftest import conversation
from tests.score.in_process import Job

Score = Callable[..., RunDir]


@pytest.fixture
def score(job: Job, reward_folder: Path, write_rows: Callable[..., Path], tmp_path: Path) -> Score:
    """score(100): conversations of 9, 78, 128 and 9 tokens, and one that is malformed, with that bound."""
    rows: list[Any] = [{"messages": conversation("a", "b " * words)} for words in (1, 70, 120, 1)]
    data = write_rows(*rows, {"messages": "a"})

    def run(bound: int, *words: str) -> RunDir:
        words = ("score.engine=huggingface", f"engine.max_model_len={bound}", *words)
        return run_score(str(reward_folder), str(data), str(tmp_path / "out"), words)

    return run


def found(run: RunDir) -> list[Any]:
    """Scores, or the reasons why there is none."""
    rows = [row for path in run.parquet_files("scores") for row in pq.read_table(path).to_pylist()]
    return [row["reason"] or row["score"] for row in rows]


def record(run: RunDir) -> dict[str, Any]:
    return json.loads(run.read_text("score.json"))


def test_a_raised_bound_scores_what_fits_now_and_nothing_else(score: Score, job: Job, capsys) -> None:
    run = score(64)
    assert found(run) == [9.0, "over_length", "over_length", 9.0, "wrong_type"]
    assert record(run)["max_model_len"] == 64
    capsys.readouterr()
    assert found(score(100)) == [9.0, 78.0, "over_length", 9.0, "wrong_type"]
    said = capsys.readouterr().out
    assert (
        "score: 1 conversations were too long and now fit into engine.max_model_len (100): they are scored"
        in said
    )
    assert job.taken == [[0, 1, 2, 3, 4], [1]] and record(run)["max_model_len"] == 100
    score(100)
    assert "score: finished in" in capsys.readouterr().out and len(job.taken) == 2
    # What a new folder would have, though nothing fits that did not.
    assert found(score(110)) == [9.0, 78.0, "over_length", 9.0, "wrong_type"] and len(job.taken) == 2


def test_two_bounds_are_not_mixed_by_an_interruption(score: Score, job: Job) -> None:
    job.stop_after = 3
    with pytest.raises(StageError, match="interrupted"):
        score(64)
    job.stop_after = 1
    with pytest.raises(StageError, match="interrupted"):
        score(200)
    job.stop_after = None
    assert found(score(200)) == [9.0, 78.0, 128.0, 9.0, "wrong_type"]
    assert job.taken == [[0, 1, 2], [1], [2, 3, 4]]


def test_a_bound_below_what_is_scored_is_refused(score: Score, job: Job, tmp_path: Path) -> None:
    run = score(200)
    out = run.display()
    before = run.read_text("score.json")
    with pytest.raises(RunFolderError) as caught:
        score(100)
    assert str(caught.value) == (
        f"{out} holds scores of conversations of up to 128 tokens, made with engine.max_model_len=200; now "
        "engine.max_model_len is 100: set engine.max_model_len=200, or name a new folder with --out"
    )
    assert run.read_text("score.json") == before
    assert found(score(130)) == [9.0, 78.0, 128.0, 9.0, "wrong_type"]  # all of them fit
    assert len(job.taken) == 1


def test_a_folder_that_does_not_say_its_bound(score: Score, job: Job) -> None:
    """As they were before the bound was recorded."""

    def forget(run: RunDir) -> None:
        known = record(run)
        del known["max_model_len"]
        run.write_text(json.dumps(known), "score.json")

    run = score(100)
    forget(run)
    with pytest.raises(RunFolderError) as caught:
        score(64)
    assert str(caught.value) == (
        f"{run.display()} holds scores of conversations of up to 78 tokens; now engine.max_model_len is 64: "
        "set it to 78 or more, or name a new folder with --out"
    )
    assert found(score(100))[1:3] == [78.0, "over_length"] and len(job.taken) == 1
    forget(run)
    assert found(score(200))[1:3] == [78.0, 128.0] and job.taken[1:] == [[2]]


def test_a_bound_that_decides_all_scores_is_part_of_what_they_are_made_from(
    reward_folder: Path, write_rows: Callable[..., Path]
) -> None:
    """vLLM takes LongRoPE's long factors for every conversation once the bound is above the model's own."""
    phi3 = replace(open_model(str(reward_folder)), long_beyond=128)
    source = open_input(str(write_rows({"messages": []})))

    def factors(engine: str, bound: int) -> str | None:
        words = (f"score.engine={engine}", f"engine.max_model_len={bound}")
        return made_from(phi3, source, scoring_config(phi3, "out", words)).get("position_factors")

    assert (factors("vllm", 128), factors("vllm", 129)) == ("short", "long")
    assert factors("huggingface", 129) is None


def test_nothing_that_can_be_scored_is_an_error_every_time(
    job: Job, reward_folder: Path, write_rows: Callable[..., Path], tmp_path: Path, capsys
) -> None:
    data = write_rows({"messages": []}, {"messages": conversation("a")})
    arguments = (str(reward_folder), str(data), str(tmp_path / "out"), ["score.engine=huggingface"])
    said = []
    for _ in range(2):
        with pytest.raises(StageError) as caught:
            run_score(*arguments)
        said.append(str(caught.value))
    assert said[0] == said[1]
    assert said[0].startswith(
        "none of the 2 conversations could be scored (empty 1, not_ending_on_assistant 1): the `detail` "
    )
    assert "finished" not in capsys.readouterr().out and len(job.taken) == 1
