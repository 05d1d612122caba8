"""The run folder: identity, fingerprints, the lock, atomic writes. Real files, real processes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from music_ray.config import RunConfig
from music_ray.config.load import apply_overrides, load_config, resolve_config
from music_ray.errors import InputError, RunFolderError, TransientError
from music_ray.rundir import EXCLUDED, FOLDERS, STAGES, RunDir, digest_ids, open_filesystem
from music_ray.schema import SCHEMA_VERSION, SEED_SCHEMA, SeedContext, to_table


def config_of(folder: Path | str, *overrides: str) -> RunConfig:
    return resolve_config(apply_overrides({"name": "r", "runs_dir": str(folder)}, overrides))


def opened(folder: Path | str, *overrides: str) -> RunDir:
    run = RunDir(config_of(folder, *overrides))
    run.open()
    return run


def finished(folder: Path) -> RunDir:
    """A run in which all stages are done."""
    run = opened(folder)
    for stage in STAGES:
        run.start_stage(stage)
        run.write_text("x", FOLDERS[stage], "result")
        run.finish_stage(stage, output=f"{stage}-1", seconds=1.0)
    assert unfinished(run) == []
    return run


def unfinished(run: RunDir) -> list[str]:
    return [stage for stage in STAGES if not run.is_finished(stage)]


def seeds_table(*ids: int) -> pa.Table:
    rows = [SeedContext(one, "s", "p", 1, [{"role": "user", "content": "a"}]) for one in ids]
    return to_table(rows, SEED_SCHEMA)


# -- identity --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("seed=8", "seed is 8, but {folder} was made with 0"),
        ("generate.turns=3", "generate.turns is 3, but {folder} was made with 5"),
        ("engine.model=a/b", 'engine.model is "a/b", but {folder} was made with "google/gemma-2-9b-it"'),
        (
            "contrast.schedule=from_turn:2",
            'contrast.schedule is "from_turn:2", but {folder} was made with "all"',
        ),
        ("user.sampling.temperature=0.5", "user.sampling.temperature is 0.5, but {folder} was made with 0.8"),
        ("seeds.max_tokens=512", "seeds.max_tokens is 512, but {folder} was made with null"),
        ("data.held_out_fraction=0.1", "data.held_out_fraction is 0.1, but {folder} was made with 0.05"),
    ],
)
def test_a_changed_identity_key_is_refused_with_both_values(tmp_path: Path, override: str, line: str) -> None:
    opened(tmp_path).write_text("x", FOLDERS["generate"], "shard")
    before = (tmp_path / "r" / "config.yaml").read_text()
    with pytest.raises(RunFolderError) as caught:
        opened(tmp_path, override)
    assert str(caught.value).splitlines() == [
        line.format(folder=f"{tmp_path}/r"),
        "set the old value again, or give this run another name",
    ]
    assert (tmp_path / "r" / "config.yaml").read_text() == before


@pytest.mark.parametrize(
    "override",
    [
        "seeds.num_seeds=31000", "engine.max_engines=16", "engine.max_num_seqs=512", "generate.flush_rows=1",
        "train.num_workers=8", "train.learning_rate=1e-5", "pairs.gates.looping=false",
        "evaluate.confidence=0.9", "mix.held_out_fraction=0.5", "report.max_pairs=3", "ray.num_cpus=2",
        "plan.train=10",
    ],
)  # fmt: skip
def test_growth_free_and_later_stages_keys_may_change(tmp_path: Path, override: str) -> None:
    opened(tmp_path)
    opened(tmp_path, override)
    stored = load_config(tmp_path / "r" / "config.yaml")
    assert stored == config_of(tmp_path, override)


def test_a_key_that_the_folder_does_not_know_had_its_default(tmp_path: Path) -> None:
    run = opened(tmp_path)
    run.write_text("x", FOLDERS["generate"], "shard")
    manifest = run.manifest()
    del manifest["identity"]["contrast.max_similarity"]
    run.write_text(json.dumps(manifest), "manifest.json")
    opened(tmp_path)
    run.write_text(json.dumps(manifest), "manifest.json")
    with pytest.raises(RunFolderError, match=r"contrast\.max_similarity is 0\.5, but .* was made with 0\.8"):
        opened(tmp_path, "contrast.max_similarity=0.5")


# -- what a stage was made from --------------------------------------------------------------------


def test_a_key_that_a_later_version_adds_makes_nothing_out_of_date(tmp_path: Path) -> None:
    finished(tmp_path)
    path = tmp_path / "r" / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["stages"]["train"]["made_from"]["keys"]["train.learning_rate"]
    path.write_text(json.dumps(manifest))
    assert unfinished(RunDir(config_of(tmp_path))) == []
    assert unfinished(RunDir(config_of(tmp_path, "train.learning_rate=0.5")))[0] == "train"


@pytest.mark.parametrize(
    ("override", "reruns"),
    [
        ("seeds.num_seeds=5", ["seeds"]),
        ("generate.turns=3", ["generate"]),
        ("contrast.schedule=from_turn:2", ["generate"]),
        ("user.sampling.top_p=0.5", ["generate"]),
        ("engine.model=a/b", ["generate"]),
        ("pairs.gates.looping=false", ["pairs"]),
        ("mix.include_music=false", ["mix"]),
        ("train.learning_rate=1e-5", ["train"]),
        ("train.lora.rank=4", ["train"]),
        ("evaluate.max_pairs=9", ["evaluate"]),
        ("report.max_pairs=9", ["report"]),
        ("seed=1", ["seeds", "generate", "train"]),
        ("data.held_out_fraction=0.5", ["seeds"]),
        # Free keys change no result.
        ("engine.max_engines=4", []),
        ("engine.enforce_eager=true", []),
        ("generate.tasks_in_flight=2", []),
        ("train.num_workers=4", []),
        ("train.use_gpu=true", []),
        ("train.zero.offload_optimizer=cpu", []),
        ("train.checkpoint_every=1", []),
        ("evaluate.batch_size=1", []),
        ("ray.num_cpus=3", []),
        ("plan.train=3", []),
    ],
)
def test_which_key_makes_which_stage_unfinished(tmp_path: Path, override: str, reruns: list[str]) -> None:
    finished(tmp_path)
    assert unfinished(RunDir(config_of(tmp_path, override))) == reruns


@pytest.mark.parametrize("stage", STAGES)
def test_a_new_result_makes_all_later_stages_unfinished(tmp_path: Path, stage: str) -> None:
    run = finished(tmp_path)
    run.finish_stage(stage, output="another", seconds=1.0)
    assert unfinished(run) == list(STAGES[STAGES.index(stage) + 1 :])


@pytest.mark.parametrize("stage", STAGES)
def test_the_same_result_made_again_does_not(tmp_path: Path, stage: str) -> None:
    run = finished(tmp_path)
    run.start_stage(stage)
    assert unfinished(run) == [stage]
    run.finish_stage(stage, output=f"{stage}-1", seconds=1.0)
    assert unfinished(run) == []


@pytest.mark.parametrize("stage", STAGES)
def test_a_result_that_was_removed_is_not_finished(tmp_path: Path, stage: str) -> None:
    run = finished(tmp_path)
    run.clear(FOLDERS[stage])
    assert unfinished(run) == [stage]


def test_marking_a_pair_reruns_the_pairs_stage_alone(tmp_path: Path) -> None:
    run = finished(tmp_path)
    run.write_text("music-1\n", *EXCLUDED)
    assert unfinished(run) == ["pairs"]
    run.start_stage("pairs")
    # Marked while the stage runs: its result does not have that, so the stage is not finished.
    run.write_text("music-1\nmusic-2\n", *EXCLUDED)
    run.finish_stage("pairs", output="pairs-1", seconds=1.0)
    assert unfinished(run) == ["pairs"]
    run.write_text("music-1\n", *EXCLUDED)
    assert unfinished(run) == []
    (tmp_path / "r" / "pairs" / "excluded.txt").write_bytes(b"\xff")
    assert unfinished(run) == ["pairs"]


# -- the manifest ----------------------------------------------------------------------------------


def test_a_stage_record_adds_up_over_starts(tmp_path: Path) -> None:
    run = opened(tmp_path)
    assert run.start_stage("generate") == {}
    run.add_seconds("generate", 5.0)
    assert run.start_stage("generate")["starts"] == 1
    run.finish_stage("generate", "out", 2.5, counts={"ok": 3}, tokens={"prompt": 9})
    record = run.manifest()["stages"]["generate"]
    assert (record["status"], record["starts"], record["seconds"], record["total_seconds"]) == (
        "done",
        2,
        2.5,
        7.5,
    )
    assert (record["counts"], record["tokens"], record["output"]) == ({"ok": 3}, {"prompt": 9}, "out")
    assert record["made_from"] == run.made_from("generate")


def test_the_manifest_says_what_made_the_run(tmp_path: Path) -> None:
    manifest = opened(tmp_path).manifest()
    assert manifest["manifest_version"] == 1
    assert {"music_ray", "python", "ray", "torch", "transformers", "pyarrow"} <= manifest["versions"].keys()
    assert manifest["identity"]["generate.turns"] == 5
    assert "engine.max_engines" not in manifest["identity"]
    created = manifest["created"]
    assert opened(tmp_path).manifest()["created"] == created


@pytest.mark.parametrize("content", ["{", "[]", "null", "{}", '{"stages": []}', ""])
def test_a_damaged_manifest_is_named_and_not_overwritten(tmp_path: Path, content: str) -> None:
    run = opened(tmp_path)
    path = tmp_path / "r" / "manifest.json"
    path.write_text(content)
    with pytest.raises(RunFolderError) as caught:
        run.open()
    message = str(caught.value)
    assert message.startswith(f"{path} is damaged (") and message.endswith(
        "): restore it, or use another name"
    )
    assert path.read_text() == content


def test_a_newer_manifest_is_refused(tmp_path: Path) -> None:
    run = opened(tmp_path)
    run.write_text('{"manifest_version": 2, "stages": {}}', "manifest.json")
    with pytest.raises(RunFolderError) as caught:
        run.open()
    assert str(caught.value) == (
        f"{tmp_path}/r/manifest.json has version 2, but this music_ray reads up to 1: upgrade music_ray"
    )


# -- files -----------------------------------------------------------------------------------------


def test_rows_come_back_in_file_order_and_temporary_files_are_no_data(tmp_path: Path) -> None:
    run = opened(tmp_path)
    run.write_table(seeds_table(3), "seeds", "contexts", "part-1.parquet")
    run.write_table(seeds_table(1, 2), "seeds", "contexts", "part-0.parquet")
    folder = tmp_path / "r" / "seeds" / "contexts"
    for name in (
        ".part-2.parquet",
        "_part-3.parquet",
        ".part-4.parquet.77.tmp",
        "part-5.parquet.tmp",
        "x.txt",
    ):
        (folder / name).write_bytes(b"half a fi")
    assert [row["id"] for row in run.read_rows("seeds", "contexts", columns=["id"])] == [1, 2, 3]
    assert run.parquet_files("nowhere") == []


def test_a_newer_schema_and_a_damaged_file_are_refused(tmp_path: Path) -> None:
    run = opened(tmp_path)
    path = tmp_path / "r" / "pairs" / "train-0.parquet"
    path.parent.mkdir()
    newer = pa.schema([("id", pa.int64())], metadata={"music_ray.version": str(SCHEMA_VERSION + 1)})
    pq.write_table(pa.table({"id": [1]}, schema=newer), path)
    with pytest.raises(InputError) as caught:
        list(run.read_rows("pairs"))
    assert str(caught.value) == (
        f"{path} has schema version {SCHEMA_VERSION + 1}, but this music_ray reads up to {SCHEMA_VERSION}: "
        "upgrade music_ray"
    )
    for damaged in (
        b"",
        b"PAR1",
        b"PAR1" + bytes(50),
        path.read_bytes()[:-20] + bytes(12) + b"\x08\0\0\0PAR1",
    ):
        path.write_bytes(damaged)
        with pytest.raises(
            InputError, match=r"is not a readable Parquet file .*: remove it and run the stage again"
        ):
            list(run.read_rows("pairs"))


def test_setting_aside_never_overwrites(tmp_path: Path) -> None:
    run = opened(tmp_path)
    assert run.set_aside("model", "abc") is None
    for number, kept in enumerate(["model-abc", "model-abc-2", "model-abc-3"]):
        run.write_text(str(number), "model", "weights")
        assert run.set_aside("model", "abc") == f"{tmp_path}/r/{kept}"
        assert not run.exists("model")
    texts = [run.read_text(kept, "weights") for kept in ("model-abc", "model-abc-2", "model-abc-3")]
    assert texts == ["0", "1", "2"]


def test_a_uri_works_like_a_path(tmp_path: Path) -> None:
    by_uri, by_path = opened(f"file://{tmp_path}"), RunDir(config_of(tmp_path))
    assert by_uri.is_local and by_uri.path("x") == by_path.path("x")
    by_uri.write_text("hello", "a", "b.txt")
    assert by_path.read_text("a", "b.txt") == "hello"
    assert by_uri.display("a") == f"file://{tmp_path}/r/a"
    with by_uri.lock(), pytest.raises(RunFolderError), by_path.lock():
        pass
    by_path.open()


def test_places_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for location in ("nosuch://bucket/x", "file://relative", "://"):
        with pytest.raises(InputError, match=f"cannot open {location}: "):
            open_filesystem(location)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_filesystem("~/runs")[1] == f"{tmp_path}/runs"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = opened(tmp_path)
    run.write_text("old", "a", "b.txt")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        run.write_text("new", "a", "b.txt")
    assert [path.name for path in (tmp_path / "r" / "a").iterdir()] == ["b.txt"]
    assert run.read_text("a", "b.txt") == "old"


def test_a_digest_of_ids_knows_no_order() -> None:
    assert digest_ids([3, 1, "2"]) == digest_ids(["2", 3, 1]) != digest_ids([3, 1])


# -- other processes -------------------------------------------------------------------------------

_OTHER = """
import sys, time
from music_ray.config.load import resolve_config
from music_ray.rundir import RunDir
run = RunDir(resolve_config({"name": "r", "runs_dir": sys.argv[1]}))
"""
_HOLDER = _OTHER + "with run.lock():\n    print('held', flush=True)\n    time.sleep(60)\n"
_WRITER = (
    _OTHER
    + "print('writing', flush=True)\nnumber = 0\n"
    + "while True:\n    number += 1\n    run.write_bytes(bytes([number % 251]) * 4_000_000, 'big')\n"
)


def start(code: str, folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() in ("held\n", "writing\n")
    return process


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = start(_HOLDER, tmp_path)
    yield process
    process.kill()
    process.wait()


def test_a_second_driver_is_refused_until_the_first_is_killed(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    run = RunDir(config_of(tmp_path))
    with pytest.raises(RunFolderError) as caught, run.lock():
        pass
    host = os.uname().nodename
    assert str(caught.value) == (
        f"{tmp_path}/r is in use by process {holder.pid} on {host}: wait for it, stop it, or give this run "
        "another name"
    )
    # On a shared disk a machine that is gone holds its lock until the file server notices: that passes.
    (tmp_path / "r" / ".lock").write_text("7 on another-machine")
    with pytest.raises(TransientError, match="r is in use by process 7 on another-machine: wait") as held:
        run.lock().__enter__()
    assert held.value.exit_code == 75
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with run.lock():
        assert (tmp_path / "r" / ".lock").read_text() == f"{os.getpid()} on {host}"
    with run.lock():  # released at the end of the block
        pass


def test_a_reader_never_sees_half_a_file_though_the_writer_is_killed(tmp_path: Path) -> None:
    target = tmp_path / "r" / "big"
    for _ in range(4):
        seen: set[bytes] = set()
        writer = start(_WRITER, tmp_path)
        try:
            deadline = time.monotonic() + 30
            while len(seen) < 6 and time.monotonic() < deadline:
                if target.exists():
                    content = target.read_bytes()
                    assert content == content[:1] * 4_000_000
                    seen.add(content[:1])
        finally:
            writer.kill()
            writer.wait()
        assert len(seen) == 6
        content = target.read_bytes()
        assert content == content[:1] * 4_000_000
    run = RunDir(config_of(tmp_path))
    run.write_text("after", "big")
    assert run.read_text("big") == "after"


def test_rollouts_of_other_prompts_are_not_mixed_but_the_old_ones_are_read(tmp_path, monkeypatch):
    config = resolve_config({"name": "t", "runs_dir": str(tmp_path)})
    run = RunDir(config)
    run.open()
    run.write_text("x", FOLDERS["generate"], "shard")
    run.check_prompts()
    monkeypatch.setattr("music_ray.rundir.prompt_hash", lambda: "0123456789abcdef")
    later = RunDir(config)
    later.open()  # the stages after generate go on
    with pytest.raises(
        RunFolderError, match=r"was made with the prompts .*, this music_ray has 0123456789abcdef"
    ):
        later.check_prompts()


def test_before_there_are_rollouts_a_mistake_may_be_corrected(tmp_path: Path) -> None:
    opened(tmp_path, "seed=1", "generate.turns=3")
    run = opened(tmp_path, "seed=2")
    assert run.manifest()["identity"]["seed"] == 2
    run.write_text("x", FOLDERS["generate"], "shard")
    with pytest.raises(RunFolderError, match=r"^seed is 3, but .* was made with 2\n"):
        opened(tmp_path, "seed=3")
