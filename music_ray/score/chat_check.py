"""Whether a reward model's tokenizer and chat template can be scored with, asked before anything starts."""

from __future__ import annotations

from collections.abc import Sequence

from music_ray.config import RunConfig
from music_ray.score.model import ScoringModel
from music_ray.score.settings import scoring_config


def check_chat(model: ScoringModel, config: RunConfig) -> None:
    """What an actor would ask of tokenizer and chat template; transformers takes seconds to import.

    Raises:
        InputError: the template fails, or leaves out what somebody says; or nothing can serve as padding.
    """
    from music_ray.chat import ChatFormat

    # Finished conversations are read: a template may well rewrite earlier turns, as Qwen3's does.
    chat = ChatFormat.load(model.folder, appends=False)
    if config.score.engine != "vllm":  # which pads nothing
        _ = chat.pad_token_id


def checked_config(model: ScoringModel, out: str, overrides: Sequence[str]) -> RunConfig:
    """scoring_config of a model whose chat template can be scored with.

    Raises:
        MusicRayError: as scoring_config and check_chat.
    """
    config = scoring_config(model, out, overrides)
    check_chat(model, config)
    return config
