"""One token a word, and nothing is lost between text and tokens."""

import pytest

from music_ray.chat import ChatFormat
from music_ray.miniature.language import tokens, vocabulary
from music_ray.miniature.preferences import corpus_rows
from music_ray.miniature.word_tokenizer import SPECIAL, make_tokenizer


@pytest.fixture(scope="module")
def chat() -> ChatFormat:
    return ChatFormat.of(make_tokenizer())


def test_every_message_is_known_and_comes_back(chat: ChatFormat) -> None:
    for row in corpus_rows(200):
        for message in row["messages"]:
            ids = chat.tokenizer.encode(message["content"], add_special_tokens=False)
            assert chat.tokenizer.unk_token_id not in ids
            assert chat.tokenizer.convert_ids_to_tokens(ids) == tokens(message["content"])
            assert chat.tokenizer.decode(ids).split() == message["content"].split()


def test_the_chat_template_adds_two_tokens_a_message(chat: ChatFormat) -> None:
    messages = [{"role": "user", "content": "Sort b a."}, {"role": "assistant", "content": "a b"}]
    words = chat.tokenizer.convert_ids_to_tokens(chat.conversation_ids(messages))
    assert words == [
        "<bos>", "<user>", "Sort", "b", "a", ".", "<end_of_turn>", "<assistant>", "a", "b", "<end_of_turn>"
    ]  # fmt: skip
    assert chat.user_header == "<user>"
    assert chat.tokenizer.convert_ids_to_tokens(chat.end_of_turn_ids) == ["<eos>", "<end_of_turn>"]
    assert len(chat.tokenizer) == len(SPECIAL) + len(vocabulary())


def test_other_roles_are_refused(chat: ChatFormat) -> None:
    with pytest.raises(Exception, match="users and assistants, not system"):
        chat.render([{"role": "system", "content": "a"}])
