"""What the language model learns from, and that it learns."""

from pathlib import Path

import pytest

from music_ray.chat import ChatFormat
from music_ray.miniature.train_lm import IGNORED, LanguageModelRecipe, batches, example, train
from music_ray.miniature.word_tokenizer import make_tokenizer

TINY = LanguageModelRecipe(
    hidden_size=32, num_layers=1, num_heads=2, num_kv_heads=1, intermediate_size=32, steps=120,
    batch_tokens=512, warmup_steps=5, precision="float32",
)  # fmt: skip
MESSAGES = [
    {"role": "user", "content": "Sort b a."},
    {"role": "assistant", "content": "a b"},
    {"role": "user", "content": "Reverse it."},
    {"role": "assistant", "content": "b a"},
]


@pytest.fixture(scope="module")
def chat() -> ChatFormat:
    return ChatFormat.of(make_tokenizer())


@pytest.mark.parametrize(
    ("learn", "targets"),
    [
        ("all", "Sort b a . <end_of_turn> a b <end_of_turn> Reverse it . <end_of_turn> b a <end_of_turn>"),
        ("last", "b a <end_of_turn>"),
    ],
)
def test_targets_are_what_is_said(chat: ChatFormat, learn: str, targets: str) -> None:
    ids, labels, users = example({"messages": MESSAGES, "learn": learn}, chat)
    assert ids == chat.conversation_ids(MESSAGES)
    assert all(label in (IGNORED, one) for one, label in zip(ids, labels, strict=True))
    learnt = [label for label in labels if label != IGNORED]
    assert chat.tokenizer.convert_ids_to_tokens(learnt) == targets.split()
    of_user = [one for one, is_user in zip(ids, users, strict=True) if is_user]
    assert of_user == [one for message in MESSAGES[::2] for one in chat.conversation_ids([message])[1:]]


def test_batches_hold_no_more_than_their_tokens(chat: ChatFormat) -> None:
    for _, (ids, labels, users) in zip(range(40), batches(TINY, chat), strict=False):
        assert ids.shape == labels.shape == users.shape
        assert ids.numel() <= 512
        assert (labels[ids == chat.tokenizer.pad_token_id] == IGNORED).all()


def test_it_learns_and_its_folder_loads(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    last = train(TINY, tmp_path / "model")
    assert last < 4.5  # nothing learnt: log 144 = 4.97
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert model.config.attn_logit_softcapping == 50.0
    assert ChatFormat.load(str(tmp_path / "model")).conversation_ids(MESSAGES)[-1] == 6
