"""The reward model: a decoder with one linear output on the last token of a conversation.

Training and evaluation load, pool and score through this module, so that they can't differ. The
pooled token is the last token of `ChatFormat.conversation_ids`, taken by its index and never by
searching for padding. The module knows tensors, not files of a run, pairs or losses. Importing it
imports torch and transformers: import it inside functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from music_ray.chat import ChatFormat
from music_ray.errors import ConfigError, InputError
from music_ray.models import reason_of
from music_ray.packed_attention import FLEX, SEGMENTS, register
from music_ray.packed_layout import PackLayout
from music_ray.schema import Message, content_id

HEAD = "score.weight"
"""Parameter name of the reward head in transformers' sequence classifiers."""

TokenIds = Sequence[int] | np.ndarray
"""Token ids of one sequence, [s]."""


class RewardModel(nn.Module):
    """A sequence classifier whose forward pass gives one reward a sequence.

    Base model, token selection and head are one module, because DeepSpeed counts its micro-steps in
    the forward pass of the module that it wraps.
    """

    def __init__(self, classifier: Any) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        last_index: Tensor | None = None,
        position_ids: Tensor | None = None,
        pack_layout: PackLayout | None = None,
    ) -> Tensor:
        """Rewards of right-padded sequences, or of the sequences of one pack.

        Args:
            input_ids: token ids, [b, s]; of a pack [1, s].
            attention_mask: 1 for tokens, 0 for padding, [b, s]; None with a pack.
            last_index: position of each sequence's pooled token, [b]; of a pack, place in its row.
            position_ids: of a pack alone: each token's place in its conversation, [1, s].
            pack_layout: of a pack alone: who sees whom (music_ray.packed_attention).

        Returns:
            float32 rewards, [b].
        """
        extra = {} if pack_layout is None else {"position_ids": position_ids, "pack_layout": pack_layout}
        output = self.classifier.base_model(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=False, **extra
        )
        hidden = output.last_hidden_state  # [b, s, d]
        rows: Any = 0 if pack_layout is not None else torch.arange(hidden.shape[0], device=hidden.device)
        pooled = hidden[rows, last_index]  # [b, d]: only these reach the head
        return self.classifier.score(pooled).squeeze(-1).float()


def attention_for(hf_config: Any, requested: str) -> str:
    """The attention implementation that a model is loaded with, in transformers' names.

    Args:
        hf_config: the model's transformers configuration.
        requested: auto | eager | sdpa | flash_attention_2, for padded batches; segments | flex for packs.

    Raises:
        ConfigError: sdpa was asked for and the model soft-caps its attention logits.
    """
    if requested in _OF_PACKS:
        register()
        return _OF_PACKS[requested]
    softcap = getattr(hf_config.get_text_config(), "attn_logit_softcapping", None)
    if requested == "auto":
        return "eager" if softcap else "sdpa"
    if requested == "sdpa" and softcap:
        raise ConfigError(
            f"train.attention=sdpa would ignore the model's attn_logit_softcapping ({softcap}) silently: "
            "use train.attention=eager, or flash_attention_2 on GPUs"
        )
    return requested


_OF_PACKS = {"segments": SEGMENTS, "flex": FLEX}


def head_seed(run_seed: int) -> int:
    """The seed of the reward head's first weights in a run."""
    return content_id(["reward head", run_seed])


