"""Whether a judge compares what its own model wrote: what a reader of its verdicts must know."""

from __future__ import annotations

from collections.abc import Mapping

from music_ray.config import EngineConfig


def own_words(key: str, judge: EngineConfig, roles: Mapping[str, EngineConfig]) -> list[str]:
    """One warning where the judge's model has another part as well; none where it has not.

    Args:
        key: where the judge is configured.
        roles: the engines of the others, by what they are.
    """
    same = [role for role, one in roles.items() if same_models(judge, one)]
    if not same:
        return []
    return [
        f"{key} is {judge.model}, and so is the {' and the '.join(same)}: a model tends to like its own "
        "words; have another one judge"
    ]


def same_models(one: EngineConfig, other: EngineConfig) -> bool:
    """Whether two engines are the same model, wherever it is served."""
    return one.model.rstrip("/").lower() == other.model.rstrip("/").lower()
