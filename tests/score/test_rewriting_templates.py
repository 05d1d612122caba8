"""Reward models whose chat template rewrites earlier turns, as Qwen3's, Phi-3's and gpt-oss's do."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from music_ray.chat import ChatFormat
from music_ray.config.load import resolve_config
from music_ray.errors import InputError
from music_ray.evaluate.any_model import evaluate_models
from music_ray.evaluate.best_of_n.run import run_best_of_n
from music_ray.jobs.metrics import Metrics
from music_ray.run import best_of_n_tools, evaluation_tools
from music_ray.score.model import open_model
from music_ray.score.run import run_score
from music_ray.score.settings import scoring_config
from music_ray.score.worker import ScoreWorker
from tests.reward.conftest import conversation
from tests.score.conftest import make_adding_tokenizer

REASONS = (
    "{{ bos_token }}{% for message in messages %}<start_of_turn>{{ message['role'] }} "
    "{% if message['role'] == 'assistant' %}"
    "{% if loop.last %}c c {% endif %}{{ message['content'].split(' therefore ')[-1] }}"
    "{% else %}{{ message['content'] }}{% endif %}<end_of_turn>{% endfor %}"
)
"""The last reply begins with (empty) reasoning, and earlier ones have lost theirs."""


def with_tokenizer(source: Path, folder: Path, template: str, **changes: Any) -> str:
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("tokenizer*", "*.jinja", "special*"))
    tokenizer = make_adding_tokenizer()
    tokenizer.chat_template = template
    for name, value in changes.items():
        setattr(tokenizer, name, value)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def folder(reward_folder: Path, tmp_path: Path) -> str:
    return with_tokenizer(reward_folder, tmp_path / "reasons", REASONS)


def test_it_can_not_generate_and_can_be_read(folder: str) -> None:
    with pytest.raises(InputError, match="rewrites earlier turns when a turn is added"):
        ChatFormat.load(folder)
    chat = ChatFormat.load(folder, appends=False)
    short = conversation("a b", "red therefore green")
    long = [*short, *conversation("a", "blue")]
    # A test of the tests: the ids of a beginning are not the beginning of the ids.
    ids = chat.conversation_ids(short)
    assert chat.conversation_ids(long)[: len(ids)] != ids
    assert chat.render(long) == (
        "<bos><start_of_turn>user a b<end_of_turn><start_of_turn>assistant green<end_of_turn>"
        "<start_of_turn>user a<end_of_turn><start_of_turn>assistant c c blue<end_of_turn>"
    )


@pytest.mark.parametrize("engine", ["huggingface", "packed"])
def test_scores_are_those_of_the_whole_conversations(folder: str, engine: str) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    opening = ("one two three four five six", "red therefore green")
    conversations = [
        conversation(*opening),
        conversation(*opening, "seven", "blue"),
        conversation(*opening, "seven", "blue red therefore blue"),
        conversation(*opening, "seven", "ten", "eight", "nine"),
    ]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager").eval()
    expected = []
    with torch.inference_mode():
        for one in conversations:
            text = tokenizer.apply_chat_template(one, tokenize=False)
            ids = tokenizer.encode(text, add_special_tokens=False, return_tensors="pt")
            expected.append(model(input_ids=ids).logits[0, 0].item())

    words = [f"score.engine={engine}", "score.batch_size=2"]
    worker = ScoreWorker(scoring_config(open_model(folder), "out", words), 1, {}, Metrics("t"))

    async def score_all() -> list[Any]:
        rows = [{"id": 2 * at, "messages": one, "reason": ""} for at, one in enumerate(conversations)]
        return await asyncio.gather(*(worker.work(row) for row in rows))

    assert [row.score for row in asyncio.run(score_all())] == pytest.approx(expected, abs=1e-5)
    assert max(expected) - min(expected) > 1e-3


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            "{{ raise_exception('no chat here') }}",
            "the chat template of MODEL fails on a plain conversation (no chat here): use an "
            "instruction-tuned model",
        ),
        (
            "{% for m in messages if m['role'] == 'assistant' %}{{ m['content'] }}{% endfor %}",
            "the chat template of MODEL leaves out what the user says: use one that shows every message",
        ),
        (
            "{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}{% endfor %}",
            "the chat template of MODEL leaves out what the assistant says: use one that shows every message",
        ),
    ],
)
def test_what_scoring_needs_is_asked_for_before_anything_starts(
    reward_folder: Path, tmp_path: Path, write_rows, template: str, message: str
) -> None:
    folder = with_tokenizer(reward_folder, tmp_path / "m", template)
    data = write_rows({"messages": conversation("a", "b")})
    with pytest.raises(InputError) as caught:
        run_score(folder, str(data), str(tmp_path / "out"), ["score.engine=huggingface"])
    assert str(caught.value).replace(folder, "MODEL") == message
    assert not (tmp_path / "out").exists()


def test_of_two_models_the_second_is_looked_at_before_the_first_is_scored(
    reward_folder: Path, tmp_path: Path, write_rows
) -> None:
    broken = with_tokenizer(reward_folder, tmp_path / "broken", "{{ raise_exception('no chat here') }}")
    models = [str(reward_folder), broken]
    data = write_rows({"id": "1", "chosen": conversation("a", "b c"), "rejected": conversation("a", "b")})
    with pytest.raises(InputError) as caught:
        evaluate_models(models, [str(data)], str(tmp_path / "out"), None, [], evaluation_tools())
    message = "the chat template of MODEL fails on a plain conversation (no chat here): use an"
    assert str(caught.value).replace(broken, "MODEL") == f"{message} instruction-tuned model"
    assert not (tmp_path / "out").exists()


def test_best_of_n_looks_at_it_before_an_engine_starts(
    reward_folder: Path, tmp_path: Path, write_rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = with_tokenizer(reward_folder, tmp_path / "broken", "{{ raise_exception('no chat here') }}")
    prompts = write_rows({"id": "1", "prompt": "a"})
    values = {"name": "n", "engine": {"kind": "scripted", "model": "rules"}}
    config = resolve_config(values | {"best_of_n": {"prompts": str(prompts)}})
    monkeypatch.setattr("music_ray.preflight.check", lambda *_: pytest.fail("an engine was looked at"))
    with pytest.raises(InputError, match=r"fails on a plain conversation \(no chat here\)"):
        run_best_of_n(config, [str(reward_folder), broken], str(tmp_path / "out"), best_of_n_tools())
    assert not (tmp_path / "out").exists()


def test_a_missing_padding_token_is_found_before_anything_starts(
    reward_folder: Path, tmp_path: Path, write_rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = with_tokenizer(reward_folder, tmp_path / "m", REASONS)
    monkeypatch.setattr(ChatFormat, "_special_ids", {4})  # <end_of_turn>, which ends conversations
    monkeypatch.setattr(ChatFormat, "end_of_turn_ids", [0, 4, 5])
    data = write_rows({"messages": conversation("a", "b")})
    with pytest.raises(InputError) as caught:
        run_score(folder, str(data), str(tmp_path / "out"), ["score.engine=huggingface"])
    assert str(caught.value) == (
        f"{folder} has no special token that could serve as padding: add a pad token"
    )
    assert not (tmp_path / "out").exists()
