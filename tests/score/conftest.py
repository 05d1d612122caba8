"""A tiny Gemma-2 reward model that vLLM can load, rewards computed the plainest way, and data files."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.reward.conftest import SPECIAL, WORDS, conversation, make_tokenizer

NUM_POSITIONS = 256


def make_adding_tokenizer() -> Any:
    """The tokenizer of other tests, which puts <bos> before every text, as Gemma's and Llama's do."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 1)]
    )
    return tokenizer


def make_reward_folder(folder: Path) -> Path:
    """Random weights. vLLM's CPU kernels want heads of 64; the window is shorter than conversations, and
    the soft-caps are low enough to change the scores."""
    import torch
    from transformers import Gemma2Config, Gemma2ForCausalLM

    from music_ray import reward_model

    config = Gemma2Config(
        vocab_size=len(SPECIAL) + 1 + len(WORDS), hidden_size=64, intermediate_size=96, num_hidden_layers=4,
        num_attention_heads=2, num_key_value_heads=1, head_dim=64, query_pre_attn_scalar=16,
        max_position_embeddings=NUM_POSITIONS, sliding_window=16, attn_logit_softcapping=2.0,
        bos_token_id=1, eos_token_id=2, pad_token_id=0, initializer_range=0.2,
    )  # fmt: skip
    base = folder / "base"
    torch.manual_seed(3)
    Gemma2ForCausalLM(config).save_pretrained(base)
    make_adding_tokenizer().save_pretrained(base)
    model = folder / "reward"
    reward_model.load_reward_model(str(base), head_seed=7).save_pretrained(model)
    make_adding_tokenizer().save_pretrained(model)
    return model


@pytest.fixture(scope="session")
def reward_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny reward model's folder."""
    return make_reward_folder(tmp_path_factory.mktemp("gemma2"))


@pytest.fixture(scope="session")
def plain_rewards(reward_folder: Path) -> Callable[[Sequence[Any]], list[float]]:
    """plain_rewards(conversations): one after the other through AutoModelForSequenceClassification."""
    import torch
    from transformers import AutoModelForSequenceClassification

    from music_ray.chat import ChatFormat

    model = AutoModelForSequenceClassification.from_pretrained(reward_folder, attn_implementation="eager")
    model.eval()
    chat = ChatFormat.load(str(reward_folder))

    def rewards(conversations: Sequence[Any]) -> list[float]:
        with torch.inference_mode():
            ids = (torch.tensor([chat.conversation_ids(one)]) for one in conversations)
            return [model(input_ids=one).logits[0, 0].item() for one in ids]

    return rewards


def make_conversations(number: int, *, longest: int = 60) -> list[Any]:
    """Conversations of one to three turns and of different lengths; neighbours share their first message."""
    found = []
    for index in range(number):
        opening = " ".join(WORDS[2 + (index // 2 + k) % 16] for k in range(12 + (7 * (index // 2)) % longest))
        replies = [
            " ".join(WORDS[2 + (5 * index + 3 * k + turn) % 16] for k in range(1 + (index + turn) % 9))
            for turn in range(2 * (index % 3) + 1)
        ]
        found.append(conversation(opening, *replies))
    return found


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[..., Path]:
    """write_rows(row, row, name=…): a JSON-lines file; bytes are written as they are."""

    def write(*rows: Any, name: str = "data.jsonl") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        return path

    return write


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Scoring's jobs are done in this process, and tell what they worked on."""
    from music_ray.score import run
    from tests.score.in_process import Job

    one = Job()
    monkeypatch.setattr(run, "_run_job", one)
    return one
