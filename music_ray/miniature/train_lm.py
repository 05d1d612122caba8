"""Trains the miniature's language model: a Gemma-2 of a million parameters that plays user and assistant.

    python -m music_ray.miniature.train_lm --out FOLDER [--steps N] [--seed N]

One pass over as many fresh conversations as the steps need (preferences.corpus_rows); none comes twice. It
learns right replies, user messages, and to answer the contrast prompt; never a wrong reply outside that
prompt. What it gets wrong is its own.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from music_ray.chat import ChatFormat
from music_ray.miniature.preferences import corpus_rows
from music_ray.miniature.word_tokenizer import make_tokenizer
from music_ray.progress import say

IGNORED = -100
"""The label of a token that is no target, as torch's cross-entropy has it."""
MAX_POSITIONS = 512
POOL_ROWS = 2048
"""Rows that are sorted by length together, so that a batch holds little padding."""


@dataclass(frozen=True)
class LanguageModelRecipe:
    """How large the language model is, and how it is trained."""

    hidden_size: int = 128
    num_layers: int = 4
    num_heads: int = 4
    num_kv_heads: int = 2
    intermediate_size: int = 384
    steps: int = 10000
    batch_tokens: int = 4096
    """Tokens a step, padding included."""
    learning_rate: float = 2e-3
    """Its peak; it rises over `warmup_steps` and falls to nothing on a half cosine."""
    warmup_steps: int = 300
    weight_decay: float = 0.01
    user_weight: float = 0.1
    """Weight of the user's tokens in the loss, where replies have 1. Two targets in three are the user's, and
    mostly letters drawn at random, which nobody can learn: they drown the replies' gradients (lab log)."""
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    """Of the matrix products (torch.autocast); weights and their updates are float32. A CPU without bfloat16
    instructions is faster with float32."""
    seed: int = 0
    """Decides the first weights and the order; the corpus is always run 0."""


def make_model(recipe: LanguageModelRecipe, chat: ChatFormat) -> Any:
    """The model with its first weights, a function of the recipe."""
    import torch
    from transformers import Gemma2Config, Gemma2ForCausalLM

    tokenizer = chat.tokenizer
    head_dim = recipe.hidden_size // recipe.num_heads
    config = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.num_layers,
        num_attention_heads=recipe.num_heads,
        num_key_value_heads=recipe.num_kv_heads,
        head_dim=head_dim,
        query_pre_attn_scalar=head_dim,
        max_position_embeddings=MAX_POSITIONS,
        sliding_window=MAX_POSITIONS,
        initializer_range=0.04,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=chat.end_of_turn_ids,
        pad_token_id=tokenizer.pad_token_id,
    )
    config._attn_implementation = "eager"  # the only one that honours soft-capping on every device
    torch.manual_seed(recipe.seed)
    return Gemma2ForCausalLM(config)


Example = tuple[list[int], list[int], list[bool]]


def example(row: dict[str, Any], chat: ChatFormat) -> Example:
    """A corpus row as ids, labels, and for each token whether the user speaks: three lists of one length.

    The label of a target is its id, all others are IGNORED. A target is what a speaker says and the token
    that ends it; never whose turn it is, which the chat template says.
    """
    ids: list[int] = [chat.tokenizer.bos_token_id]
    labels = [IGNORED]
    users = [False]
    for number, message in enumerate(row["messages"], start=1):
        said = chat.conversation_ids([message])[1:]
        is_target = row["learn"] == "all" or number == len(row["messages"])
        ids += said
        labels += [IGNORED, *said[1:]] if is_target else [IGNORED] * len(said)
        users += [message["role"] == "user"] * len(said)
    return ids, labels, users


