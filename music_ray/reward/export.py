"""From the partitioned engine to a Hugging Face folder that anyone can load, checked by loading it.

Weights are gathered one parameter at a time; rank 0 keeps them. LoRA adapters are merged. The folder
is loaded again with AutoModelForSequenceClassification, whose own pooling goes by the padding id,
and its rewards are compared with the engine's before it becomes `model/`.
"""

from __future__ import annotations

import functools
import math
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from music_ray.chat import ChatFormat
from music_ray.config import LoraConfig
from music_ray.errors import StageError, TransientError
from music_ray.reward.card import model_card
from music_ray.reward.data import PairTokens
from music_ray.reward.passes import Passes
from music_ray.rundir import RunDir
from music_ray.storage import is_of_store, patiently, put_file

BOUNDS = {"float32": 1e-4, "bfloat16": 5e-2}
"""Largest difference between the engine's and the exported model's rewards, relative to
max(1, |reward|)."""
PACKED_BOUND = 1e-1
"""The same for the engine's packed passes beside its padded ones in bfloat16, where they are roundings of 8
bits through all layers (5.9e-2 was seen); a lost mask is far above it."""
_NUM_CHECKED = 4


@dataclass(frozen=True)
class ExportCheck:
    """Rewards of a few pairs, before and after the export."""

    engine_rewards: list[float]
    model_rewards: list[float]
    largest_difference: float
    """Relative to max(1, |reward|)."""
    bound: float
    packed_difference: float | None = None
    """Of the engine's packed passes from its padded ones, where these two were compared (bfloat16)."""


def pairs_to_check(pairs: PairTokens) -> list[int]:
    """Indices of the pairs that the export is checked on: the shortest, but of two lengths or more."""
    order = sorted(range(len(pairs)), key=lambda index: (int(pairs.lengths[index]), pairs.ids[index]))
    return order[:_NUM_CHECKED]


def gather_weights(engine: Any, lora: LoraConfig | None) -> dict[str, Any]:
    """All weights by their Hugging Face names, adapters merged; empty except on rank 0.

    Collective: every rank must call it.
    """
    import deepspeed
    import torch.distributed as dist

    prefix = "classifier."
    weights: dict[str, Any] = {}
    for name, parameter in engine.module.named_parameters():
        with deepspeed.zero.GatheredParameters([parameter]):
            if dist.get_rank() == 0:
                weights[name.removeprefix(prefix)] = parameter.detach().cpu().clone()
    return merge_adapters(weights, lora) if lora is not None else weights


def merge_adapters(weights: dict[str, Any], lora: LoraConfig) -> dict[str, Any]:
    """Folds W + (alpha / rank) · B · A into each adapted W [out, in], computed in float32."""
    merged = {}
    for name, weight in weights.items():
        if ".lora_" in name:
            continue
        stem, adapted, leaf = name.partition(".base_layer.")
        if adapted and leaf == "weight":
            down = weights[f"{stem}.lora_A.default.weight"].float()  # [rank, in]
            up = weights[f"{stem}.lora_B.default.weight"].float()  # [out, rank]
            weight = (weight.float() + (up @ down) * (lora.alpha / lora.rank)).to(weight.dtype)
        merged[f"{stem}.{leaf}" if adapted else name] = weight
    return merged


def largest_difference(expected: Sequence[float], found: Sequence[float]) -> float:
    """Of rewards, relative to max(1, |expected|); NaN where one is."""
    return max(
        (abs(a - b) / max(1.0, abs(a)) for a, b in zip(expected, found, strict=True)),
        key=lambda one: (math.isnan(one), one),
    )


def write_model(folder: Path, engine: Any, weights: dict[str, Any], chat: ChatFormat, card: str) -> None:
    """Writes configuration, weights, tokenizer and card into a folder; for rank 0 alone."""
    from huggingface_hub import save_torch_state_dict

    classifier = engine.module.classifier
    folder.mkdir(parents=True)
    save_torch_state_dict(weights, folder, max_shard_size="5GB", metadata={"format": "pt"})
    config = classifier.config
    config.architectures = [type(classifier).__name__]
    config.dtype = weights["score.weight"].dtype
    config.save_pretrained(folder)
    tokenizer = chat.tokenizer
    # Hugging Face pools the last token that is not padding, so no sequence may end in this one.
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(config.get_text_config().pad_token_id)
    tokenizer.padding_side = "right"
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(card, encoding="utf-8")


