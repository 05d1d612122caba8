"""The shipped language model speaks today's language: its tokenizer is the one that would be made now."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from music_ray.chat import ChatFormat
from music_ray.miniature.preferences import contrast_prompt, joint_answer
from music_ray.miniature.word_tokenizer import CHAT_TEMPLATE, make_tokenizer
from music_ray.miniature.world import conversation
from music_ray.models import MINIATURE_MODEL, resolve_model
from music_ray.schema import Message

FOLDER = Path(resolve_model(MINIATURE_MODEL))


@pytest.fixture(scope="module")
def shipped() -> ChatFormat:
    return ChatFormat.load(str(FOLDER))


@pytest.fixture(scope="module")
def made() -> ChatFormat:
    return ChatFormat.of(make_tokenizer())


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return json.loads((FOLDER / "config.json").read_text())


def test_every_word_has_its_id(shipped: ChatFormat, made: ChatFormat) -> None:
    assert shipped.tokenizer.get_vocab() == made.tokenizer.get_vocab()
    assert shipped.tokenizer.special_tokens_map == made.tokenizer.special_tokens_map
    assert shipped.end_of_turn_ids == made.end_of_turn_ids


def test_the_rules_of_splitting_and_joining_are_the_same(shipped: ChatFormat, made: ChatFormat) -> None:
    inner = [json.loads(chat.tokenizer.backend_tokenizer.to_str()) for chat in (shipped, made)]
    assert inner[0] == inner[1]


def test_the_chat_template_is_the_same(shipped: ChatFormat) -> None:
    assert shipped.tokenizer.chat_template == CHAT_TEMPLATE


def conversations() -> list[list[Message]]:
    """A dozen, and one that ends on a contrast prompt and its answer."""
    found = [conversation(seed, 1 + seed % 4) for seed in range(12)]
    history = conversation(12, 3)[:-1]
    asked = contrast_prompt(history, 3)
    answer = joint_answer("Reverse it.", "b a")
    contrast: list[Message] = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    return [*found, [*history[:-1], *contrast]]


@pytest.mark.parametrize("messages", conversations())
def test_texts_have_the_same_tokens(shipped: ChatFormat, made: ChatFormat, messages: list[Message]) -> None:
    ids = shipped.conversation_ids(messages)
    assert ids == made.conversation_ids(messages)
    assert shipped.tokenizer.unk_token_id not in ids
    assert shipped.reply_prompt_ids(messages[:-1]) == made.reply_prompt_ids(messages[:-1])
    assert shipped.user_prompt_ids(messages) == made.user_prompt_ids(messages)
    assert shipped.tokenizer.decode(ids) == made.tokenizer.decode(ids)


def test_the_model_has_a_place_for_each_token(made: ChatFormat, config: dict[str, Any]) -> None:
    tokenizer = made.tokenizer
    assert config["vocab_size"] == len(tokenizer)
    assert (config["pad_token_id"], config["bos_token_id"]) == (
        tokenizer.pad_token_id,
        tokenizer.bos_token_id,
    )
    assert config["eos_token_id"] == made.end_of_turn_ids
    with safe_open(FOLDER / "model.safetensors", "np") as weights:
        shape = weights.get_slice("model.embed_tokens.weight").get_shape()
    assert shape == [len(tokenizer), config["hidden_size"]]