def batches(recipe: LanguageModelRecipe, chat: ChatFormat) -> Iterator[tuple[Any, Any, Any]]:
    """Tensors of ids, labels and whether the user speaks, [rows, tokens], padded at the end; endlessly."""
    rng = random.Random(f"language model {recipe.seed}")
    rows = corpus_rows(1 << 23)
    while True:
        pool = sorted((example(next(rows), chat) for _ in range(POOL_ROWS)), key=lambda one: len(one[0]))
        cut: list[list[Example]] = [[]]
        for one in pool:  # the longest comes last, so its length is the batch's
            if (len(cut[-1]) + 1) * len(one[0]) > recipe.batch_tokens:
                cut.append([])
            cut[-1].append(one)
        rng.shuffle(cut)
        yield from (_padded(batch, chat.tokenizer.pad_token_id) for batch in cut)


def train(recipe: LanguageModelRecipe, out: Path) -> float:
    """Trains and writes the model with its tokenizer; returns the replies' loss of the last 100 steps."""
    import torch

    chat = ChatFormat.of(make_tokenizer())
    model = make_model(recipe, chat)
    groups: list[dict[str, Any]] = [
        {"params": [p for p in model.parameters() if p.ndim > 1]},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        groups,
        lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=recipe.weight_decay, fused=True,
    )  # fmt: skip
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _share_of_rate(step, recipe))
    say(f"{sum(p.numel() for p in model.parameters()):,} parameters, {recipe.steps} steps")
    losses: list[float] = []
    began = time.monotonic()
    model.train()
    for step, (ids, labels, users) in zip(range(1, recipe.steps + 1), _loader(recipe, chat), strict=False):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=recipe.precision == "bfloat16"):
            logits = model(input_ids=ids, attention_mask=ids != chat.tokenizer.pad_token_id).logits
        loss, of_replies = _losses(logits, labels, users, recipe.user_weight)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        losses.append(of_replies)
        if step % 100 == 0:
            _tell(step, recipe.steps, losses, time.monotonic() - began)
    model.save_pretrained(out)
    chat.tokenizer.save_pretrained(out)
    return sum(losses[-100:]) / len(losses[-100:])


def _loader(recipe: LanguageModelRecipe, chat: ChatFormat) -> Any:
    """The batches, made by another process while this one trains: a third of the work is to write them."""
    from torch.utils.data import DataLoader, IterableDataset

    class Batches(IterableDataset):
        def __iter__(self) -> Iterator[tuple[Any, Any, Any]]:
            return batches(recipe, chat)

    return DataLoader(Batches(), batch_size=None, num_workers=1, prefetch_factor=64)


def _padded(batch: list[Example], pad: int) -> tuple[Any, Any, Any]:
    import torch

    width = max(len(ids) for ids, _, _ in batch)
    columns = zip(*batch, strict=True)
    return tuple(
        torch.tensor([one + [filler] * (width - len(one)) for one in column])
        for column, filler in zip(columns, (pad, IGNORED, False), strict=True)
    )  # type: ignore[return-value]


def _losses(logits: Any, labels: Any, users: Any, user_weight: float) -> tuple[Any, float]:
    """Mean cross-entropy over the targets, the user's weighted, and that of the replies alone.

    A token is predicted from those before it.
    """
    import torch
    from torch.nn.functional import cross_entropy

    labels, users = labels[:, 1:], users[:, 1:]
    is_target = labels != IGNORED
    users = users[is_target]
    each = cross_entropy(logits[:, :-1][is_target].float(), labels[is_target], reduction="none")
    weights = torch.where(users, user_weight, 1.0)
    return (each * weights).sum() / weights.sum(), each.detach()[~users].mean().item()


def _share_of_rate(step: int, recipe: LanguageModelRecipe) -> float:
    import math

    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    done = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def _tell(step: int, steps: int, losses: list[float], seconds: float) -> None:
    left = seconds / step * (steps - step)
    say(f"step {step} of {steps}: loss of replies {sum(losses[-100:]) / 100:.4f}, {left / 60:.0f} min left")


def main() -> None:
    """Runs from the command line."""
    defaults = LanguageModelRecipe()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    parser.add_argument("--steps", type=int, default=defaults.steps)
    parser.add_argument("--seed", type=int, default=defaults.seed)
    args = parser.parse_args()
    train(LanguageModelRecipe(steps=args.steps, seed=args.seed), args.out)
    say(f"wrote {args.out}")


if __name__ == "__main__":
    main()
