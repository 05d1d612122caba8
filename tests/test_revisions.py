"""A hub model's branch is looked up once in a run's life: in a cache of the hub's, without a network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from music_ray import revisions
from music_ray.config import EngineConfig
from music_ray.config.load import resolve_config
from music_ray.errors import InputError
from music_ray.revisions import with_commit, with_commits, with_tokenizer_commit
from music_ray.rundir import RunDir

OLD, NEW = "a" * 40, "b" * 40
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CODE = """
import json, sys
from music_ray.config.load import resolve_config
from music_ray.revisions import with_commit, with_tokenizer_commit
from music_ray.rundir import RunDir

config = resolve_config(json.loads(sys.argv[1]))
run = RunDir(config)
run.open()
assert config.user.engine is not None
found = [with_commit(run, config.engine), with_tokenizer_commit(run, config.user.engine)]
print(json.dumps([one.revision for one in found]))
"""


def run_of(tmp_path: Path) -> RunDir:
    return RunDir(resolve_config({"name": "r", "runs_dir": str(tmp_path)}))


def at_endpoint(**place: Any) -> dict[str, Any]:
    place = {"base_url": "http://127.0.0.1:1/v1", **place}
    return {"kind": "endpoint", "model": "m", "endpoint": place}


def write_snapshot(cache: Path, commit: str) -> None:
    """A tokenizer and a config.json as the hub's client keeps them."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    folder = cache / "models--open--model" / "snapshots" / commit
    words = WordLevel({"<unk>": 0, "<|im_end|>": 1}, unk_token="<unk>")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(words), unk_token="<unk>", eos_token="<|im_end|>", chat_template=CHATML
    )
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))


def point_main_at(cache: Path, commit: str) -> None:
    refs = cache / "models--open--model" / "refs"
    refs.mkdir(exist_ok=True)
    (refs / "main").write_text(commit)


def test_a_branch_that_moves_does_not_move_the_run(tmp_path: Path) -> None:
    cache = tmp_path / "hub"
    for commit in (OLD, NEW):
        write_snapshot(cache, commit)
    values = {
        "name": "r",
        "runs_dir": str(tmp_path / "runs"),
        "engine": {"model": "open/model"},
        "user": {"mode": "template", "engine": at_endpoint(tokenizer="open/model") | {"revision": "main"}},
    }

    def commits() -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", CODE, json.dumps(values)],
            env={**os.environ, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(done.stdout.splitlines()[-1])

    point_main_at(cache, OLD)
    assert commits() == [OLD, OLD]
    point_main_at(cache, NEW)
    assert commits() == [OLD, OLD]
    run = RunDir(resolve_config(values))
    assert run.manifest()["revisions"] == {"open/model@default": OLD, "open/model@main": OLD}
    run.note("revisions", {})
    assert commits() == [NEW, NEW]


@pytest.mark.parametrize(
    "engine", [{"kind": "scripted"}, at_endpoint(), {"model": "FOLDER"}, {"model": "FOLDER", "revision": "x"}]
)
def test_what_is_not_loaded_from_the_hub_stays_as_it_is(tmp_path: Path, engine: dict[str, Any]) -> None:
    values = {name: str(tmp_path) if value == "FOLDER" else value for name, value in engine.items()}
    one = EngineConfig.model_validate(values)
    run = run_of(tmp_path)
    assert with_commit(run, one) is one
    local = EngineConfig.model_validate(at_endpoint(tokenizer=str(tmp_path)))
    assert with_tokenizer_commit(run, local) is local
    assert "revisions" not in run.manifest()


def test_an_endpoint_without_a_tokenizer_on_the_hub_is_told_what_to_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError) as caught:
        with_tokenizer_commit(run_of(tmp_path), EngineConfig.model_validate(at_endpoint()))
    assert str(caught.value).startswith(
        "user.mode=template continues the chat template of the endpoint's model"
    )
    assert str(caught.value).endswith("or set user.mode=prompted")


def test_roles_with_equal_engines_still_share_one_at_its_tokenizers_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def at_commit(run: RunDir, engine: EngineConfig) -> EngineConfig:
        return engine.model_copy(update={"revision": "c0ffee"})

    monkeypatch.setattr(revisions, "with_tokenizer_commit", at_commit)
    engine: dict[str, Any] = {"kind": "endpoint", "model": "m", "endpoint": {"base_url": "http://h/v1"}}
    other = {**engine, "model": "other"}
    values: dict[str, Any] = {"name": "r", "runs_dir": str(tmp_path), "engine": engine}
    values |= {"user": {"mode": "template", "engine": engine}, "contrast": {"engine": other}}
    config = with_commits(RunDir(resolve_config(values)))
    assert config.user.engine is not None and config.contrast.engine is not None
    assert config.engine == config.user.engine and config.engine.revision == "c0ffee"
    assert config.contrast.engine.revision is None
    values["user"] = {"mode": "prompted"}
    assert with_commits(RunDir(resolve_config(values))) == resolve_config(values)
