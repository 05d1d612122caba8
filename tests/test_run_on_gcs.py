"""The whole road with every file on gs://, and once more with another reward model: folders move."""

import json

import pytest

from music_ray.config.load import resolve_config
from music_ray.reward.checkpoint import complete_steps
from music_ray.reward.logbook import count_pairs
from music_ray.run import config_of_run, run_stages
from music_ray.rundir import STAGES, RunDir
from music_ray.storage import entries
from tests.gcs_server import gcs_server, gcs_uri
from tests.reward.conftest import make_model
from tests.s3_run import rows_of, run_values, write_pairs

# It breaks nothing, but takes its minutes; the same road on s3:// is among the quicker tests.
pytestmark = [pytest.mark.slow, pytest.mark.faults, pytest.mark.timeout(500)]


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    with gcs_server(tmp_path_factory.mktemp("key")) as running:
        yield running


@pytest.fixture(scope="module")
def values(port, tmp_path_factory):
    base = make_model(tmp_path_factory.mktemp("base") / "gemma2", "gemma2")
    data = write_pairs(gcs_uri(port, "bucket/data/pairs.jsonl"), 60)
    return run_values(0, data, base, runs_dir=gcs_uri(port, "bucket/runs"))


@pytest.fixture(scope="module")
def road(values, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MUSIC_RAY_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield run_stages(resolve_config(values), STAGES)
    import ray

    ray.shutdown()


def test_every_stage_is_done_and_nothing_is_lost_or_made_twice(road):
    stages = road.manifest()["stages"]
    assert {name: record["status"] for name, record in stages.items()} == dict.fromkeys(STAGES, "done")
    seeds = road.read_ids("seeds", "contexts").tolist()
    made = [row["id"] for row in rows_of(road, "rollouts", "shards", columns=["id"])]
    assert sorted(made) == sorted(seeds) and len(seeds) > 30
    assert sum(count_pairs(road).values()) == 4 * 6
    assert complete_steps(road) == [2, 4]
    assert road.read_text("report", "index.html").rstrip().endswith("</html>")
    assert json.loads(road.read_text("evals", "pairwise.json"))["suites"].keys() == {"preferences", "music"}
    assert not road.exists("lock.json")
    assert RunDir(config_of_run(road.display())).root == road.root


def test_an_older_model_is_set_aside_and_another_made(road, values):
    """Folders are moved and removed, of which nothing on gs:// says that they are there."""
    first = road.read_bytes("model", "model.safetensors")
    changed = {**values, "train": {**values["train"], "learning_rate": 2e-3}}
    again = run_stages(resolve_config(changed), STAGES)
    names = [info.base_name for info in entries(again.fs, again.root)]
    [aside] = [name for name in names if name.startswith("model-")]
    assert again.read_bytes(aside, "model.safetensors") == first
    assert again.read_bytes("model", "model.safetensors") != first
    assert all(again.is_finished(stage) for stage in STAGES)
