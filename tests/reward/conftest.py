"""Tiny models with a tokenizer and a chat template, and run folders that hold a mix."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from music_ray.config import RunConfig
from music_ray.rundir import RunDir
from music_ray.schema import (
    MARGIN_PAIR_SCHEMA,
    PAIR_SCHEMA,
    PreferencePair,
    count_user_turns,
    first_difference,
    to_table,
)

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

SPECIAL = ["<pad>", "<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"]
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "<start_of_turn>{{ message['role'] }} {{ message['content'] }}<end_of_turn>{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>assistant {% endif %}"
)
COLOURS = ["red", "green", "blue"]
NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
WORDS = ["user", "assistant", *COLOURS, *NUMBERS, "a", "b", "c"]


def make_tokenizer() -> Any:
    """A word tokenizer whose every word is one token."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate([*SPECIAL, "<unk>", *WORDS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=["<start_of_turn>", "<end_of_turn>"],
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def make_model(folder: Path, family: str) -> Path:
    """A random causal language model of a family in a Hugging Face folder, with the tokenizer."""
    import torch
    from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM

    common: dict[str, Any] = {
        "vocab_size": len(SPECIAL) + 1 + len(WORDS),
        "hidden_size": 40,
        "intermediate_size": 56,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 20,
        "max_position_embeddings": 256,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "initializer_range": 0.2,
    }
    torch.manual_seed(0)
    if family == "gemma2":
        # DeepSpeed keeps parameters below 100,000 elements whole: these feed-forward matrices are above
        # it, all else is below. The window is shorter than the pairs. 40 x 2,602 does not divide by 3.
        sizes = {**common, "intermediate_size": 2602}
        config = Gemma2Config(**sizes, sliding_window=16, query_pre_attn_scalar=20)
        model: Any = Gemma2ForCausalLM(config)
    else:
        model = LlamaForCausalLM(LlamaConfig(**common, tie_word_embeddings=False))
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def gemma2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "gemma2", "gemma2")


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "llama", "llama")


def conversation(*texts: str) -> list[Any]:
    """Messages of alternating roles, the user first."""
    return [
        {"role": "assistant" if index % 2 else "user", "content": text} for index, text in enumerate(texts)
    ]


def make_pair(number: int) -> PreferencePair:
    """A pair of one to three turns, of a length that depends on its number, with a shared start."""
    turns = number % 3 + 1
    shared = [WORDS[2 + (number + k) % 16] + " red" * (k % 3) for k in range(2 * turns - 1)]
    good = " ".join(WORDS[2 + (number * 7 + k) % 16] for k in range(number % 5 + 1))
    bad = " ".join(WORDS[2 + (number * 5 + 3 * k + 1) % 16] for k in range(number % 7 + 1)) + " a"
    chosen, rejected = conversation(*shared, good), conversation(*shared, bad)
    return PreferencePair(
        id=f"pair-{number:03d}",
        source="test",
        origin="D" if number % 2 else "D_MUSIC",
        conversation=number,
        num_turns=count_user_turns(chosen),
        branch_turn=first_difference(chosen, rejected),
        chosen=chosen,
        rejected=rejected,
    )


def write_mix(run: RunDir, margins: list[float | None]) -> None:
    """A mix of one pair a margin instead of what the run has."""
    pairs = [replace(make_pair(number), margin=margin) for number, margin in enumerate(margins)]
    run.write_table(to_table(pairs, MARGIN_PAIR_SCHEMA), "mix", "train-00000.parquet")


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., RunDir]:
    """A run folder with a mix of pairs; keywords are keys of the train section."""

    def make(model: Path, *, name: str = "run", pairs: int = 17, seed: int = 5, **train: Any) -> RunDir:
        settings = {
            "base_model": str(model),
            "steps": 4,
            "pairs_per_step": 6,
            "learning_rate": 1e-2,
            "weight_decay": 0.1,
            "max_tokens": 64,
            "checkpoint_every": 2,
            **train,
        }
        config = RunConfig.model_validate(
            {
                "name": name,
                "runs_dir": str(tmp_path / "runs"),
                "seed": seed,
                "train": settings,
                "ray": {"num_cpus": 2},
            }
        )
        run = RunDir(config)
        table = to_table([make_pair(number) for number in range(pairs)], PAIR_SCHEMA)
        run.write_table(table, "mix", "train-00000.parquet")
        return run

    return make