def check_model(
    folder: Path, sequences: Sequence[Sequence[int]], expected: list[float], precision: str, attention: str
) -> ExportCheck:
    """Loads the folder afresh and compares its rewards with the engine's.

    Raises:
        StageError: they differ by more than the precision's bound.
    """
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    from music_ray.reward_model import attention_for, pad_right

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    model = AutoModelForSequenceClassification.from_pretrained(
        folder,
        use_safetensors=True,
        trust_remote_code=False,
        attn_implementation=attention_for(config, attention),
    ).eval()
    ids, mask, _ = pad_right(sequences, model.config.get_text_config().pad_token_id)
    with torch.inference_mode():
        found = model(input_ids=ids, attention_mask=mask).logits.squeeze(-1).float().tolist()
    difference = largest_difference(expected, found)
    bound = BOUNDS[precision]
    if not difference <= bound:
        raise StageError(
            f"the exported model scores otherwise than the trained one (difference {difference:.2e}, bound "
            f"{bound:.0e}): it is not kept; the checkpoints are, please report this"
        )
    return ExportCheck(expected, found, difference, bound)


def export_model(run: RunDir, engine: Any, pairs: PairTokens, passes: Passes, model_path: str) -> ExportCheck:
    """Writes and checks `model/`; every rank must call it.

    Raises:
        StageError: the reloaded model scores otherwise, or it could not be written; on every rank.
    """
    import torch.distributed as dist

    train = run.config.train
    chosen = pairs_to_check(pairs)
    sequences = [side.tolist() for index in chosen for side in pairs.sides(index)]
    expected, packed_difference = _engine_rewards(passes, pairs, chosen)
    weights = gather_weights(engine, train.lora)
    outcome: list[Any] = [None]
    if dist.get_rank() == 0:
        chat = ChatFormat.load(model_path, train.revision)
        try:
            outcome[0] = _write_checked(run, engine, pairs, weights, chat, sequences, expected)
        except OSError as error:
            outcome[0] = f"the model could not be written ({error}): see to disk or store, and run again"
        except StageError as error:
            outcome[0] = str(error)
    dist.broadcast_object_list(outcome, src=0)
    if isinstance(outcome[0], str):
        raise (TransientError if is_of_store(OSError(outcome[0])) else StageError)(outcome[0])
    return replace(outcome[0], packed_difference=packed_difference)


def _engine_rewards(passes: Passes, pairs: PairTokens, chosen: list[int]) -> tuple[list[float], float | None]:
    """The engine's rewards of the pairs, [pair, side] flattened, and packed_difference; collective.

    In float32 by the passes that trained, so that an export shows a pack that is scored otherwise than its
    sides. In bfloat16 the two differ by roundings larger than what the export may change: there the engine
    scores padded batches, as whoever loads the export does, and the passes that trained have a bound of
    their own.

    Raises:
        StageError: the passes that trained score otherwise than padded ones; on every rank.
    """
    from music_ray.reward_model import attention_for

    train, classifier = passes.train, passes.engine.module.classifier
    trained = passes.score(pairs, chosen).T.flatten().tolist()
    if not passes.packed or train.precision == "float32":
        return trained, None
    of_packs = classifier.config._attn_implementation
    classifier.set_attn_implementation(attention_for(classifier.config, train.padded_attention))
    padded = Passes(
        train.model_copy(update={"packing": "padded"}), passes.engine, passes.rank, passes.pad_token_id
    )
    try:
        rewards = padded.score(pairs, chosen).T.flatten().tolist()
    finally:
        classifier.set_attn_implementation(of_packs)
    difference = largest_difference(trained, rewards)
    if not difference <= PACKED_BOUND:
        raise StageError(
            f"packs are scored otherwise than padded batches (difference {difference:.2e}, bound "
            f"{PACKED_BOUND:.0e}): the model is not exported; train with train.packing=padded, and please "
            "report this"
        )
    return rewards, difference


def _write_checked(
    run: RunDir,
    engine: Any,
    pairs: PairTokens,
    weights: dict[str, Any],
    chat: ChatFormat,
    sequences: list[list[int]],
    expected: list[float],
) -> ExportCheck:
    from music_ray.reward_model import attention_for

    train = run.config.train
    root = run.path() if run.is_local else None
    with tempfile.TemporaryDirectory(dir=root, prefix=".model-") as scratch:
        folder = Path(scratch) / "model"
        soft_capped = attention_for(engine.module.classifier.config, "auto") == "eager"
        write_model(folder, engine, weights, chat, model_card(run, pairs, soft_capped=soft_capped))
        # The engine's own choice of attention goes for the check too.
        attention = "auto" if train.attention == "flash_attention_2" else train.padded_attention
        check = check_model(folder, sequences, expected, train.precision, attention)
        patiently(lambda: run.clear("model"), "model")
        if run.is_local:
            shutil.move(folder, run.path("model"))
        else:
            # The configuration last: without it a folder is no model to anybody.
            for file in sorted(folder.iterdir(), key=lambda one: (one.name == "config.json", one.name)):
                patiently(functools.partial(put_file, run.fs, run.path("model", file.name), file), file.name)
    return check
