"""What `auto` and the defaults mean for a model and a machine."""

from pathlib import Path

import pytest

from music_ray.errors import ConfigError
from music_ray.rundir import RunDir
from music_ray.score.model import ScoringModel
from music_ray.score.settings import scoring_config


def model(positions: int | None = 8192, dtype: str = "float32") -> ScoringModel:
    return ScoringModel("/models/rm", "Gemma2ForSequenceClassification", dtype, positions, "0123456789abcdef")


def refusal(*overrides: str, positions: int | None = 8192) -> str:
    with pytest.raises(ConfigError) as caught:
        scoring_config(model(positions), "out", overrides)
    return str(caught.value)


def test_the_longest_conversation_is_what_the_model_reads_or_4096() -> None:
    def longest(positions: int | None, *words: str) -> int:
        return scoring_config(model(positions), "out", words).engine.max_model_len

    assert (longest(8192), longest(256), longest(None)) == (4096, 256, 4096)
    assert longest(8192, "engine.max_model_len=8192") == 8192
    assert longest(None, "engine.max_model_len=9000") == 9000
    assert refusal("engine.max_model_len=257", positions=256) == (
        "engine.max_model_len (257) exceeds the 256 tokens that the model can read: lower it"
    )


def test_the_number_format_is_decided_before_anything_starts() -> None:
    def dtype(own: str, *words: str) -> str:
        return scoring_config(model(dtype=own), "out", words).engine.dtype

    gpu = ("engine.gpus_per_engine=1",)
    assert dtype("bfloat16") == "float32"  # on the CPU, where bfloat16 is emulated
    assert (dtype("float16", *gpu), dtype("float32", *gpu)) == ("float16", "bfloat16")
    assert dtype("float32", *gpu, "engine.dtype=float32") == "float32"


def test_the_folder_is_where_out_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for out in ("scores/a", f"{tmp_path}/scores/a", "./scores/a/"):
        assert RunDir(scoring_config(model(), out, ())).path() == f"{tmp_path}/scores/a"
    config = scoring_config(model(), "s3://bucket/x/a?region=eu-west-1", ())
    assert (config.runs_dir, config.name) == ("s3://bucket/x?region=eu-west-1", "a")
    assert refusal("name=b c").startswith("name: name 'b c' must be 1 to 100 letters")


def test_keys_that_count_and_keys_that_do_not() -> None:
    config = scoring_config(
        model(), "out", ["score.engine=huggingface", "score.batch_size=3", "generate.flush_rows=7"]
    )
    assert (config.score.engine, config.score.batch_size, config.generate.flush_rows) == ("huggingface", 3, 7)
    assert config.engine.model == "/models/rm"
    remedy = "engine.kind and engine.model do not go with scoring"
    assert refusal("engine.model=x").startswith(remedy) and refusal("engine.kind=scripted").startswith(remedy)
    assert refusal("score.engin=vllm") == "unknown key score.engin: did you mean score.engine?"
