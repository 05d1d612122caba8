"""What an evaluation keeps of how its scores were made, and what a raised bound does to it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from music_ray.evaluate.any_model import evaluate_models
from music_ray.evaluate.sides import Tools
from music_ray.score.chat_check import checked_config
from music_ray.score.model import open_model
from music_ray.score.run import run_score
from tests.reward.conftest import conversation
from tests.score.in_process import Job


def test_the_same_evaluation_with_a_raised_bound(
    job: Job,
    reward_folder: Path,
    write_rows: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    pairs = write_rows(
        {"id": "1", "chosen": conversation("a", "b c"), "rejected": conversation("a", "b")},
        {"id": "2", "chosen": conversation("a", "b " * 100), "rejected": conversation("a", "b")},
    )
    tools = Tools(open_model, checked_config, score=run_score, hub_rows=lambda *arguments: iter(()))

    def evaluate(*words: str) -> tuple[dict, dict]:
        given = [str(reward_folder)], [str(pairs)], "out", None
        result = evaluate_models(*given, ["evaluate.bootstrap_samples=100", *words], tools)
        (model,) = result["models"]
        (found,) = result["pair_sets"][0]["models"].values()
        return model["scorer"], found

    scorer, found = evaluate("engine.max_model_len=64")
    assert scorer == {"engine": "huggingface", "dtype": "float32", "max_model_len": 64}
    assert (found["overall"]["accuracy"], found["unscored_reasons"]) == (0.5, {"over_length": 1})
    scorer, found = evaluate()  # all that the model can read
    assert scorer == {"engine": "huggingface", "dtype": "float32", "max_model_len": 256}
    assert (found["overall"]["accuracy"], found["unscored_reasons"]) == (1.0, {})
    assert job.taken == [[0, 0, 1, 1], [1]]
