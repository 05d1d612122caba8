"""The whole road with every file on a real S3 server, a share of whose requests fails."""

import json

import pytest

from music_ray.config.load import resolve_config
from music_ray.evaluate.command import evaluate_any
from music_ray.generate.export.write import run_export
from music_ray.report.inspect import inspect_run
from music_ray.reward.logbook import count_pairs
from music_ray.run import config_of_run, evaluation_tools, run_stages
from music_ray.rundir import STAGES, RunDir
from music_ray.storage import parent_and_name
from tests.flaky_store import bucket_server, flaky_store, uri_of
from tests.reward.conftest import make_model
from tests.s3_run import rows_of, run_values, write_data

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]
PAIRS = 60
HELD_OUT = ("mix", "held_out", "music.parquet")


@pytest.fixture(scope="module")
def store():
    with bucket_server() as port, flaky_store(port, seed=6) as running:
        yield running


@pytest.fixture(scope="module")
def road(store, tmp_path_factory):
    """The run, brought to its end while one request in twenty fails; Ray stays up for the tests after."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MUSIC_RAY_CACHE", str(tmp_path_factory.mktemp("cache")))
        base = make_model(tmp_path_factory.mktemp("base") / "gemma2", "gemma2")
        data = write_data(store.port, PAIRS)
        store.share = 0.05
        yield run_stages(resolve_config(run_values(store.port, data, base)), STAGES)
    import ray

    ray.shutdown()


def test_every_stage_is_done_and_nothing_is_lost_or_made_twice(store, road):
    assert sum(store.faults.values()) >= 5
    stages = road.manifest()["stages"]
    assert {name: record["status"] for name, record in stages.items()} == dict.fromkeys(STAGES, "done")
    seeds = road.read_ids("seeds", "contexts").tolist()
    made = [row["id"] for row in rows_of(road, "rollouts", "shards", columns=["id"])]
    assert sorted(made) == sorted(seeds) and len(seeds) == stages["seeds"]["counts"]["seeds"] > 30
    pairs = [row["id"] for row in rows_of(road, "pairs", columns=["id"])]
    assert len(pairs) == len(set(pairs)) == stages["pairs"]["counts"]["accepted"] > 30
    assert sum(count_pairs(road).values()) == 4 * 6
    assert all(road.is_finished(stage) for stage in STAGES)
    assert not road.exists("lock.json")


def test_the_model_and_the_report_lie_there_whole(road):
    files = {info.base_name: info.size for info in road.fs.get_file_info(_below(road, "model"))}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= files.keys()
    steps = {info.base_name for info in road.fs.get_file_info(_below(road, "checkpoints"))}
    assert {"step-000002", "step-000004", "outcome.json"} <= steps
    page = road.read_text("report", "index.html")
    assert page.rstrip().endswith("</html>") and 'class="chart"' in page
    evals = json.loads(road.read_text("evals", "pairwise.json"))
    assert evals["suites"].keys() == {"preferences", "music"}


def _below(run: RunDir, folder: str):
    import pyarrow.fs as pafs

    return pafs.FileSelector(run.path(folder))


def test_the_folder_is_read_by_its_uri(store, road, capsys):
    again = RunDir(config_of_run(road.display()))
    assert again.root == road.root
    inspect_run(again, limit=1, ids=[], refused=False)
    assert "chosen" in capsys.readouterr().out
    exported = run_export(again, "dpo", uri_of(store.port, "bucket/dpo"))
    pairs = rows_of(road, "pairs", columns=["id"])
    assert exported.num_rows == exported.num_pairs == len(pairs)


@pytest.mark.faults
def test_the_model_is_evaluated_by_its_uri(store, road, capsys):
    """Which scores with `music-ray score`: model, pairs and scores all lie in the store."""
    model, out = road.display("model"), uri_of(store.port, "bucket/evaluations/music")
    words = ("ray.num_cpus=2", "generate.flush_rows=40")
    evaluate_any([model], [road.display(*HELD_OUT)], out, None, words, evaluation_tools())
    results = results_at(out)
    told = json.loads(results.read_text("evaluation.json"))
    assert told["models"][0]["folder"] == "s3://bucket/runs/a/model"
    [suite] = told["pair_sets"]
    with road.open_parquet(road.path(*HELD_OUT)) as file:
        held_out = file.read(columns=["id"])["id"].to_pylist()
    assert suite["name"] == "music" and len(held_out) > 3
    [scores] = [path for path in results.parquet_files("music") if "/music/scores-" in path]
    with results.open_parquet(scores) as file:
        found = {row["id"]: row["reason"] for row in file.read(columns=["id", "reason"]).to_pylist()}
    assert found == dict.fromkeys(held_out, "")
    assert "s3://bucket/runs/a/model" in capsys.readouterr().out


def results_at(location: str) -> RunDir:
    """A folder of results in the guise of a run folder."""
    parent, name = parent_and_name(location)
    return RunDir(resolve_config({"name": name, "runs_dir": parent}))
