"""Which folders a command may write scores into."""

import json
from pathlib import Path

import pytest

from music_ray.config.load import resolve_config
from music_ray.errors import RunFolderError
from music_ray.rundir import RunDir
from music_ray.score.record import check_folder, read_record, write_record

MADE_FROM = {"model": "m1", "input": "i1", "engine": "vllm", "dtype": "float32"}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    monkeypatch.chdir(tmp_path)
    return RunDir(resolve_config({"name": "out", "runs_dir": "."}))


def refusal(run: RunDir, **changes: str) -> str:
    with pytest.raises(RunFolderError) as caught:
        check_folder(run, MADE_FROM | changes)
    return str(caught.value)


def test_a_new_folder_is_not_made_by_looking(run: RunDir) -> None:
    check_folder(run, MADE_FROM)
    assert read_record(run) == {} and not Path("out").exists()
    Path("out").mkdir()
    Path("out/.lock").touch()  # a command that was killed at its very beginning
    check_folder(run, MADE_FROM)


def test_a_folder_of_something_else_is_refused(run: RunDir) -> None:
    Path("out").mkdir()
    Path("out/thesis.tex").touch()
    assert refusal(run) == "./out holds thesis.tex and no score.json: name a new folder with --out"
    Path("out/score.json").write_text("[]")
    assert "score.json is damaged (" in refusal(run)


def test_scores_of_another_model_input_engine_or_format_are_refused(run: RunDir) -> None:
    write_record(run, {"made_from": MADE_FROM, "model": "runs/a/model", "input": "a.jsonl"})
    check_folder(run, MADE_FROM)
    assert refusal(run, model="m2") == (
        "./out holds scores of another model (runs/a/model, digest m1; now it is m2): name a new folder with "
        "--out"
    )
    assert refusal(run, input="i2").startswith("./out holds scores of another input (a.jsonl, digest i1;")
    assert refusal(run, engine="huggingface") == (
        "./out was made with score.engine=vllm, now it is huggingface: set score.engine=vllm, or name a new "
        "folder with --out"
    )
    assert refusal(run, dtype="bfloat16").startswith("./out was made with engine.dtype=float32")
    assert json.loads(Path("out/score.json").read_text())["made_from"] == MADE_FROM


def test_a_bound_that_is_in_every_score_can_not_change(run: RunDir) -> None:
    short = MADE_FROM | {"position_factors": "short"}
    write_record(run, {"made_from": short, "max_model_len": 4096})
    check_folder(run, short)
    assert refusal(run, position_factors="long") == (
        "./out was made with engine.max_model_len=4096, for which vLLM takes this model's short position "
        "factors, and now the long ones, which change every score: set engine.max_model_len=4096, or name a "
        "new folder with --out"
    )
