"""The weights of D and D_MUSIC in the stream that is trained on."""

from __future__ import annotations

import pytest

from music_ray.config.load import apply_overrides, resolve_config
from music_ray.errors import ConfigError
from music_ray.identity import same_keys, stage_keys


def refusal(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve_config(apply_overrides({"name": "x"}, overrides))
    return str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "named", "held"),
    [
        (["train.mix_weights={D: 1}"], "D", "D and D_MUSIC"),
        (["train.mix_weights={D: 1, MUSIC: 2}"], "D and MUSIC", "D and D_MUSIC"),
        (["train.mix_weights={}"], "nothing", "D and D_MUSIC"),
        (["train.mix_weights={D: 1, D_MUSIC: 2}", "mix.include_music=false"], "D and D_MUSIC", "D"),
        (["train.mix_weights={D: 1}", "mix.include_preferences=false"], "D", "D_MUSIC"),
    ],
)
def test_weights_name_just_what_the_mix_holds(overrides: list[str], named: str, held: str) -> None:
    assert refusal(*overrides) == (
        f"train.mix_weights names {named}, but the mix holds {held} (mix.include_preferences, "
        "mix.include_music): name just these, or leave train.mix_weights empty"
    )


@pytest.mark.parametrize("weight", ["0", "-1", "true", ".nan", ".inf", "much"])
def test_a_weight_is_a_number_above_0(weight: str) -> None:
    assert "train.mix_weights.D" in refusal(f"train.mix_weights={{D: {weight}, D_MUSIC: 1}}")


def test_changed_weights_train_again_and_do_not_mix_again() -> None:
    plain = resolve_config({"name": "x"})
    weighted = resolve_config({"name": "x", "train": {"mix_weights": {"D": 0.7, "D_MUSIC": 0.3}}})
    assert stage_keys(plain, "mix") == stage_keys(weighted, "mix")
    before, now = stage_keys(plain, "train"), stage_keys(weighted, "train")
    assert not same_keys(before, now, before) and not same_keys(now, before, before)
    # A folder of a version that did not know the key had no weights.
    old = {key: value for key, value in before.items() if not key.startswith("train.mix_weights")}
    assert same_keys(old, before, before) and not same_keys(old, now, before)