def load_reward_model(
    path: str,
    *,
    revision: str | None = None,
    num_layers: int | None = None,
    attention: str = "auto",
    dtype: str = "float32",
    head_seed: int = 0,
    pad_token_id: int | None = None,
) -> Any:
    """A sequence classifier with one label, on the CPU or partitioned under an active zero.Init.

    Args:
        path: a Hugging Face model folder or hub id; its weights must be safetensors.
        revision: commit, tag or branch of a hub model.
        num_layers: keep only the first layers.
        attention: see attention_for.
        dtype: name of the torch dtype of the weights.
        head_seed: decides the head's weights where the checkpoint has no head.
        pad_token_id: a token that never ends a sequence (ChatFormat.pad_token_id); read from the
            tokenizer when empty.

    Raises:
        ConfigError: num_layers exceeds the model's layers, or the attention is impossible.
        InputError: the model can't be loaded, or is no decoder with a reward head.
    """
    try:
        config = AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot load the configuration of {path}: {reason_of(error)}") from None
    keep_layers(config, num_layers)
    if pad_token_id is None:
        pad_token_id = ChatFormat.load(path, revision, appends=False).pad_token_id
    config.num_labels = 1
    for part in {id(one): one for one in (config, config.get_text_config())}.values():
        part.pad_token_id = pad_token_id
        part.use_cache = False
    try:
        classifier, info = AutoModelForSequenceClassification.from_pretrained(
            path,
            revision=revision,
            config=config,
            dtype=getattr(torch, dtype),
            attn_implementation=attention_for(config, attention),
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        raise InputError(f"cannot load {path} as a reward model: {reason_of(error)}") from None
    missing = set(info["missing_keys"])
    if lacking := sorted(missing - {HEAD}):
        raise InputError(f"{path} lacks weights of the model, {lacking[0]} for one: it is not complete")
    if not isinstance(getattr(classifier, "score", None), nn.Linear):
        raise InputError(
            f"{type(classifier).__name__} has no linear head `score`: use a decoder such as Gemma-2, Llama "
            "or Qwen2"
        )
    if HEAD in missing:
        initialise_head(classifier, head_seed)
    return classifier


def keep_layers(config: Any, num_layers: int | None) -> None:
    """Changes a transformers configuration so that only the first layers are built.

    Raises:
        ConfigError: the model has fewer layers.
    """
    text = config.get_text_config()
    total = text.num_hidden_layers
    if num_layers is None or num_layers == total:
        return
    if num_layers > total:
        raise ConfigError(
            f"train.num_layers ({num_layers}) exceeds the model's {total} layers: lower it or leave it empty"
        )
    # Some configurations list a value a layer (layer_types): those lists must shrink along with it.
    for name, value in list(vars(text).items()):
        if isinstance(value, list) and len(value) == total:
            setattr(text, name, value[:num_layers])
    text.num_hidden_layers = num_layers


def initialise_head(classifier: Any, seed: int) -> None:
    """Draws the head's weights from a seed alone: the same on every rank and at every world size."""
    weight = classifier.score.weight
    shape = tuple(getattr(weight, "ds_shape", weight.shape))
    std = getattr(classifier.config.get_text_config(), "initializer_range", None) or 0.02
    generator = torch.Generator().manual_seed(seed % 2**63)
    values = torch.randn(shape, generator=generator) * std
    with torch.no_grad(), _gathered(weight):
        if weight.numel():
            weight.copy_(values)


def _gathered(parameter: nn.Parameter) -> Any:
    """A context in which a parameter that ZeRO-3 has partitioned is whole and can be changed."""
    import contextlib

    if not hasattr(parameter, "ds_id"):
        return contextlib.nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters([parameter], modifier_rank=0)


def tokenize_conversation(chat: ChatFormat, messages: Sequence[Message]) -> list[int]:
    """Token ids of a conversation; the last one is pooled."""
    return chat.conversation_ids(messages)


def pad_right(sequences: Sequence[TokenIds], pad_token_id: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sequences as (input_ids [b, s], attention_mask [b, s], last_index [b])."""
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    width = int(lengths.max())
    input_ids = torch.full((len(sequences), width), pad_token_id, dtype=torch.long)
    for row, sequence in enumerate(sequences):
        input_ids[row, : len(sequence)] = torch.tensor(sequence, dtype=torch.long)
    attention_mask = (torch.arange(width)[None, :] < lengths[:, None]).long()
    return input_ids, attention_mask, lengths - 1


def score(classifier: Any, conversations: Sequence[TokenIds], *, batch_size: int = 8) -> list[float]:
    """Rewards of tokenised conversations, in their order, as float32 values.

    Args:
        classifier: what load_reward_model returned, on any one device.
        conversations: token ids, none of them empty.
        batch_size: conversations in one forward pass; those of like length go together.
    """
    order = sorted(range(len(conversations)), key=lambda index: len(conversations[index]))
    rewards = [0.0] * len(order)
    model = RewardModel(classifier)
    device = classifier.score.weight.device
    pad = classifier.config.get_text_config().pad_token_id
    was_training = classifier.training
    classifier.eval()
    with torch.inference_mode():
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = [one.to(device) for one in pad_right([conversations[i] for i in chosen], pad)]
            for index, reward in zip(chosen, model(*batch).tolist(), strict=True):
                rewards[index] = reward
    classifier.train(was_training)
    return rewards
