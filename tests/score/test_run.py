"""The score command on a real Ray: every conversation once, also when it is interrupted."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

from music_ray.errors import InputError, RunFolderError, StageError
from music_ray.jobs.shards import read_index
from music_ray.rundir import RunDir
from music_ray.score.model import open_model
from music_ray.score.run import run_score
from music_ray.score.settings import scoring_config
from tests.reward.conftest import conversation
from tests.score.conftest import make_conversations

REPOSITORY = Path(__file__).resolve().parents[2]
WORDS = (
    "score.engine=huggingface",
    "ray.num_cpus=3",
    "generate.conversations_per_task=4",
    "generate.tasks_in_flight=2",
    "generate.flush_rows=8",
    "generate.flush_seconds=0.3",
)
Rewards = Callable[[Sequence[Any]], list[float]]


@pytest.fixture(scope="module")
def ray_up():
    import ray

    from music_ray.config.load import resolve_config
    from music_ray.ray_session import ensure_ray

    ensure_ray(resolve_config({"name": "t", "ray": {"num_cpus": 3}}))
    yield
    ray.shutdown()


def result(run: RunDir) -> list[dict[str, Any]]:
    return [row for path in run.parquet_files("scores") for row in pq.read_table(path).to_pylist()]


def rows_in_shards(run: RunDir) -> list[int]:
    """Ids of all rows of all shards, duplicates and those that count no more included."""
    return run.read_ids("shards").tolist()


@pytest.mark.slow
def test_pairs_are_scored_on_both_sides_and_what_cannot_be_is_said(
    ray_up, tmp_path: Path, write_rows, reward_folder: Path, plain_rewards: Rewards, capsys
) -> None:
    made = make_conversations(40)
    rows: list[Any] = [
        {"id": f"p{number}", "chosen": one, "rejected": other}
        for number, (one, other) in enumerate(zip(made[::2], made[1::2], strict=True))
    ]
    rows[3]["rejected"] = conversation("a " * 300, "b")
    rows[4]["chosen"] = [*conversation("a", "b"), *conversation("c", "d")[1:]]
    rows[5] = b"{no json"
    data = write_rows(*rows)
    run = run_score(str(reward_folder), str(data), str(tmp_path / "out"), WORDS)
    found = result(run)
    assert [(one["row"], one["column"]) for one in found] == [
        (number, column) for number in range(20) for column in ("chosen", "rejected")
    ]
    errors = {(one["id"], one["column"]): one["reason"] for one in found if one["status"] == "error"}
    assert errors == {
        ("p3", "rejected"): "over_length",
        ("p4", "chosen"): "template_refused",
        ("5", "chosen"): "not_json",
        ("5", "rejected"): "not_json",
    }
    good = [one for one in found if one["status"] == "ok"]
    assert len(good) == 36
    expected = plain_rewards([rows[one["row"]][one["column"]] for one in good])
    for one, reward in zip(good, expected, strict=True):
        assert one["score"] == pytest.approx(reward, abs=1e-5) and one["num_tokens"] > 10
    metadata = pq.read_schema(run.parquet_files("scores")[0]).metadata
    assert metadata[b"music_ray.model"] == open_model(str(reward_folder)).digest.encode()
    assert metadata[b"music_ray.engine"] == b"huggingface" and metadata[b"music_ray.dtype"] == b"float32"
    record = json.loads(run.read_text("score.json"))
    assert record["counts"]["scored"] == 36 and record["status"] == "done" and not run.exists("in")
    assert record["counts"]["error_reasons"] == {"not_json": 2, "over_length": 1, "template_refused": 1}
    said = capsys.readouterr().out
    assert "score: 36 of 40 conversations scored" in said
    assert "not scored: not_json 2, over_length 1, template_refused 1" in said

    shards = sorted(run.parquet_files("shards"))
    run_score(str(reward_folder), str(data), str(tmp_path / "out"), WORDS)
    assert "score: finished in" in capsys.readouterr().out and sorted(run.parquet_files("shards")) == shards
    # The failed ones once more, and no others; a longer bound does not help over the model's own.
    run_score(str(reward_folder), str(data), str(tmp_path / "out"), [*WORDS, "generate.retry_errors=true"])
    assert len(rows_in_shards(run)) == 44 and result(run) == found
    write_rows(*rows[:10])
    with pytest.raises(RunFolderError, match="holds scores of another input"):
        run_score(str(reward_folder), str(data), str(tmp_path / "out"), WORDS)


@pytest.mark.slow
def test_a_bound_ends_it_and_the_same_command_goes_on_without_scoring_twice(
    ray_up, tmp_path: Path, write_rows, reward_folder: Path, plain_rewards: Rewards
) -> None:
    made = make_conversations(400)
    # Half of the first ones can't be scored.
    rows = [{"messages": [] if number < 160 and number % 2 else one} for number, one in enumerate(made)]
    arguments = (str(reward_folder), str(write_rows(*rows)), str(tmp_path / "out"))
    with pytest.raises(StageError, match=r"rows failed \(empty \d+\), generate.max_error_rate is 0.2"):
        run_score(*arguments, [*WORDS, "generate.max_error_rate=0.2", "generate.error_rate_after=20"])
    run = RunDir(scoring_config(open_model(str(reward_folder)), arguments[2], WORDS))
    before = rows_in_shards(run)
    assert 20 <= len(before) < 400 and not run.exists("scores")
    run_score(*arguments, WORDS)
    after = rows_in_shards(run)
    assert len(after) == len(set(after)) == 400 and set(before) <= set(after)
    found = result(run)
    assert [one["row"] for one in found] == list(range(400))
    assert sum(one["status"] == "ok" for one in found) == 320
    some = [one for one in found if one["status"] == "ok"][::40]
    for one, reward in zip(some, plain_rewards([made[one["row"]] for one in some]), strict=True):
        assert one["score"] == pytest.approx(reward, abs=1e-5)


@pytest.mark.slow
def test_nothing_that_can_be_scored_is_an_error_with_its_reasons(
    ray_up, tmp_path: Path, write_rows, reward_folder: Path
) -> None:
    data = write_rows({"messages": []}, {"messages": conversation("a")})
    with pytest.raises(
        StageError,
        match=r"none of the 2 conversations could be scored \(empty 1, not_ending_on_assistant 1\)",
    ):
        run_score(str(reward_folder), str(data), str(tmp_path / "out"), WORDS)


def test_a_refused_command_leaves_no_folder(tmp_path: Path, write_rows, reward_folder: Path) -> None:
    with pytest.raises(InputError, match=r"no file or folder at none\.jsonl"):
        run_score(str(reward_folder), "none.jsonl", str(tmp_path / "out"), WORDS)
    data = write_rows({"messages": []})
    with pytest.raises(InputError, match="is no reward model"):
        run_score(str(reward_folder.parent / "base"), str(data), str(tmp_path / "out"), WORDS)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.faults
def test_a_killed_command_goes_on_where_it_was(
    tmp_path: Path, write_rows, reward_folder: Path, plain_rewards: Rewards
) -> None:
    made = make_conversations(3000)
    data = write_rows(*({"messages": one} for one in made))
    command = [sys.executable, "-m", "music_ray", "score", str(reward_folder), str(data), "--out"]
    command += [str(tmp_path / "out"), *WORDS]
    run = RunDir(scoring_config(open_model(str(reward_folder)), str(tmp_path / "out"), WORDS))
    driver = subprocess.Popen(command, cwd=REPOSITORY, start_new_session=True)
    deadline = time.monotonic() + 200
    while len(read_index(run, ("shards",)).ids) < 100:
        assert driver.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    children = psutil.Process(driver.pid).children(recursive=True)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert [one for one in alive if one.name().startswith("ray::MapWorker")] == []
    flushed = set(read_index(run, ("shards",)).ids.tolist())
    assert 100 <= len(flushed) < 3000
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    assert f"score: {len(flushed)} of 3000 conversations are scored already" in done.stdout
    after = rows_in_shards(run)
    assert len(after) == len(set(after)) == 3000 and flushed <= set(after)
    found = result(run)
    assert [one["score"] for one in found[::300]] == pytest.approx(plain_rewards(made[::300]), abs=1e-5)
