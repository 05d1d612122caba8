"""Run folders on object storage: what is different there."""

import pyarrow.fs as pafs
import pytest

from music_ray.config.load import resolve_config
from music_ray.rundir import RunDir


def test_the_options_of_a_uri_stay_behind_the_name_of_the_run():
    run = RunDir(resolve_config({"name": "a", "runs_dir": "s3://bucket/runs/?region=eu-west-1"}))
    assert run.root == "bucket/runs/a"
    assert run.display("pairs") == "s3://bucket/runs/a/pairs?region=eu-west-1"
    local = RunDir(resolve_config({"name": "a", "runs_dir": "/tmp/what?"}))
    assert local.root == "/tmp/what?/a"


class NoFolderMoves(pafs.SubTreeFileSystem):
    """As S3: there are keys and no folders, so a folder can't be moved."""

    def move(self, source, target):
        raise OSError("NO_SUCH_KEY during CopyObject operation")


@pytest.fixture
def stored(tmp_path):
    run = RunDir(resolve_config({"name": "a", "runs_dir": str(tmp_path)}))
    run.fs, run.is_local = NoFolderMoves("/", pafs.LocalFileSystem()), False
    (tmp_path / "a" / "model" / "sub").mkdir(parents=True)
    return run


def test_a_folder_is_set_aside_where_folders_cannot_be_moved(stored):
    stored.write_bytes(b"1", "model", "a.txt")
    stored.write_bytes(b"2", "model", "sub", "b.txt")
    assert stored.set_aside("model", "old").endswith("/a/model-old")
    assert not stored.exists("model")
    assert stored.read_bytes("model-old", "a.txt") == b"1"
    assert stored.read_bytes("model-old", "sub", "b.txt") == b"2"
