"""A judge of its own words is warned of, wherever it is served."""

from music_ray.config import EngineConfig
from music_ray.config.load import resolve_config
from music_ray.judge.own_words import own_words, same_models

SERVED = EngineConfig.model_validate(
    {"kind": "endpoint", "model": "m", "endpoint": {"base_url": "http://x/v1"}, "max_engines": 3}
)


def test_the_same_model_is_the_same_wherever_it_is_served() -> None:
    other = resolve_config({"name": "t"}).engine
    assert same_models(SERVED, EngineConfig(model="M/")) and not same_models(SERVED, other)


def test_all_its_parts_are_named() -> None:
    roles = {"assistant": EngineConfig(model="m"), "user simulator": EngineConfig(model="u")}
    assert own_words("pairs.judge", EngineConfig(model="j"), roles) == []
    assert own_words("pairs.judge", SERVED, roles) == [
        "pairs.judge is m, and so is the assistant: a model tends to like its own words; have another one "
        "judge"
    ]
    (both,) = own_words("best_of_n.judge", SERVED, roles | {"user simulator": SERVED})
    assert both.startswith("best_of_n.judge is m, and so is the assistant and the user simulator: ")
