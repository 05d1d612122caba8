"""Model folders on a real S3 server: copied once, anew when they change, and never a pickle."""

import json
import re

import numpy as np
import pytest
from safetensors.numpy import save_file

from music_ray.errors import EnvironmentLacksError, InputError
from music_ray.models import check_local_model, resolve_model
from music_ray.rundir import open_filesystem
from music_ray.score.model import open_model
from music_ray.storage import put, put_file
from music_ray.stored_models import stored_configuration
from tests.flaky_store import bucket_server, flaky_store, uri_of

CONFIG = {"architectures": ["Gemma2ForSequenceClassification"], "num_labels": 1, "model_type": "gemma2"}


@pytest.fixture(scope="module")
def server():
    with bucket_server() as port:
        yield port


@pytest.fixture
def store(server, tmp_path, monkeypatch):
    monkeypatch.setenv("MUSIC_RAY_CACHE", str(tmp_path / "cache"))
    with flaky_store(server, share=0.1) as running:
        yield running


def upload(store, name, tmp_path, *, weight=1.0, **files):
    """A model folder in the store; its URI."""
    uri = uri_of(store.port, f"bucket/{name}/model")
    fs, path = open_filesystem(uri)
    save_file({"score.weight": np.full((1, 4), weight, dtype=np.float32)}, tmp_path / "weights")
    put_file(fs, f"{path}/model.safetensors", tmp_path / "weights")
    texts = {"config.json": json.dumps(CONFIG), "chat_template.jinja": "{{ bos_token }}", **files}
    for file, text in texts.items():
        if text is not None:
            put(fs, f"{path}/{file}", text.encode())
    return uri


def test_a_model_is_fetched_once_without_code_and_anew_when_it_changes(store, tmp_path, capsys):
    uri = upload(store, "a", tmp_path, **{"pytorch_model.bin": "pickled", "modeling.py": "raise SystemExit"})
    assert stored_configuration(uri) == CONFIG
    assert stored_configuration(uri_of(store.port, "bucket/none")) is None
    check_local_model(uri)
    found = open_model(uri)
    assert found.place == uri
    assert found.folder == resolve_model(uri)
    names = {path.name for path in (tmp_path / "cache" / "fetched").glob("*/*")}
    assert names == {"config.json", "chat_template.jinja", "model.safetensors"}
    said = [line for line in capsys.readouterr().out.splitlines() if "fetching" in line]
    assert len(said) == 1
    assert re.fullmatch(r"model: fetching s3://bucket/a/model \(0 MB\) to \S+", said[0])

    upload(store, "a", tmp_path, weight=2.0, **{"tokenizer.json": "{}"})
    again = open_model(uri)
    assert again.digest != found.digest and again.folder != found.folder
    assert sorted(path.name for path in (tmp_path / "cache" / "fetched").iterdir()) == sorted(
        one.folder.rpartition("/")[2] for one in (found, again)
    )


def test_what_is_no_model_is_not_fetched(store, tmp_path):
    refused = {
        uri_of(store.port, "bucket/none"): "no model folder at s3://bucket/none: it has no config.json",
        upload(store, "b", tmp_path, **{"config.json": None}): "no model folder at s3://bucket/b/model",
    }
    run = uri_of(store.port, "bucket/c")
    fs, path = open_filesystem(run)
    put(fs, f"{path}/manifest.json", b"{}")
    refused[run] = "s3://bucket/c is a run folder: name the model in it, s3://bucket/c/model"
    for uri, message in refused.items():
        with pytest.raises(InputError, match=re.escape(message)):
            open_model(uri)
    assert not (tmp_path / "cache").exists()


def test_a_disk_that_is_too_small_is_told_before(store, tmp_path, monkeypatch):
    uri = upload(store, "d", tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10}))
    too_small = r"^s3://bucket/d/model has 0\.0 GiB, \S+ has 0\.0 GiB free: free some"
    with pytest.raises(EnvironmentLacksError, match=too_small):
        resolve_model(uri)
